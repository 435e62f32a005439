import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from underone.data import png_bytes, save_picture, tile, to_picture
from underone.data.picture import BACKGROUND


@pytest.mark.parametrize("channels", [1, 3])
@settings(deadline=None)
@given(
    count=st.integers(1, 7),
    columns=st.integers(1, 9),
    scale=st.integers(1, 3),
    gap=st.integers(0, 3),
)
def test_every_image_stands_in_its_place(
    channels: int, count: int, columns: int, scale: int, gap: int
) -> None:
    images = torch.randint(0, 256, (count, channels, 3, 4), dtype=torch.uint8)
    picture = tile(images, columns, scale, gap)
    assert picture.mode == ("L" if channels == 1 else "RGB")
    pixels = np.asarray(picture).reshape(picture.height, picture.width, channels)
    seen = np.zeros(pixels.shape[:2], dtype=bool)
    for index in range(count):
        top = gap + index // min(columns, count) * (3 * scale + gap)
        left = gap + index % min(columns, count) * (4 * scale + gap)
        area = np.s_[top : top + 3 * scale, left : left + 4 * scale]
        enlarged = np.kron(images[index].numpy(), np.ones((1, scale, scale), dtype=np.uint8))
        assert (pixels[area] == enlarged.transpose(1, 2, 0)).all()
        seen[area] = True
    assert (pixels[~seen] == BACKGROUND).all()
    shown = min(columns, count)
    assert picture.width == gap + shown * (4 * scale + gap)
    assert picture.height == gap + -(-count // shown) * (3 * scale + gap)


def test_what_makes_no_grid_is_refused() -> None:
    images = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match="grid"):
        tile(images[:0], columns=1)
    with pytest.raises(ValueError, match="grid"):
        tile(images, columns=0)
    with pytest.raises(ValueError, match="grid"):
        tile(images, columns=1, scale=0)
    with pytest.raises(ValueError, match="grid"):
        tile(images, columns=1, gap=-1)
    with pytest.raises(ValueError, match="uint8"):
        tile(images.float(), columns=1)


def test_png_bytes_and_the_saved_file_hold_the_same_pixels(tmp_path: Path) -> None:
    picture = to_picture(torch.randint(0, 256, (3, 9, 7), dtype=torch.uint8))
    path = tmp_path / "new" / "grid.png"
    save_picture(picture, path)
    for source in (path, io.BytesIO(png_bytes(picture))):
        with Image.open(source) as loaded:
            assert loaded.format == "PNG"
            assert loaded.tobytes() == picture.tobytes()
    assert [file.name for file in path.parent.iterdir()] == ["grid.png"]
