"""JSON documents of other programs: small objects, read with care."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from underone.errors import UserError
from underone.files import read_json

_MOST_BYTES = 2**20


def read_document(path: Path) -> dict[str, Any]:
    """The JSON object in a file; anything else, or more than a mebibyte of it, is a `UserError`."""
    if not path.is_file():
        raise UserError(f"no file at {path}")
    if path.stat().st_size > _MOST_BYTES:
        raise UserError(f"{path} is larger than any configuration: restore or delete it")
    document = read_json(path)
    if not isinstance(document, dict):
        raise UserError(
            f"{path} must hold a JSON object, got a {type(document).__name__}: restore it"
        )
    return document


def refuse(path: Path, refusals: Iterable[tuple[bool, str]]) -> None:
    """A `UserError` with the message of the first condition that holds: what is not supported."""
    for asked, what in refusals:
        if asked:
            raise UserError(f"{path}: this is not supported: {what}")
