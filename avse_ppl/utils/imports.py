"""Functions of the user's own, imported by ``module:function``."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def import_function(path: str, role: str, example: str) -> Callable[..., Any]:
    """Import ``module:function``; modules of the current folder come first.

    Parameters
    ----------
    path
        The module and the function.
    role
        What it is to be, for messages, such as ``"noise"``.
    example
        How such a path looks, for messages: what it is for, and the path.

    Raises
    ------
    ValueError
        If the module or the function is missing, or the module fails on import.

    Examples
    --------
    >>> import_function("math:sqrt", "noise", "for hiss in my_noise.py, write my_noise:hiss")(4)
    2.0
    """
    module_name, _, function = path.partition(":")
    if not module_name or not function or module_name.endswith(".py"):
        raise ValueError(f"{role} {path!r} is not of the form module:function; {example}")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name.split(".")[0] and error.name != module_name:
            raise ValueError(f"{module_name}.py imports {error.name!r}, which is missing") from None
        raise ValueError(
            f"no module {module_name!r} for {role} {path!r}; expected {module_name}.py in "
            f"{Path.cwd()} or an installed module"
        ) from None
    except Exception as error:
        raise ValueError(f"module {module_name!r} failed on import: {error!r}") from error
    found = getattr(module, function, None)
    if not callable(found):
        names = [n for n in vars(module) if callable(getattr(module, n)) and not n.startswith("_")]
        close = difflib.get_close_matches(function, names, n=3)
        raise ValueError(
            f"module {module_name!r} has no function {function!r}"
            + (f"; did you mean {' or '.join(map(repr, close))}?" if close else "")
        )
    return found
