"""Code of the user's own, named as `module:Name` where a sampler, a grid or an extractor is.

What the user names is run. Files of data, which may be a stranger's, name code too, as a reference
its extractor: that is run only if the user has named it as well.
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
    """What `module:Name` is, from where Python finds the module or the current folder.

    Whatever the module does instead of being imported is a `UserError`; what it prints is for the
    user, and no part of a command's result.
    """
    module, _, name = path.partition(":")
    if not is_own(path):
        raise UserError(
            f"{kind} {path} is no module:Name: write my_module:Mine for Mine in my_module.py"
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
    except (Exception, SystemExit) as error:  # it is the user's own code that runs here
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
    """The `module:Name`s in a name with options: it itself, and what its options name."""
    name, *options = text.split(",")
    return [part for part in (name, *(o.partition("=")[2] for o in options)) if is_own(part)]


def name_code(paths: Iterable[str]) -> None:
    """Take these `module:Name`s for what the user wants run."""
    _NAMED.update(paths)


def named_code() -> tuple[str, ...]:
    """All that was named so far, for another process to run too."""
    return tuple(sorted(_NAMED))


def refuse_code(text: str, where: str) -> None:
    """A `UserError` where `text`, from a file of data, names code that the user has not."""
    for part in own_parts(text):
        if part not in _NAMED:
            raise UserError(
                f"{where} names {part}, which is code, and a file's word is not enough to run it: "
                f"if you know it, begin with underone --code {part}"
            )


def source_sha256(path: str) -> str:
    """A hash of a `module:Name` and the source of its module; of a compiled one, of the name."""
    source = _source(importlib.import_module(path.partition(":")[0]))
    return hashlib.sha256(f"{path}\n{source}".encode()).hexdigest()


@cache
def _source(module: ModuleType) -> str:
    """A module's source as it was imported: read at once, for the file may be edited later."""
    with suppress(OSError, TypeError):
        return inspect.getsource(module)
    return ""
