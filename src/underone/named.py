"""What users call samplers and grids by: NAME, NAME,option=value,... or module:Name,...

The names are those of `SAMPLERS` and `GRIDS`, the options the fields of the dataclass behind the
name; `module:Name` is the user's own, imported from where Python finds it or the current folder.
"""

import dataclasses
import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from underone.diffusion import GRIDS, SAMPLERS, Explicit, Grid, Sampler
from underone.errors import UserError, unknown

AnyPart = TypeVar("AnyPart")


def sampler_named(text: str) -> Sampler:
    """The sampler of a name with options, like `ddim,eta=0.5` or `my_samplers:Midpoint`."""
    sampler = _named("sampler", text, SAMPLERS)
    if not isinstance(sampler, Sampler):
        raise UserError(f"{text} is not a sampler: it must derive from underone.diffusion.Sampler")
    return sampler


def grid_named(text: str) -> Grid:
    """The grid of a name with options, like `karras,rho=5` or `explicit,steps=1000:600:250:40`."""
    grid = _named("grid", text, {**GRIDS, "explicit": Explicit})
    if not callable(grid):
        raise UserError(f"{text} is not a grid: it must be callable with a schedule and steps")
    return grid


def _named(kind: str, text: str, known: Mapping[str, Any]) -> Any:
    """What `text` names: an instance as it is, or made or changed by its options."""
    name, *options = text.split(",")
    if ":" in name:
        part = _imported(kind, name)
    elif name in known:
        part = known[name]
    else:
        raise unknown(kind, name, known)
    values = dict(_option(kind, name, part, option) for option in options)
    try:
        if isinstance(part, type):
            return part(**values)
        return dataclasses.replace(part, **values) if values else part
    except TypeError as error:
        raise UserError(f"{kind} {name} cannot be made so: {error}") from None


def _imported(kind: str, path: str) -> Any:
    module, _, attribute = path.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{kind} {path}: {error}; name a module of the current folder or an installed one"
        ) from None
    except AttributeError:
        raise UserError(f"{kind} {path}: the module {module} has no {attribute!r}") from None


def _option(kind: str, name: str, part: Any, option: str) -> tuple[str, Any]:
    key, equals, value = option.partition("=")
    owner = part if isinstance(part, type) else type(part)
    fields = {field.name for field in dataclasses.fields(owner)} - {"name"}
    if not equals or key not in fields:
        takes = f"takes {', '.join(sorted(fields))}" if fields else "takes no options"
        raise UserError(f"{kind} {name}: {option!r} is none of its options; it {takes}")
    hint = get_type_hints(owner)[key]
    try:
        return key, TypeAdapter(hint).validate_python(value.split(":") if ":" in value else value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].lower()
        raise UserError(f"{kind} {name}: {option} is not valid: {reason}") from None
