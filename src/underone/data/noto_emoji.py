"""Noto emoji: 32x32 RGB pictures in nine classes, from the npm package emoji-datasource-google.

The pictures are Google's Noto emoji, Apache License 2.0; the package and its table of emoji, by Cal
Henderson, are under the MIT licence.
"""

import hashlib
import io
import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from underone.data.archive import Archive, open_archive
from underone.data.dataset import Dataset
from underone.data.hold_out import held_out
from underone.errors import UserError

WHAT = "the npm package emoji-datasource-google"
TABLE = "package/emoji.json"
IMAGES = "package/img/google/64"
LARGEST_ARCHIVE, LARGEST_TABLE, LARGEST_IMAGE = 100_000_000, 5_000_000, 200_000
SIZE, CELL = 64, 2
# Five bare skin tones, which depict nothing.
NOT_A_CLASS = "Component"
HELD_OUT = 0.2

_JOINER, _VARIATION = "200D", "FE0F"
_SKIN_TONES = frozenset({"1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"})
# After a joiner, these turn a person into a woman, a man, or one who faces right.
_TURNS = frozenset({"2640", "2642", "27A1"})
_PERSON, _CHILD, _ELDER = "1F9D1", "1F9D2", "1F9D3"
_SAME = {
    "1F468": _PERSON,
    "1F469": _PERSON,
    "1F466": _CHILD,
    "1F467": _CHILD,
    "1F474": _ELDER,
    "1F475": _ELDER,
}


def read_noto_emoji(source: Path, split: str) -> Dataset:
    """One split of the pictures in the package's tarball, which is read in memory.

    Pictures of 64x64 pixels are laid on white, and each 2x2 cell becomes its mean. Classes are the
    categories, without the five skin tones that stand alone. A fifth of each class is held out, by
    the hash of a name and in whole families: the variants of an emoji by skin tone, gender and
    direction, and pictures equal to any of these, are in one split. A file that is damaged,
    truncated, hostile or of another format is a `UserError`.
    """
    pictures = _read_pictures(source)
    class_names = tuple(sorted({picture.category for picture in pictures}))
    test = held_out(
        [each.ties for each in pictures], [each.category for each in pictures], HELD_OUT
    )
    chosen = [each for i, each in enumerate(pictures) if (i in test) == (split == "test")]
    if not chosen:
        raise UserError(f"{source} holds too few emoji for a {split} split")
    images = np.stack([picture.pixels for picture in chosen])
    labels = [class_names.index(picture.category) for picture in chosen]
    return Dataset(
        "noto-emoji",
        split,
        torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
        torch.tensor(labels, dtype=torch.int64),
        class_names,
    )


def family(unified: str) -> str:
    """The part of an emoji's code points, joined by hyphens, that its near duplicates share.

    Skin tones and signs of gender and of facing right are dropped; men and women become persons,
    boys and girls children.
    """
    codes = unified.split("-")
    turned = {i + 1 for i, (a, b) in enumerate(pairwise(codes)) if a == _JOINER and b in _TURNS}
    kept = [
        _SAME.get(code, code)
        for i, code in enumerate(codes)
        if i not in turned and code not in _SKIN_TONES and code not in (_JOINER, _VARIATION)
    ]
    return "-".join(kept)


def halved_on_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGBA (H, W, 4) on white, each 2x2 cell averaged: (H/2, W/2, 3), half rounded up."""
    values = rgba.astype(np.int64)
    colour, opacity = values[..., :3], values[..., 3:]
    laid = colour * opacity + 255 * (255 - opacity)
    height, width = laid.shape[0] // CELL, laid.shape[1] // CELL
    sums = laid.reshape(height, CELL, width, CELL, 3).sum(axis=(1, 3))
    whole = 255 * CELL**2
    return ((2 * sums + whole) // (2 * whole)).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class _Entry:
    """A picture in the table; `base` is the picture of the emoji that it is a variant of."""

    image: str
    base: str
    unified: str
    category: str


@dataclass(frozen=True, eq=False)
class _Picture(_Entry):
    """An entry with its `pixels` (32, 32, 3)."""

    pixels: NDArray[np.uint8]

    @property
    def ties(self) -> tuple[str, str, str]:
        """Keys by which pictures are related: those that share one are of one family."""
        equal = hashlib.sha256(self.pixels.tobytes()).hexdigest()
        return f"base {self.base}", f"family {family(self.unified)}", f"pixels {equal}"


def _read_pictures(source: Path) -> list[_Picture]:
    with open_archive(source, LARGEST_ARCHIVE, WHAT) as archive:
        archive.refuse_escapes()
        entries = sorted(_read_table(archive), key=lambda entry: entry.image)
        files = [archive.read(f"{IMAGES}/{entry.image}", LARGEST_IMAGE) for entry in entries]
    return [
        _Picture(
            entry.image,
            entry.base,
            entry.unified,
            entry.category,
            halved_on_white(_decoded(data, f"{IMAGES}/{entry.image} in {source}")),
        )
        for entry, data in zip(entries, files, strict=True)
    ]


def _read_table(archive: Archive) -> list[_Entry]:
    data = archive.read(TABLE, LARGEST_TABLE)
    try:
        entries = [
            _Entry(each["image"], emoji["image"], each["unified"], emoji["category"])
            for emoji in json.loads(data)
            for each in (emoji, *emoji.get("skin_variations", {}).values())
            if emoji["category"] != NOT_A_CLASS and each["has_img_google"]
        ]
        texts = {type(value) for entry in entries for value in vars(entry).values()}
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        texts = set()
    if texts != {str}:
        raise UserError(f"{TABLE} in {archive.path} is not the table of emoji that {WHAT} has")
    return entries


def _decoded(data: bytes, where: str) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            size, pixels = image.size, np.array(image.convert("RGBA"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{where} is not a readable PNG ({error})") from None
    if size != (SIZE, SIZE):
        raise UserError(f"{where} is {size[0]}x{size[1]}, expected {SIZE}x{SIZE}")
    return pixels
