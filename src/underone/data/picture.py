"""Pictures of images: grids, PNG files, PNG bytes."""

import base64
import io
from math import ceil
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from underone.data.images import check_images
from underone.files import write_atomically

BACKGROUND = 240
# Pixels around each image of a grid, by default.
GAP = 2


def tile(images: Tensor, columns: int, scale: int = 1, gap: int = GAP) -> Image.Image:
    """A grid of uint8 images (N, C, H, W), row by row, on a light grey background.

    Every pixel becomes `scale` x `scale`; `gap` pixels surround each image. No images, or
    sizes that are too small, raise `ValueError`.
    """
    check_images(images)
    if len(images) < 1 or columns < 1 or scale < 1 or gap < 0:
        raise ValueError("a grid needs an image, columns >= 1, scale >= 1 and gap >= 0")
    columns = min(columns, len(images))
    rows = ceil(len(images) / columns)
    enlarged = images.repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3)
    channels, height, width = enlarged.shape[1:]
    shape = (channels, gap + rows * (height + gap), gap + columns * (width + gap))
    canvas = torch.full(shape, BACKGROUND, dtype=torch.uint8)
    for index, image in enumerate(enlarged):
        top = gap + index // columns * (height + gap)
        left = gap + index % columns * (width + gap)
        canvas[:, top : top + height, left : left + width] = image
    return to_picture(canvas)


def to_picture(image: Tensor) -> Image.Image:
    """One uint8 image (C, H, W) as a picture: greyscale if C = 1, RGB if C = 3."""
    check_images(image.unsqueeze(0))
    pixels = image.permute(1, 2, 0).cpu().contiguous().numpy()
    return Image.fromarray(pixels.squeeze(2) if len(image) == 1 else pixels)


def save_picture(image: Image.Image, path: Path) -> None:
    """Write a PNG file atomically."""
    write_atomically(path, lambda temporary: image.save(temporary, format="PNG"))


def png_bytes(image: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def data_uri(png: bytes) -> str:
    """A PNG file's bytes as a data URI, for the source of a picture in a page."""
    return "data:image/png;base64," + base64.b64encode(png).decode()
