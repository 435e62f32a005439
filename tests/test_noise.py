import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from underone.diffusion import NoiseStreams

LARGEST = 2**64 - 1
Key = tuple[int, int]

words = st.one_of(st.integers(0, 3), st.integers(0, LARGEST))
keys = st.tuples(words, words)


def several(keys: list[Key], shape: tuple[int, ...], count: int) -> Tensor:
    """(len(keys), count, *shape): successive draws side by side."""
    streams = NoiseStreams(keys, shape)
    return torch.stack([streams() for _ in range(count)], dim=1)


@settings(deadline=None)
@given(st.lists(keys, min_size=1, max_size=8), st.randoms())
def test_a_key_draws_the_same_noise_in_any_company(keys: list[Key], random: object) -> None:
    together = several(keys, (2, 3), 3)
    for row, key in enumerate(keys):
        assert torch.equal(several([key], (2, 3), 3)[0], together[row])
    backwards = several(keys[::-1], (2, 3), 3)
    assert torch.equal(backwards.flip(0), together)


@settings(deadline=None)
@given(keys, keys)
def test_distinct_keys_draw_distinct_noise(first: Key, second: Key) -> None:
    noise = NoiseStreams([first, second], (4,))()
    assert torch.equal(noise[0], noise[1]) == (first == second)


def test_neighbouring_and_mirrored_keys_share_no_number() -> None:
    values = (0, 1, 2, 2**32, 2**63, LARGEST)
    noise = several(list(itertools.product(values, values)), (16,), 4)
    _, counts = noise.flatten().unique(return_counts=True)
    # Among 2304 float32 numbers a chance coincidence is conceivable, a shared stream is 64 of them.
    assert (counts > 1).sum() <= 4


@pytest.mark.parametrize("key", [(-1, 0), (0, -1), (LARGEST + 1, 0)])
def test_a_key_outside_64_bits_is_refused(key: Key) -> None:
    with pytest.raises(OverflowError):
        NoiseStreams([key], (1,))


def test_the_noise_is_standard_normal() -> None:
    noise = several([(seed, index) for seed in range(8) for index in range(32)], (64,), 16)
    assert noise.dtype == torch.float32
    numbers = noise.double().flatten()
    count = numbers.numel()
    assert abs(numbers.mean()) < 4 / math.sqrt(count)
    assert abs(numbers.var() - 1) < 4 * math.sqrt(2 / count)
    assert stats.kstest(numbers.numpy(), "norm").pvalue > 1e-3


def correlation(first: Tensor, second: Tensor) -> float:
    """The sample correlation in units of its standard error."""
    pair = torch.stack([first.flatten(), second.flatten()]).double()
    return float(torch.corrcoef(pair)[0, 1]) * math.sqrt(first.numel())


def test_streams_of_neighbouring_keys_are_uncorrelated() -> None:
    square = several([(seed, index) for seed in range(16) for index in range(16)], (256,), 1)
    square = square.reshape(16, 16, 256)
    assert abs(correlation(square[1:], square[:-1])) < 4
    assert abs(correlation(square[:, 1:], square[:, :-1])) < 4
    mirrored = square.transpose(0, 1)
    above = torch.ones(16, 16, dtype=torch.bool).triu(diagonal=1)
    assert abs(correlation(square[above], mirrored[above])) < 4


def test_successive_draws_are_uncorrelated() -> None:
    noise = several([(3, index) for index in range(64)], (64,), 8)
    for lag in (1, 2, 4):
        assert abs(correlation(noise[:, lag:], noise[:, :-lag])) < 4


def test_the_same_seed_means_the_same_samples_tomorrow() -> None:
    """Recorded once: a change here would silently change everybody's samples."""
    noise = several([(0, 0), (12, 345)], (2,), 2)
    expected = [
        [[0.059911035, 0.015559634], [-1.16443849, -0.13264713]],
        [[0.29847339, -0.4926531], [-2.23437214, -0.54839396]],
    ]
    torch.testing.assert_close(noise, torch.tensor(expected), rtol=0, atol=1e-6)
