"""Samplers and grids by name: NAME, NAME,option=value,... or module:Name,...

The names are those of `SAMPLERS` and `GRIDS`, the options the fields of the dataclass behind the
name; `module:Name` is the user's own, imported from where Python finds it or the current folder.
"""

import dataclasses
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from underone.diffusion import GRIDS, SAMPLERS, Explicit, Grid, Sampler
from underone.errors import UserError, kind_and_line, unknown
from underone.modules import imported_as, own_parts

# The samplers that are made for one model: see `underone.generation`.
MADE_FOR_A_MODEL = ("ddpm-analytic", "tuned", "decoder", "distilled")
_GRIDS: Mapping[str, Any] = {**GRIDS, "explicit": Explicit}


def sampler_named(text: str) -> Sampler:
    """The sampler of a name with options, like `ddim,eta=0.5` or `my_samplers:Midpoint`."""
    name = text.partition(",")[0]
    if name in MADE_FOR_A_MODEL:
        raise UserError(f"{name} has no options and is made for a model: use it in underone sample")
    sampler = named("sampler", text, SAMPLERS) if own_parts(text) else _sampler(text)
    if not isinstance(sampler, Sampler):
        raise UserError(f"{text} is not a sampler: it must derive from underone.diffusion.Sampler")
    return sampler


def grid_named(text: str) -> Grid:
    """The grid of a name with options, like `karras,rho=5` or `explicit,steps=1000:600:250:40`."""
    grid = named("grid", text, _GRIDS) if own_parts(text) else _grid(text)
    if not callable(grid):
        raise UserError(f"{text} is not a grid: it must be callable with a schedule and steps")
    return grid


# Settings are read by the thousand, from a few names. A module of the user's own may be another one
# by the next time that it is named, so that only what is of this package is kept.
@lru_cache(maxsize=256)
def _sampler(text: str) -> Any:
    return named("sampler", text, SAMPLERS)


@lru_cache(maxsize=256)
def _grid(text: str) -> Any:
    return named("grid", text, _GRIDS)


def interval_named(text: str) -> tuple[float, float]:
    """The interval LOW:HIGH of noise levels sigma / alpha."""
    try:
        low, high = map(float, text.split(":"))
    except ValueError:
        raise UserError(f"an interval is LOW:HIGH, like 0.2:5, got {text!r}") from None
    return low, high


def named(kind: str, text: str, known: Mapping[str, Any]) -> Any:
    """The object that `text` names, made or changed by its options."""
    name, *options = text.split(",")
    if ":" in name:
        part = imported_as(kind, name)
    elif name in known:
        part = known[name]
    else:
        raise unknown(kind, name, known)
    pairs = [_option(kind, name, part, option) for option in options]
    values = dict(pairs)
    if len(values) < len(pairs):
        raise UserError(f"{kind} {name}: an option is given twice: {text}")
    try:
        if isinstance(part, type):
            return part(**values)
        return dataclasses.replace(part, **values) if values else part
    except UserError:
        raise
    except Exception as error:  # whatever a class of the user's own may raise
        raise UserError(
            f"{kind} {name} cannot be made with these options: {kind_and_line(error)}"
        ) from None


def _option(kind: str, name: str, part: Any, option: str) -> tuple[str, Any]:
    key, equals, value = option.partition("=")
    owner = part if isinstance(part, type) else type(part)
    fields = {
        field.name
        for field in (dataclasses.fields(owner) if dataclasses.is_dataclass(owner) else ())
        if field.name != "name" and field.metadata.get("option", True)
    }
    if not equals or key not in fields:
        takes = f"takes {', '.join(sorted(fields))}" if fields else "takes no options"
        raise UserError(f"{kind} {name}: {option!r} is none of its options; it {takes}")
    hint = get_type_hints(owner)[key]
    if hint is Sampler:
        return key, sampler_named(value)
    try:
        listed = get_origin(hint) is tuple
        return key, TypeAdapter(hint).validate_python(value.split(":") if listed else value)
    except PydanticSchemaGenerationError:
        raise UserError(f"{kind} {name}: {key} cannot be given as text") from None
    except ValidationError as error:
        reason = error.errors()[0]["msg"].lower()
        raise UserError(f"{kind} {name}: {option} is not valid: {reason}") from None
