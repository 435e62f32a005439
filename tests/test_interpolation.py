"""The arc between two noises."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers import float64, normal
from underone.diffusion import slerp

FRACTIONS = torch.linspace(0, 1, 9, dtype=torch.float64)


def test_the_ends_are_the_noises_themselves() -> None:
    one, other = normal(4, 3, 5, seed=1), normal(4, 3, 5, seed=2)
    between = slerp(one, other, FRACTIONS)
    assert between.shape == (4, 9, 3, 5)
    assert torch.equal(between[:, 0], one)
    assert torch.equal(between[:, -1], other)
    single = slerp(one.float(), other.float(), FRACTIONS)
    assert single.dtype == torch.float32
    assert torch.equal(single[:, -1], other.float())


def test_equal_angles_on_a_circle() -> None:
    one, other = float64([[3.0, 0.0]]), float64([[0.0, 3.0]])
    angles = FRACTIONS * math.pi / 2
    expected = 3 * torch.stack([angles.cos(), angles.sin()], dim=1)
    assert torch.allclose(slerp(one, other, FRACTIONS)[0], expected, atol=1e-12)


@given(seed=st.integers(0, 1000), fraction=st.floats(0, 1))
def test_rows_of_one_length_keep_it(seed: int, fraction: float) -> None:
    one, other = (torch.nn.functional.normalize(normal(2, 6, seed=s)) for s in (seed, seed + 5000))
    between = slerp(one, other, float64([fraction]))
    assert torch.allclose(between.norm(dim=2), torch.ones(2, 1, dtype=torch.float64), atol=1e-9)


def test_noise_stays_noise_where_the_line_would_shrink_it() -> None:
    one, other = normal(50, 784, seed=1), normal(50, 784, seed=2)
    variances = slerp(one, other, FRACTIONS).var(dim=(0, 2))
    assert torch.allclose(variances, torch.ones_like(variances), atol=0.03)
    assert ((one + other) / 2).var().item() == pytest.approx(0.5, abs=0.03)


def test_rows_without_an_arc_are_interpolated_on_the_line() -> None:
    x = normal(1, 6)
    one = torch.cat([x, x, x, 0 * x])
    other = torch.cat([2 * x, -x, x, x])
    expected = torch.lerp(one[:, None], other[:, None], FRACTIONS[:, None])
    assert torch.allclose(slerp(one, other, FRACTIONS), expected, atol=1e-7)


def test_no_row_sees_another() -> None:
    one, other = normal(3, 6, seed=1), normal(3, 6, seed=2)
    whole = slerp(one, other, FRACTIONS)
    other[0] = one[0]  # now row 0 has no arc
    assert torch.equal(slerp(one, other, FRACTIONS)[1:], whole[1:])
