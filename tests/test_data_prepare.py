"""A folder of images of any size made one to train on: its pixels, classes and sides."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from emoji import SLICE, write_folder
from underone.data import SPLITS, Dataset, load_dataset, prepare_folder
from underone.errors import UserError


def random_image(path: Path, size: tuple[int, int], seed: int, mode: str = "RGB") -> Image.Image:
    bands = {"L": 1, "RGB": 3, "RGBA": 4}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], bands), np.uint8)
    image = Image.fromarray(pixels.squeeze(), mode)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return image


def both(folder: Path) -> tuple[Dataset, Dataset]:
    return load_dataset(str(folder), "train"), load_dataset(str(folder), "test")


def test_real_pictures_become_two_splits_of_one_size(tmp_path: Path) -> None:
    source, out = write_folder(tmp_path / "pictures"), tmp_path / "mine"
    prepare_folder(source, out, 32)
    train, test = both(out)
    assert train.class_names == ("Animals & Nature", "Flags", "Food & Drink")
    assert train.labels.bincount().tolist() == [19, 19, 19]
    assert test.labels.bincount().tolist() == [5, 5, 5]
    assert train.images.shape[1:] == (3, 32, 32)
    flat = train.images.flatten(1)
    assert not any((image == flat).all(1).any() for image in test.images.flatten(1))
    # As the named data set makes them, but for rounding.
    slices = (load_dataset("noto-emoji", split, SLICE).images for split in SPLITS)
    named = torch.cat(list(slices))[:, None].int()
    nearest = (named - train.images[None, :3].int()).abs().amax((2, 3, 4))
    assert nearest.min(0).values.max() <= 2


def test_the_split_is_of_the_pixels_not_of_names(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "pictures")
    prepare_folder(source, tmp_path / "one", 16, 0.25)
    for number, path in enumerate(sorted(source.rglob("*.png"))):
        path.rename(path.with_name(f"{(number * 7919) % 1009}.PNG"))
    prepare_folder(source, tmp_path / "two", 16, 0.25)
    one, two = (
        sorted(d.images.flatten(1).tolist())
        for d in (both(tmp_path / n)[1] for n in ("one", "two"))
    )
    assert one == two
    assert len(one) == 18


def test_a_group_folder_and_equal_images_stay_together(tmp_path: Path) -> None:
    for group in range(5):
        for index in range(4):
            random_image(tmp_path / f"in/a/{group}/{index}.png", (8, 8), 10 * group + index)
    for index in range(10):
        random_image(tmp_path / f"in/b/{index}.png", (8, 8), 100 + index // 2)
    prepare_folder(tmp_path / "in", tmp_path / "out", 8, 0.4)
    train, test = both(tmp_path / "out")
    assert test.labels.bincount().tolist() == [8, 4]
    for group in range(5):
        members = [random_image(tmp_path / "x.png", (8, 8), 10 * group + i) for i in range(4)]
        found = {_side(image, train, test) for image in members}
        assert len(found) == 1
    assert len(torch.cat([test.images[8:], train.images]).flatten(1).unique(dim=0)) == 12 + 5


def _side(image: Image.Image, *splits: Dataset) -> str:
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    (found,) = [d.split for d in splits if (d.images == pixels).all((1, 2, 3)).any()]
    return found


def test_images_are_cut_to_their_middle_and_averaged(tmp_path: Path) -> None:
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, :2], pixels[:, 6:] = 255, 255  # cut away
    pixels[:2, 2:4] = [[[10, 0, 0], [20, 0, 0]], [[30, 0, 0], [40, 0, 0]]]
    for name in ("1", "2"):
        path = tmp_path / "in" / "train" / "c" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    random_image(tmp_path / "in/test/c/a.jpg", (30, 20), 0)
    prepare_folder(tmp_path / "in", tmp_path / "out", 2)
    train, test = both(tmp_path / "out")
    assert train.images[0].tolist() == [[[25, 0], [0, 0]], [[0, 0], [0, 0]], [[0, 0], [0, 0]]]
    assert (len(train), len(test)) == (2, 1)  # the division that was there stays


def test_transparent_is_white_grey_stays_grey_and_a_mixture_is_colour(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (4, 4), (9, 9, 9, 0))
    for index in range(3):
        random_image(tmp_path / f"grey/c/{index}.png", (4, 4), index, "L")
        random_image(tmp_path / f"mixed/c/{index}.png", (4, 4), index, "L")
    clear.save(tmp_path / "mixed" / "c" / "clear.png")
    prepare_folder(tmp_path / "grey", tmp_path / "grey-out", 4)
    prepare_folder(tmp_path / "mixed", tmp_path / "mixed-out", 4)
    assert both(tmp_path / "grey-out")[0].images.shape[1] == 1
    images = torch.cat([dataset.images for dataset in both(tmp_path / "mixed-out")])
    assert images.shape == (4, 3, 4, 4)
    assert (images == 255).all((1, 2, 3)).sum() == 1


def test_an_upright_photograph_is_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 4))
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the top left is shown at the top right
    for index in range(2):
        path = tmp_path / f"in/{('train', 'test')[index]}/c/a.png"
        path.parent.mkdir(parents=True)
        image.save(path, exif=exif)
    prepare_folder(tmp_path / "in", tmp_path / "out", 4)
    assert both(tmp_path / "out")[0].images[0, 0, 0].tolist() == [0, 0, 0, 255]


def test_mistakes_are_one_line_and_write_nothing(tmp_path: Path) -> None:
    random_image(tmp_path / "one/lonely/a.png", (4, 4), 0)
    out = tmp_path / "out"
    with pytest.raises(UserError, match="class lonely has too few images to hold out 20%"):
        prepare_folder(tmp_path / "one", out, 4)
    (tmp_path / "bad" / "c").mkdir(parents=True)
    (tmp_path / "bad" / "c" / "a.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"a\.png is not a readable image"):
        prepare_folder(tmp_path / "bad", out, 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "one"]
    out.mkdir()
    (out / "mine").write_text("mine")
    with pytest.raises(UserError, match="not an empty folder: choose another name"):
        prepare_folder(tmp_path / "one", out, 4)
    assert (out / "mine").read_text() == "mine"
