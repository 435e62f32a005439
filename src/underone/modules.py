"""The user's own code, named as `module:Name` in place of a sampler, a grid or an extractor.

Code that the user names is run. Data files, which may be a stranger's, name code too, as a
reference names its extractor: that is run only if the user has named it as well.
"""

import hashlib
import importlib
import inspect
import sys
from collections.abc import Iterable
from contextlib import redirect_stdout, suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from underone.errors import UserError, kind_and_line

_NAMED: set[str] = set()


def imported_as(kind: str, path: str) -> Any:
    """The object `module:Name`, from a module that Python finds or that is in the current folder.

    A failure to import is a `UserError`; what the module prints goes to standard error, apart from
    a command's result.
    """
    module, _, name = path.partition(":")
    if not is_own(path):
        raise UserError(
            f"{kind} {path} is not a module:Name: write my_module:Mine for Mine in my_module.py"
        )
    name_code([path])
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        with redirect_stdout(sys.stderr):
            found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{kind} {path}: {error}; name a module of the current folder or an installed one"
        ) from None
    except (Exception, SystemExit) as error:  # the user's own code may raise anything
        raise UserError(
            f"{kind} {path}: {module} cannot be imported: {kind_and_line(error)}"
        ) from None
    _source(found)
    if not hasattr(found, name):
        raise UserError(f"{kind} {path}: the module {module} has no {name!r}")
    return getattr(found, name)


def is_own(path: str) -> bool:
    """Whether `path` could be a `module:Name`."""
    module, colon, name = path.partition(":")
    return bool(colon) and all(part.isidentifier() for part in (*module.split("."), name))


def own_parts(text: str) -> list[str]:
    """The `module:Name`s in a name with options: the name itself, and values of options."""
    name, *options = text.split(",")
    return [part for part in (name, *(o.partition("=")[2] for o in options)) if is_own(part)]


def name_code(paths: Iterable[str]) -> None:
    """Record that the user wants these `module:Name`s to be run."""
    _NAMED.update(paths)


def named_code() -> tuple[str, ...]:
    """All code named so far, which another process may then run too."""
    return tuple(sorted(_NAMED))


def refuse_code(text: str, where: str) -> None:
    """A `UserError` where `text`, from a data file, names code that the user did not name."""
    for part in own_parts(text):
        if part not in _NAMED:
            raise UserError(
                f"{where} names {part}, which is code, and is not run just because a file names "
                f"it: if you trust it, begin with underone --code {part}"
            )


def source_sha256(path: str) -> str:
    """A hash of a `module:Name` and its module's source, or if compiled, of the name alone."""
    source = _source(importlib.import_module(path.partition(":")[0]))
    return hashlib.sha256(f"{path}\n{source}".encode()).hexdigest()


@cache
def _source(module: ModuleType) -> str:
    """A module's source as it was imported: read at once, since the file may be edited later."""
    with suppress(OSError, TypeError):
        return inspect.getsource(module)
    return ""
