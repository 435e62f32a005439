"""Atomic writes, JSON and content hashes: a file is always the whole old or the whole new one."""

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from underone.errors import UserError


def whole_files(folder: Path, pattern: str = "*") -> list[Path]:
    """The files in a folder that match `pattern`, sorted, without half-written ones."""
    # The temporary files of `write_atomically` begin with a dot.
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file in the same folder, then rename it to `path`.

    A kill at any moment leaves either the file that was there or the new one, never a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb+") as file:  # Windows syncs only what is open for writing
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_new_folder(folder: Path) -> None:
    """A `UserError` where `folder` holds anything already."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not an empty folder: choose another name")


def write_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill an empty folder, which appears as `folder` when all is written.

    A `UserError` where `folder` holds anything already: old and new files would be mixed.
    """
    check_new_folder(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        whole = Path(temporary) / folder.name
        whole.mkdir()
        write(whole)
        if folder.exists():
            folder.rmdir()
        whole.rename(folder)


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes atomically."""
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def to_json(value: object, indent: int | None = None) -> str:
    """A value as JSON, in which a number that is not finite is null.

    Python would write Infinity and NaN, which are not JSON, and which other programs refuse.
    """
    return json.dumps(_with_null(value), indent=indent, allow_nan=False)


def _with_null(value: object) -> object:
    match value:
        case float() if not math.isfinite(value):
            return None
        case dict():
            return {key: _with_null(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_with_null(inner) for inner in value]
    return value


def write_json(path: Path, value: object) -> None:
    """Write a JSON document atomically, indented, with a final newline; see `to_json`."""
    write_text(path, to_json(value, indent=2) + "\n")


def read_json(path: Path) -> object:
    """Read a JSON document; a missing or broken one is a `UserError` naming the file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}): restore or delete it") from None


def sha256_of_file(path: Path) -> str:
    """The hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def _umask() -> int:
    # It can be read only by setting it, for all threads at once: so this is done once.
    mask = os.umask(0)
    os.umask(mask)
    return mask
