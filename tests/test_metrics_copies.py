"""Figures that copies have are noticed, and those of other samples are not."""

from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor
from torch.nn import functional

from underone.data import Dataset, SampleSet, load_dataset
from underone.metrics import (
    Features,
    Figure,
    Measurement,
    Yardstick,
    build_reference,
    measure,
)
from underone.metrics.copies import below_floor, like_copies
from underone.metrics.measurement import joined

SLICE = Path(__file__).parent / "data" / "fashion-mnist"
METRICS = ("fid", "memorisation")


class Pixels:
    """An extractor that is quick: 7 x 7 means of grey levels."""

    name, sha256, revision = "pixels", "0" * 64, None

    def __call__(self, images: Tensor) -> Features:
        return Features(functional.avg_pool2d(images.float() / 255, 4).flatten(1))


@pytest.fixture(scope="module")
def real() -> Dataset:
    return load_dataset("fashion-mnist", "test", SLICE)


@pytest.fixture(scope="module")
def by(real: Dataset) -> Yardstick:
    """A third of the images to train on, a third held out, a third for samples."""
    train = replace(real, split="train", images=real.images[0::3], labels=real.labels[0::3])
    others = replace(real, images=real.images[1::3], labels=real.labels[1::3])
    pixels = Pixels()
    reference = build_reference("third", train, others, pixels)
    return Yardstick(pixels, reference, train=pixels(train.images).values)


def of(images: Tensor, by: Yardstick, count: int = 300) -> Measurement:
    return measure(SampleSet(images[:count]), by, METRICS)


def test_training_images_themselves_are_noticed(real: Dataset, by: Yardstick) -> None:
    copies = of(real.images[0::3], by)
    assert below_floor(copies)
    assert like_copies(copies)
    halves = joined([of(real.images[start::6], by, 150) for start in (0, 3)])
    assert halves.blocks == 2
    assert like_copies(halves)


def test_unseen_images_are_not(real: Dataset, by: Yardstick) -> None:
    for images in (real.images[1::3], real.images[2::3], 255 - real.images[2::3]):
        found = of(images, by)
        assert not below_floor(found)
        assert not like_copies(found)


def made_up(by: Yardstick, real: Dataset, **figures: float) -> Measurement:
    """A measurement of unseen images with these figures in the place of its own."""
    found = of(real.images[2::3], by)
    named = {name.replace("_", "-"): value for name, value in figures.items()}
    changed = {
        name: found.figures[name].model_copy(update={"value": value})
        for name, value in named.items()
    }
    return found.model_copy(update={"figures": found.figures | changed})


def test_what_chance_may_do_is_not_noticed(real: Dataset, by: Yardstick) -> None:
    found = of(real.images[2::3], by)
    assert found.floor is not None
    floor, error = found.floor.fid, found.figures["fid"].error
    assert error is not None
    assert not below_floor(made_up(by, real, fid=floor - error))
    assert below_floor(made_up(by, real, fid=floor - 3 * error))
    copies = found.copies["data-copying"].value
    assert not like_copies(made_up(by, real, data_copying=0.4 * copies))
    assert like_copies(made_up(by, real, data_copying=0.7 * copies))
    assert not like_copies(made_up(by, real, memorised_share=0.2))
    assert like_copies(made_up(by, real, memorised_share=0.8))


def test_nothing_is_said_where_the_two_do_not_compare(real: Dataset, by: Yardstick) -> None:
    low = made_up(by, real, fid=0.0)
    assert below_floor(low)
    assert low.floor is not None
    fewer = low.floor.model_copy(update={"count": 10})  # whose FID is higher for that alone
    tested = low.protocol.model_copy(update={"reference_split": "test"})
    unsure = {"fid": Figure(value=low.floor.fid / 2)}
    for change in ({"floor": fewer}, {"floor": None}, {"protocol": tested}, {"figures": unsure}):
        assert not below_floor(low.model_copy(update=change))
    assert not like_copies(low.model_copy(update={"copies": {}}))
