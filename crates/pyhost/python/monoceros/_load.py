"""Finds the application that the command line names, by gunicorn's rules."""

import ast
import importlib
import inspect
import os
import sys
import traceback


class NoApplication(Exception):
    """What was named is there, but is no application."""


def load(uri):
    """The WSGI application named by `module`, `module:name` or `module:factory(arguments)`."""
    module_name, _, name = uri.partition(":")
    name = name or "application"
    try:
        module = importlib.import_module(module_name)
    except ImportError:
        if module_name.endswith(".py") and os.path.exists(module_name):
            hint = module_name[:-3].replace("/", ".")
            raise NoApplication(f"Failed to find application, did you mean '{hint}:{name}'?") from None
        raise
    try:
        expression = ast.parse(name, mode="eval").body
    except SyntaxError:
        raise NoApplication(f"Failed to parse {name!r} as an attribute name or function call.") from None
    if isinstance(expression, ast.Name):
        attribute, args, kwargs = expression.id, None, None
    elif isinstance(expression, ast.Call) and isinstance(expression.func, ast.Name):
        attribute = expression.func.id
        try:
            args = [ast.literal_eval(argument) for argument in expression.args]
            kwargs = {word.arg: ast.literal_eval(word.value) for word in expression.keywords}
        except ValueError:
            raise NoApplication(f"Failed to parse arguments as literal values: {name!r}") from None
    else:
        raise NoApplication(f"Failed to parse {name!r} as an attribute name or function call.")
    try:
        application = getattr(module, attribute)
    except AttributeError:
        raise NoApplication(f"Failed to find attribute {attribute!r} in {module_name!r}.") from None
    if args is not None:
        try:
            application = application(*args, **kwargs)
        except TypeError as error:
            if _is_of_the_call(application, args, kwargs):
                raise NoApplication(f"The factory {attribute!r} cannot be called so: {error}") from error
            raise
    if application is None:
        raise NoApplication(f"Failed to find application object: {attribute!r}")
    if not callable(application):
        raise NoApplication("Application object must be callable.")
    return application


def _is_of_the_call(factory, args, kwargs):
    """Whether the arguments do not fit, as opposed to an error within the factory."""
    try:
        inspect.signature(factory).bind(*args, **kwargs)
    except TypeError:
        return True
    except ValueError:
        pass
    return False


def text_of(error):
    """An exception as it is logged."""
    if isinstance(error, NoApplication):
        return str(error)
    return "".join(traceback.format_exception(error)).rstrip("\n")


def flush():
    """Writes out what the application printed, as far as there is somewhere to write it to."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass


def leave(code):
    """Ends the process at once, whatever threads were begun in it."""
    flush()
    os._exit(code)


def prepare(settings):
    """Makes the interpreter what an application expects: its folder and `pythonpath` in front of all others."""
    for entry in reversed((settings.get("pythonpath") or "").split(",")):
        if entry and entry not in sys.path:
            sys.path.insert(0, os.path.abspath(entry))
    here = os.getcwd()
    if here in sys.path:
        sys.path.remove(here)
    sys.path.insert(0, here)
