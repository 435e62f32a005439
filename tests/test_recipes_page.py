"""The page of recipes names every key that there is, with its default."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic_core import PydanticUndefined

from underone.checkpoint import AnyPrediction, AnySchedule
from underone.config import Config
from underone.networks import UNetConfig
from underone.training.recipe import (
    AnyLevels,
    AnyWeighting,
    Augmentation,
    ClassifierRecipe,
    DiffusionRecipe,
    EncoderRecipe,
    Optimisation,
    VAERecipe,
    Views,
)

PAGE = (Path(__file__).parent.parent / "docs" / "recipes.md").read_text("utf-8")
SECTIONS = {
    "network",
    "schedule",
    "prediction",
    "levels",
    "weighting",
    "optimisation",
    "augmentation",
    "views",
}


def shown(title: str) -> dict[str, str]:
    """The keys and defaults of the tables below a heading."""
    below = PAGE.split(f"## {title}\n")[1].partition("\n## ")[0]
    return dict(re.findall(r"^\| `(\w+)` \| ([^|`]+?) \|", below, re.M))


def written(default: object) -> str:
    if default in (PydanticUndefined, dataclasses.MISSING):
        return "needed"
    return "none" if default is None else json.dumps(default)


def defaults(kind: type[Config]) -> dict[str, str]:
    fields = kind.model_fields.items()
    return {name: written(field.default) for name, field in fields if name not in SECTIONS}


@pytest.mark.parametrize(
    ("title", "kind"),
    [
        ("`[optimisation]`", Optimisation),
        ("`[augmentation]`", Augmentation),
    ],
)
def test_a_section_has_these_keys_and_defaults(title: str, kind: type[Config]) -> None:
    assert shown(title) == defaults(kind)


def test_every_recipe_has_these_keys_and_defaults() -> None:
    every, sampled = shown("Every recipe"), shown("Models that are sampled: `diffusion`, `vae`")
    other = shown("Other kinds")
    assert defaults(DiffusionRecipe) == every | sampled | shown("Diffusion models")
    assert defaults(VAERecipe) == every | sampled | {"beta": other.pop("beta")}
    smoothing = {"label_smoothing": other.pop("label_smoothing")}
    assert defaults(ClassifierRecipe) == every | smoothing
    terms = {name: other.pop(name) for name in ("invariance", "variance", "covariance")}
    assert defaults(EncoderRecipe) == every | terms
    assert defaults(Views) == other


def test_the_network_has_these_keys_and_defaults() -> None:
    fields = {f.name: written(f.default) for f in dataclasses.fields(UNetConfig)}
    fields.pop("name")
    assert shown("`[network]` of a diffusion model") == fields


@pytest.mark.parametrize("parts", [AnySchedule, AnyPrediction, AnyLevels, AnyWeighting])
def test_a_choice_has_these_names_and_keys(parts: Any) -> None:
    kinds = get_args(get_args(parts)[0] if get_origin(parts) is not None else parts)
    assert len(kinds) >= 2
    for kind in kinds:
        fields = {field.name: field.default for field in dataclasses.fields(kind)}
        name = fields.pop("name")
        keys = ", ".join(f"`{key}` = {value}" for key, value in fields.items())
        row = f"| `{name}` | {keys} |" if keys else f"| `{name}` | |"
        assert row in PAGE, row
