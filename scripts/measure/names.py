"""What the command lines of the measuring programs have in common: lists of known names, rounds and where results go."""

import pathlib
import sys


def chosen(text, known, groups={}):
    """The names in `text`, each once, a group's members for its name; ends the program if one is unknown."""
    names = list(dict.fromkeys(name for word in text.split(",") for name in groups.get(word, [word])))
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"bench: unknown: {', '.join(unknown)}; there are: {', '.join(known)}")
    return names


def common(parser, seconds):
    """Adds the flags that every table has; `seconds`: the default length of a measurement."""
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--seconds", type=int, default=seconds, help="of each measurement (default: %(default)s)")
    parser.add_argument("--out", type=pathlib.Path, default="target/bench", help="folder of results and logs (default: %(default)s)")


def told(flags):
    """The flags as a result file holds them."""
    return {name: str(value) if isinstance(value, pathlib.Path) else value for name, value in vars(flags).items()}
