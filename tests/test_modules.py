"""Modules of the user's own."""

import pytest

from underone.modules import own_parts


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("ddim,eta=0.5", []),
        ("explicit,steps=1000:500", []),
        ("mine:Own", ["mine:Own"]),
        ("mine:Own,inner=other.deep:Thing", ["mine:Own", "other.deep:Thing"]),
        ("predictor-corrector,predictor=mine:Own", ["mine:Own"]),
    ],
)
def test_every_part_of_the_users_own_is_known(text: str, parts: list[str]) -> None:
    assert own_parts(text) == parts
