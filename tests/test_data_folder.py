import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features
from torch import Tensor

from underone.data import load_dataset, read_samples, to_picture
from underone.data.folder import read_folder
from underone.data.image_files import EXTENSIONS
from underone.errors import UserError


def image(seed: int, channels: int = 3, height: int = 6, width: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (channels, height, width)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def write(path: Path, pixels: Tensor) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    to_picture(pixels).save(path)
    return path


def test_classes_are_the_sorted_sub_folders(tmp_path: Path) -> None:
    expected = [image(1), image(2), image(3), image(4)]
    write(tmp_path / "owl" / "1.png", expected[2])
    write(tmp_path / "owl" / "2.BMP", expected[3])
    write(tmp_path / "ant" / "b.PNG", expected[1])
    write(tmp_path / "ant" / "a" / "deep.png", expected[0])
    dataset = read_folder(tmp_path, "train")
    assert dataset.class_names == ("ant", "owl")
    assert dataset.labels.tolist() == [0, 0, 1, 1]
    assert torch.equal(dataset.images, torch.stack(expected))
    assert dataset.name == tmp_path.name


def test_greyscale_stays_one_channel(tmp_path: Path) -> None:
    grey = image(1, channels=1)
    write(tmp_path / "ant" / "1.png", grey)
    assert torch.equal(read_folder(tmp_path, "train").images, grey.unsqueeze(0))


@pytest.mark.parametrize("mode", ["P", "RGBA", "CMYK"])
def test_every_colour_mode_is_read_as_rgb(tmp_path: Path, mode: str) -> None:
    (tmp_path / "ant").mkdir()
    Image.new("RGB", (5, 6), (255, 0, 0)).convert(mode).save(tmp_path / "ant" / "1.tiff")
    images = read_folder(tmp_path, "train").images
    assert images.shape == (1, 3, 6, 5)
    assert (images[0, 0] > 200).all()
    assert (images[0, 1:] < 80).all()


def test_what_is_transparent_is_white_whatever_colour_lies_below(tmp_path: Path) -> None:
    rows = [[(9, 9, 9, 0)], [(0, 0, 0, 51)], [(0, 0, 0, 255)]]  # of opacity 0, a fifth, whole
    rgba = Image.fromarray(np.array(rows, dtype=np.uint8))
    palette = Image.new("P", (1, 3))
    palette.putpalette([9, 9, 9, 0, 0, 0])
    palette.putdata([0, 1, 1])
    palette.info["transparency"] = 0
    for name, picture, channels, values in (
        ("rgba", rgba, 3, [255, 204, 0]),
        ("grey", rgba.convert("LA"), 1, [255, 204, 0]),
        ("palette", palette, 3, [255, 0, 0]),
    ):
        folder = tmp_path / name / "ant"
        folder.mkdir(parents=True)
        picture.save(folder / "1.png")
        (found,) = read_folder(tmp_path / name, "train").images
        assert found.shape == (channels, 3, 1)
        assert found[0, :, 0].tolist() == values
        samples = read_samples(folder)  # read alike, to be measured against them
        assert torch.equal(samples.images[0], found)


def test_other_and_hidden_files_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "ant" / "1.png", image(1))
    write(tmp_path / ".cache" / "1.png", image(1))
    write(tmp_path / "ant" / ".thumbnails" / "1.png", image(1))
    (tmp_path / "ant" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "ant" / "._1.png").write_bytes(b"left by a Mac")
    (tmp_path / "README.txt").write_text("hello")
    dataset = read_folder(tmp_path, "train")
    assert dataset.class_names == ("ant",)
    assert len(dataset) == 1


def test_train_and_test_folders_are_the_splits(tmp_path: Path) -> None:
    write(tmp_path / "train" / "ant" / "1.png", image(1))
    write(tmp_path / "test" / "ant" / "1.png", image(2))
    assert torch.equal(read_folder(tmp_path, "train").images[0], image(1))
    assert torch.equal(read_folder(tmp_path, "test").images[0], image(2))


def test_splits_with_different_classes_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "train" / "ant" / "1.png", image(1))
    write(tmp_path / "train" / "owl" / "1.png", image(1))
    write(tmp_path / "test" / "owl" / "1.png", image(2))
    with pytest.raises(UserError, match="only one of them has ant"):
        read_folder(tmp_path, "test")


def test_a_lone_split_is_not_taken_for_a_class(tmp_path: Path) -> None:
    write(tmp_path / "train" / "ant" / "1.png", image(1))
    write(tmp_path / "val" / "ant" / "1.png", image(2))
    with pytest.raises(UserError, match="has train/CLASS folders but no test"):
        read_folder(tmp_path, "train")


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    write(tmp_path / "boat" / "1.png", image(1))
    write(tmp_path / "train" / "1.png", image(2))
    assert read_folder(tmp_path, "train").class_names == ("boat", "train")


def test_without_splits_there_is_no_test(tmp_path: Path) -> None:
    write(tmp_path / "ant" / "1.png", image(1))
    with pytest.raises(UserError, match="no test split"):
        read_folder(tmp_path, "test")


@pytest.mark.parametrize("odd", [image(9, height=7), image(9, width=6), image(9, channels=1)])
def test_the_first_image_that_differs_is_named(tmp_path: Path, odd: Tensor) -> None:
    write(tmp_path / "ant" / "1.png", image(1))
    write(tmp_path / "owl" / "1.png", odd)
    write(tmp_path / "owl" / "2.png", image(2, height=9))
    with pytest.raises(UserError, match=r"owl/1\.png is .*, but .*ant/1\.png is 5x6 RGB"):
        read_folder(tmp_path, "train")


def test_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no sub-folders"):
        read_folder(tmp_path, "train")
    (tmp_path / "ant").mkdir()
    with pytest.raises(UserError, match="ant holds no images"):
        read_folder(tmp_path, "train")


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    whole = write(tmp_path / "ant" / "1.png", image(1, height=64, width=64)).read_bytes()
    for content in (whole[: len(whole) // 2], whole[:30], b"", b"not an image"):
        (tmp_path / "ant" / "2.png").write_bytes(content)
        with pytest.raises(UserError, match=r"2\.png is not a readable image"):
            read_folder(tmp_path, "train")


def test_sixteen_bit_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "ant").mkdir()
    deep = np.full((4, 4), 40_000, dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "ant" / "1.png")
    with pytest.raises(UserError, match="more than 8 bits"):
        read_folder(tmp_path, "train")
    (tmp_path / "ant" / "1.png").write_bytes(sixteen_bit_colour(4, 4))
    with pytest.raises(UserError, match="more than 8 bits"):
        read_folder(tmp_path, "train")
    (tmp_path / "ant" / "1.png").unlink()
    colours = (4 * 4 * 3 * 2) * b"\x7f"
    (tmp_path / "ant" / "1.ppm").write_bytes(b"P6 # wide\n4 4\n65535\n" + colours)
    with pytest.raises(UserError, match=r"1\.ppm has more than 8 bits"):
        read_folder(tmp_path, "train")
    (tmp_path / "ant" / "1.ppm").write_bytes(b"P6 # wide\n4 4\n255\n" + colours[: 4 * 4 * 3])
    assert len(read_folder(tmp_path, "train")) == 1


def test_a_program_is_no_image(tmp_path: Path) -> None:
    """PostScript, which Pillow would have another program run."""
    (tmp_path / "ant").mkdir()
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n"
    (tmp_path / "ant" / "1.jpg").write_bytes(postscript)
    with pytest.raises(UserError, match=r"1\.jpg is not a readable image \(cannot identify"):
        read_folder(tmp_path, "train")


def sixteen_bit_colour(width: int, height: int) -> bytes:
    """A PNG that Pillow does not write, and reads as if it had 8 bits."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    rows = (b"\0" + bytes(6 * width)) * height
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("ending", sorted(EXTENSIONS))
def test_every_format_is_read(tmp_path: Path, ending: str) -> None:
    if ending == ".avif" and not features.check("avif"):
        pytest.skip("a Pillow without AVIF")
    (tmp_path / "ant").mkdir()
    pixels = np.full((8, 8) if ending == ".pgm" else (8, 8, 3), 200, dtype=np.uint8)
    kind = {".jfif": "JPEG", ".tga": "TGA"}.get(ending)
    Image.fromarray(pixels).save(tmp_path / "ant" / f"1{ending}", format=kind)
    images = read_folder(tmp_path, "train").images
    assert (images.float() - 200).abs().max() <= 3


def test_a_path_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "birds" / "owl" / "1.png", image(1))
    monkeypatch.chdir(tmp_path)
    for name in ("birds", "./birds", str(tmp_path / "birds")):
        assert load_dataset(name).name == "birds"
