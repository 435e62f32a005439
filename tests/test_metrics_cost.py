"""The time announced before a measurement: how often its long parts run, times what each takes."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from underone.data import Dataset, SampleSet, load_dataset
from underone.metrics import (
    Features,
    Gaussian,
    Yardstick,
    build_reference,
    cost,
    frechet_distance,
    measure,
)
from underone.metrics.cost import comparing_seconds
from underone.metrics.frechet_infinity import FEWEST_REPLICATES, POINTS

SLICE = Path(__file__).parent / "data" / "fashion-mnist"
SIZE = 16


class Pixels:
    """An extractor that is quick: 4 x 4 means of grey levels."""

    name, sha256, revision = "pixels", "0" * 64, None

    def __call__(self, images: Tensor) -> Features:
        return Features(torch.nn.functional.avg_pool2d(images.float() / 255, 7).flatten(1))


@pytest.fixture(scope="module")
def real() -> Dataset:
    return load_dataset("fashion-mnist", "test", SLICE)


def test_fid_at_infinity_costs_what_its_distances_and_moments_do(
    real: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "_seconds", lambda work: (work(), 64.0)[1])
    alone = Yardstick(Pixels(), build_reference("alone", real, None, Pixels()))
    both = Yardstick(Pixels(), build_reference("both", real, real, Pixels()))
    # The moments of 4 x 16 rows take 64 s here, so those of a row one second.
    samples, held_out = (5 * (15 * 64 + count) for count in (100, len(real)))
    assert comparing_seconds(alone, 100, ("fid-infinity",)) == samples
    assert comparing_seconds(both, 100, ("fid-infinity",)) == samples + held_out
    assert comparing_seconds(both, 4 * SIZE - 1, ("fid-infinity",)) == 0  # which are too few
    assert comparing_seconds(both, 100, ("fid",)) == 0
    assert comparing_seconds(both, 100, ("kid",)) > 0


def test_as_many_distances_are_taken_as_are_counted(
    real: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[float] = []

    def counted(x: Gaussian, y: Gaussian) -> float:
        taken.append(frechet_distance(x, y))
        return taken[-1]

    monkeypatch.setattr("underone.metrics.frechet_infinity.frechet_distance", counted)
    by = Yardstick(Pixels(), build_reference("both", real, real, Pixels()))
    measure(SampleSet(real.images[:100]), by, ("fid-infinity",))
    assert len(taken) == 2 * FEWEST_REPLICATES * POINTS == 150
