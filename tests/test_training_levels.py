"""The noise levels that models are trained at."""

import math

import pytest
import torch

from helpers import float64
from underone.diffusion import LinearBeta, node_at
from underone.errors import UserError
from underone.training.levels import EveryStep, LogNormal

UNIFORM = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000


def test_every_step_is_as_likely_as_every_other() -> None:
    steps = EveryStep()(LinearBeta(steps=10), UNIFORM) * 10
    assert torch.equal(steps.round().long().bincount(), torch.tensor([0] + 10 * [1000]))
    assert EveryStep()(LinearBeta(), float64([0.0, 1 - 1e-12])).tolist() == [0.001, 1.0]


def test_log_normal_levels_have_their_mean_and_deviation() -> None:
    times = LogNormal(mean=-0.86, deviation=1.2)(LinearBeta(), UNIFORM)
    log_ratio = -node_at(LinearBeta(), times).log_snr
    assert log_ratio.median().item() == pytest.approx(-0.86, abs=1e-3)
    low, high = log_ratio.quantile(0.158655), log_ratio.quantile(0.841345)
    assert (high - low).item() == pytest.approx(2 * 1.2, abs=1e-2)


def test_log_normal_levels_stay_within_the_schedule() -> None:
    wide = LogNormal(mean=0.0, deviation=50.0)
    times = wide(LinearBeta(), torch.cat([float64([0.0]), UNIFORM]))
    assert times.min() == 1 / 1000
    assert times.max() == 1
    assert times.isfinite().all()


@pytest.mark.parametrize("deviation", [0.0, -1.0, math.nan])
def test_a_deviation_must_be_above_0(deviation: float) -> None:
    with pytest.raises(UserError, match="must be > 0"):
        LogNormal(deviation=deviation)
