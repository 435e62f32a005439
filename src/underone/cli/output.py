"""Where results are written: checked before the work, saved whole after it."""

import os
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from underone.data import SampleSet, save_picture, tile
from underone.errors import UserError

# The endings of what a sample set can be saved as; a folder has none.
SAMPLE_SET = (".png", ".npz", "")


def check_output(out: Path, endings: Sequence[str] = SAMPLE_SET, option: str = "--out") -> None:
    """A `UserError` before the work where `out` could not be written after it."""
    named = [ending for ending in endings if ending]
    if out.name in ("", *named) or out.suffix.lower() not in endings:
        folder = ", or name a folder" if "" in endings else ""
        raise UserError(f"{option} {out}: end it in {' or '.join(named)}{folder}")
    if out.suffix != "" and out.is_dir():
        raise UserError(f"{option} {out} is a folder: choose another name")
    nearest = next(parent for parent in (out.parent, *out.parents) if parent.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise UserError(
            f"{option} {out}: nothing can be written in {nearest}: choose another place"
        )
    if out.suffix == "" and out.exists() and (out.is_file() or any(out.iterdir())):
        raise UserError(f"{option} {out} exists and is not an empty folder: choose another name")


def save(samples: SampleSet, out: Path) -> None:
    """Write samples as the ending of `out` says."""
    if out.suffix.lower() == ".npz":
        samples.save_npz(out)
    elif out.suffix.lower() == ".png":
        save_grid(samples.images, min(10, len(samples)), out)
    else:
        samples.save_png_folder(out)


def save_grid(images: Tensor, columns: int, out: Path) -> None:
    """Write uint8 images (N, C, H, W) as a PNG, row by row, twice their size."""
    save_picture(tile(images, columns=columns, scale=2), out)
