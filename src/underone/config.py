"""Typed configuration documents; what does not fit its type is refused in one line."""

import tomllib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from underone.errors import UserError, unknown

AnyModel = TypeVar("AnyModel", bound=BaseModel)


class Config(BaseModel):
    """Base of all configuration documents: frozen, and without NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Read TOML; if malformed, a `UserError`. `where` names the document in the message."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also from overlong numbers and deep nesting
        raise UserError(f"{where} is not valid TOML: {error}") from None


def shipped_documents(folder: Traversable) -> list[str]:
    """The names of the TOML documents in a folder of the package."""
    return sorted(Path(entry.name).stem for entry in folder.iterdir())


def named_toml(what: str, name: str, folder: Traversable) -> dict[str, Any]:
    """The document of a shipped name, or of a TOML file; a `UserError` where there is none.

    `what` says what it describes, like "recipe".
    """
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise UserError(f"no {what} at {path}")
        text = path.read_text(encoding="utf-8", errors="replace")
    elif name in shipped_documents(folder):
        text = (folder / f"{name}.toml").read_text(encoding="utf-8")
    else:
        raise unknown(what, name, (*shipped_documents(folder), "a .toml file"))
    return parse_toml(text, f"{what} {name}")


def parse_kind(kinds: Mapping[str, type[AnyModel]], document: object, where: str) -> AnyModel:
    """Read `document` as the one of `kinds` that its own "kind" names; see `parse`."""
    kind = document.get("kind") if isinstance(document, dict) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise UserError(f"{where}: kind must be one of {', '.join(kinds)}, got {kind!r}")
    return parse(kinds[kind], document, where)


def parse(model: type[AnyModel], document: object, where: str) -> AnyModel:
    """Read `document` as a `model`; the first thing that does not fit is a one-line `UserError`.

    `where` names the document in the message. Unknown keys are errors naming the nearest known one.
    """
    try:
        value = model.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the document"
        given = "" if first["type"] == "missing" else f", got {_shortened(first['input'])}"
        raise UserError(f"{where}: {place}: {first['msg']}{given}") from None
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    _refuse_unknown_keys(document, value, where)
    return value


def _refuse_unknown_keys(document: object, value: object, where: str) -> None:
    if isinstance(document, list) and isinstance(value, tuple) and len(document) == len(value):
        for each, part in zip(document, value, strict=True):
            _refuse_conversion(each, part, where)
            _refuse_unknown_keys(each, part, where)
        return
    known = _fields(value)
    if known is None or not isinstance(document, Mapping):
        return
    for key, inner in document.items():
        if key not in known:
            raise unknown(f"key in {where}:", key, known)
        _refuse_conversion(inner, known[key], f"{where}: {key}")
        _refuse_unknown_keys(inner, known[key], where)


def _refuse_conversion(written: object, read: object, where: str) -> None:
    """A `UserError` where true or text was converted to a number, which is likely a mistake."""
    one = read[0] if isinstance(read, tuple) and len(read) == 1 else read
    number = isinstance(one, int | float) and not isinstance(one, bool)
    if isinstance(written, bool | str) and number:
        raise UserError(f"{where} must be a number, got {_shortened(written)}")


def _fields(value: object) -> dict[str, Any] | None:
    if isinstance(value, BaseModel):
        return {name: getattr(value, name) for name in type(value).model_fields}
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return None


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
