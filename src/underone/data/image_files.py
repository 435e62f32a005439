"""Read image files of any common format as uint8 tensors."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from underone.errors import UserError

EXTENSIONS = frozenset(
    {".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tga", ".tif"}
    | {".tiff", ".webp"}
)
# The formats of these extensions. Pillow recognises files by their content, and some formats that
# it reads are programs, such as PostScript.
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TGA", "TIFF", "WEBP")
_BITS_PER_SAMPLE = 258  # a tag of TIFF
GREYSCALE = frozenset({"1", "L", "LA"})


def is_image_file(path: Path) -> bool:
    """Whether the name, in any case, is that of an image; hidden files are not."""
    # A Mac leaves a hidden `._photo.png`, not an image, beside every `photo.png` it copies.
    return path.suffix.lower() in EXTENSIONS and not path.name.startswith(".") and path.is_file()


def is_hidden(path: Path) -> bool:
    """Whether a path is a hidden file, or leads through a hidden folder.

    It is relative to the folder that the user named, whose own parents do not matter.
    """
    return any(part.startswith(".") for part in path.parts)


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """An image file to read from; one that is damaged or deeper than 8 bits is a `UserError`."""
    try:
        with Image.open(path, formats=_formats()) as image:
            if path.suffix.lower() == ".png" and image.format != "PNG":
                raise UserError(f"{path} is not a PNG but {image.format}: rename it")
            if image.mode.startswith(("I", "F")) or _is_deep(path, image):
                raise UserError(f"{path} has more than 8 bits a channel: save it with 8")
            yield image
    except UserError:
        raise
    except Exception as error:  # on damaged bytes Pillow raises a dozen unrelated types
        raise UserError(f"{path} is not a readable image ({error}): replace or delete it") from None


@cache
def _formats() -> list[str]:
    """Those of `_FORMATS` that the installed Pillow reads."""
    Image.init()
    return [each for each in _FORMATS if each in Image.OPEN]


def _is_deep(path: Path, image: Image.Image) -> bool:
    """Whether a file has more than 8 bits a channel, of which Pillow would silently keep 8."""
    if image.format == "TIFF":
        return max(image.tag_v2.get(_BITS_PER_SAMPLE, (8,))) > 8  # type: ignore[attr-defined]
    if image.format not in ("PNG", "PPM"):
        return False
    with path.open("rb") as file:
        header = file.read(1024)
    if image.format == "PNG":
        return header[24] > 8  # the bit depth
    # The kind, the width, the height and the largest value, among comments.
    numbers = re.sub(rb"#[^\n]*", b" ", header).split(maxsplit=4)
    return numbers[0] in (b"P2", b"P3", b"P5", b"P6") and int(numbers[3]) > 255


def read_image(path: Path) -> Tensor:
    """One image as uint8 (C, H, W): greyscale has C = 1, everything else is read as RGB.

    Transparent images are laid on white. A file that is damaged, truncated or deeper than 8 bits is
    a `UserError`.
    """
    with open_image(path) as image:
        pixels = np.array(on_white(image, grey=image.mode in GREYSCALE))
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)


def on_white(image: Image.Image, *, grey: bool) -> Image.Image:
    """An image without transparency: laid on white where it has some, then grey or RGB."""
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("L" if grey else "RGB")


def read_images(paths: Sequence[Path]) -> Tensor:
    """Images of one size as uint8 (N, C, H, W); a `UserError` names the first that differs."""
    first = read_image(paths[0])
    images = torch.empty((len(paths), *first.shape), dtype=torch.uint8)
    for index, path in enumerate(paths):
        image = read_image(path)
        if image.shape != first.shape:
            raise UserError(
                f"{path} is {_describe(image)}, but {paths[0]} is {_describe(first)}: "
                f"make all images one size and all grey or all RGB"
            )
        images[index] = image
    return images


def _describe(image: Tensor) -> str:
    channels, height, width = image.shape
    return f"{width}x{height} {'grey' if channels == 1 else 'RGB'}"
