"""gunicorn's configuration file, a Python program: executes it, and says what it defines."""

import ast
import importlib
import importlib.util
import inspect
import os
import re
import sys
import traceback

# gunicorn's hooks, with the number of arguments that they are called with; None: several are allowed, or it never is.
HOOKS = {
    "on_starting": 1, "on_reload": 1, "when_ready": 1, "on_all_ready": 1, "pre_fork": 2, "post_fork": 2, "post_worker_init": 1,
    "worker_int": 1, "worker_abort": 1, "pre_exec": 1, "pre_request": 2, "post_request": None, "child_exit": 2, "worker_exit": 2,
    "nworkers_changed": 3, "on_exit": 1, "ssl_context": None, "on_dirty_starting": None, "dirty_post_fork": None,
    "dirty_worker_init": None, "dirty_worker_exit": None,
}
MODULE = "python:"
# Longest traceback that is handed on, in characters.
TRACEBACK_MAX = 16 * 1024
# Most entries of a list that is a setting, and most characters of one; anything longer is a variable of the file's own.
ENTRIES_MAX = 1000
TEXT_MAX = 16 * 1024


def execute(form):
    """The names that the file defines; `form` is its path, or `python:MODULE`."""
    if form.startswith(MODULE):
        return vars(importlib.import_module(form[len(MODULE):]))
    spec = importlib.util.spec_from_file_location("__config__", form)
    module = importlib.util.module_from_spec(spec)
    sys.modules["__config__"] = module
    # Not by the loader: it keeps compiled files by the second, and a reload may come within one.
    code = spec.loader.source_to_code(spec.loader.get_data(form), form)
    exec(code, vars(module))
    return vars(module)


def hooks_of(names):
    """The functions among `names` that are hooks, by name."""
    found = {}
    for name in HOOKS:
        value = names.get(name)
        if isinstance(value, str) and re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", value):
            # gunicorn's way to name a function that lies elsewhere.
            module, _, attribute = value.rpartition(".")
            value = getattr(importlib.import_module(module), attribute)
        if callable(value) and not inspect.isclass(value):
            found[name] = value
    return found


def describe(form):
    """What the file defines, as the master reads it: see `shared/src/settings/python.rs`."""
    try:
        names = execute(form)
        hooks = hooks_of(names)
    except (Exception, SystemExit) as error:
        return failure(form, error)
    file = form
    if form.startswith(MODULE):
        file = names.get("__file__") or form
    places = places_in(file)
    said = {"names": [], "hooks": [], "problems": [], "file": file if form.startswith(MODULE) else None}
    for name, value in names.items():
        line, column = places.get(name, (0, 0))
        if name in hooks:
            said["hooks"].append((name, max(line, 1), max(column, 1)))
            if not takes(hooks[name], HOOKS[name]):
                said["problems"].append((f"{name} does not take {HOOKS[name]} arguments", max(line, 1), max(column, 1)))
        elif not (name.startswith("_") or inspect.ismodule(value) or inspect.isroutine(value)):
            kind, texts = written(value)
            said["names"].append(
                {"name": name, "kind": kind, "texts": texts, "is_empty": is_empty(value), "line": line, "column": column}
            )
    return said


def failure(form, error):
    """An exception as it is shown, and the line of the file that it came from."""
    entry, line = error.__traceback__, None
    while entry is not None and entry.tb_frame.f_code.co_filename == __file__:
        entry = entry.tb_next
    text = "".join(traceback.format_exception(type(error), error, entry)).rstrip("\n")
    while entry is not None:
        if entry.tb_frame.f_code.co_filename == form:
            line = entry.tb_lineno
        entry = entry.tb_next
    if isinstance(error, SyntaxError) and error.filename == form:
        line = error.lineno
    return {"error": clean(text[-TRACEBACK_MAX:]), "error_line": line}


def takes(function, count):
    """Whether a function can be called with `count` arguments."""
    if count is None:
        return True
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:
        pass  # Not written in Python: who knows.
    return True


def written(value):
    """The name of the value's type, and the value as on a command line, if it can be written so."""
    if value is None:
        return "NoneType", []
    if isinstance(value, bool):
        return "bool", ["true" if value else "false"]
    if isinstance(value, int):
        return "int", [str(int(value))]
    if isinstance(value, float):
        return "float", [repr(float(value))]
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        return "str", [clean(value)] if len(value) <= TEXT_MAX else None
    if inspect.isclass(value):
        return "type", [f"{value.__module__}.{value.__qualname__}"]
    if isinstance(value, dict):
        return "dict", entries(value.items(), "=".join)
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            return "set" if kind is frozenset else kind.__name__, entries(([entry] for entry in value), "".join)
    return type(value).__name__, None


def entries(parts, join):
    """Entries of a list, each made of parts that are texts or numbers; None if they are not."""
    texts = []
    for some in parts:
        some = [os.fspath(part) if isinstance(part, os.PathLike) else part for part in some]
        if not all(isinstance(part, (str, int, float)) for part in some) or len(texts) == ENTRIES_MAX:
            return None
        text = join(str(part) for part in some)
        if len(text) > TEXT_MAX:
            return None
        texts.append(clean(text))
    return texts


def clean(text):
    """The text as UTF-8 can have it."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def is_empty(value):
    try:
        return not value
    except Exception:
        return False


def places_in(file):
    """Where each name is last given a value: line and column, both from 1. None of functions' and classes' own."""
    try:
        with open(file, "rb") as source:
            text = source.read()
        tree = ast.parse(text)
    except (OSError, SyntaxError, ValueError):
        return {}
    lines = text.splitlines()
    found = {}

    def note(name, node):
        before = lines[node.lineno - 1][: node.col_offset] if node.lineno <= len(lines) else b""
        found[name] = (node.lineno, len(before.decode("utf-8", "replace")) + 1)

    def visit(statements):
        for node in statements:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                note(node.name, node)
                continue
            targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
            value = getattr(node, "value", None)
            for target in targets:
                for part in ast.walk(target) if target is not None else ():
                    if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                        note(part.id, value if value is not None else node)
            for block in ("body", "orelse", "finalbody"):
                visit(getattr(node, block, ()))
            for branch in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
                visit(branch.body)

    visit(tree.body)
    return found
