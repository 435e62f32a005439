"""Configuration: a document is what its type says, or one line says why not."""

from dataclasses import dataclass

import pytest
from pydantic import Field, ValidationError

from underone.config import Config, parse
from underone.errors import UserError, unknown


@dataclass(frozen=True, kw_only=True)
class Shape:
    width: int
    height: int = 2

    def __post_init__(self) -> None:
        if self.width < 1:
            raise UserError(f"width must be >= 1,\n got {self.width}")


class Inner(Config):
    rate: float = Field(default=0.5, gt=0)


class Outer(Config):
    name: str
    shape: Shape
    inner: Inner = Inner()
    sizes: tuple[int, ...] = (1, 2)


GOOD = {"name": "n", "shape": {"width": 3}}


def refusal(document: object) -> str:
    with pytest.raises(UserError) as caught:
        parse(Outer, document, "some.json")
    text = str(caught.value)
    assert "\n" not in text
    assert "some.json" in text
    return text


def test_a_document_is_read_with_its_defaults() -> None:
    assert parse(Outer, GOOD, "some.json") == Outer(name="n", shape=Shape(width=3, height=2))
    everything = {
        "name": "n",
        "shape": {"width": 3, "height": 4},
        "inner": {"rate": 2},
        "sizes": [7],
    }
    assert parse(Outer, everything, "some.json") == Outer(
        name="n", shape=Shape(width=3, height=4), inner=Inner(rate=2.0), sizes=(7,)
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": {"width": True}},
        {"shape": {"width": "3"}},
        {"inner": {"rate": True}},
        {"sizes": [True, 2]},
        {"sizes": ["1"]},
    ],
)
def test_true_and_text_are_no_numbers(changes: dict[str, object]) -> None:
    assert "must be a number, got" in refusal(GOOD | changes)


def test_what_was_read_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        parse(Outer, GOOD, "some.json").name = "other"


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (GOOD | {"nam": 1}, "unknown key in some.json: 'nam': did you mean 'name'?"),
        (GOOD | {"shape": {"width": 3, "heigth": 1}}, "'heigth': did you mean 'height'?"),
        (GOOD | {"inner": {"rat": 1}}, "'rat': did you mean 'rate'?"),
        (GOOD | {"zzz": 1}, "'zzz': choose one of inner, name, shape, sizes"),
        ({"name": "n"}, "some.json: shape: Field required"),
        (GOOD | {"shape": {}}, "some.json: shape.width: Field required"),
        (GOOD | {"inner": {"rate": 0}}, "some.json: inner.rate: Input should be greater than 0"),
        (GOOD | {"inner": {"rate": float("nan")}}, "some.json: inner.rate: Input should be a fin"),
        (GOOD | {"inner": {"rate": float("inf")}}, "some.json: inner.rate: Input should be a fin"),
        (GOOD | {"inner": {"rate": "fast"}}, "got 'fast'"),
        (GOOD | {"sizes": [1, 2.5]}, "some.json: sizes.1: "),
        (GOOD | {"shape": {"width": 0}}, "some.json: width must be >= 1, got 0"),
        ([1, 2], "some.json: the document: "),
        (None, "some.json: the document: "),
        (GOOD | {"shape": "x" * 1000}, "xx..."),
    ],
)
def test_what_does_not_fit_is_named(document: object, expected: str) -> None:
    text = refusal(document)
    assert expected in text
    assert len(text) < 250


def test_an_error_is_one_line_whatever_it_quotes() -> None:
    assert str(UserError("a\n  b\tc\r\nd")) == "a b c d"


def test_an_unknown_name_gets_the_nearest_known_one_or_all() -> None:
    assert str(unknown("fruit", "aple", ["pear", "apple"])) == (
        "unknown fruit 'aple': did you mean 'apple'?"
    )
    assert str(unknown("fruit", "zzz", ["pear", "apple"])) == (
        "unknown fruit 'zzz': choose one of apple, pear"
    )
