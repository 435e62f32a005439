import math
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from helpers import each_grid, each_schedule, float64
from underone.diffusion import (
    GRIDS,
    Cosine,
    Explicit,
    Grid,
    Karras,
    LinearBeta,
    Linspace,
    LogSNR,
    Quadratic,
    Schedule,
    Trailing,
    Uniform,
    node_at,
    nodes,
)
from underone.errors import UserError
from underone.named import grid_named


def whole_steps(grid: Grid, steps: int, total: int = 1000) -> list[float]:
    """The grid's steps k = t T, from clean to noisy."""
    return (grid(LinearBeta(steps=total), steps) * total).flip(0).tolist()


def check(grid: Grid, schedule: Schedule, steps: int) -> None:
    times = grid(schedule, steps)
    assert times.dtype == torch.float64
    assert times.shape == (steps,)
    assert (times.diff() < 0).all(), f"not strictly decreasing at {steps} steps"
    assert times[-1] * schedule.steps > 1 - 1e-9, f"beyond the first step at {steps} steps"
    assert times[0] <= 1, f"beyond the last step at {steps} steps"
    log_snr = node_at(schedule, times).log_snr
    assert log_snr.isfinite().all()
    assert (log_snr.diff() > 0).all()


@each_grid
@each_schedule
def test_every_number_of_steps_descends_strictly(grid: Grid, schedule: Schedule) -> None:
    for steps in range(1, 1001):
        check(grid, schedule, steps)


@pytest.mark.parametrize(
    ("times", "told"),
    [
        (lambda: torch.arange(1, 5) / 4.0, "each below the one before it; it gave 0.25, 0.5"),
        (lambda: torch.tensor([1000.0, 600, 250, 40]), r"times k / T in \(0, 1\]"),
        (lambda: torch.tensor([1, 0.5, 0.5, 0.1]), "each below the one before it"),
        (lambda: torch.tensor([1, 0.5, 0.1, 0.0]), r"in \(0, 1\]"),
        (lambda: torch.tensor([1, 0.5, 0.1]), "a tensor of 4 times"),
        (lambda: torch.arange(4, 0, -1), "a tensor of 4 times"),
        (lambda: [1, 0.7, 0.3, 0.1], "a tensor of 4 times"),
        (lambda: torch.tensor([1, 0.5, 0.1, math.nan]), "no finite steps"),
    ],
)
def test_a_grid_of_ones_own_is_held_to_what_grids_are(
    times: Callable[[], Tensor], told: str
) -> None:
    def mine(schedule: Schedule, steps: int) -> Tensor:
        return times()

    with pytest.raises(UserError, match=told):
        nodes(mine, LinearBeta(), 4)


@settings(deadline=None)
@given(st.sampled_from(list(GRIDS.values())), st.integers(1, 5000), st.data())
def test_schedules_of_any_length_have_grids(grid: Grid, total: int, data: st.DataObject) -> None:
    check(grid, Cosine(steps=total), data.draw(st.integers(1, total)))


EXPECTED: list[tuple[Grid, int, list[float]]] = [
    (Uniform(), 1, [1]),
    (Uniform(), 7, [1, 143, 286, 429, 572, 715, 858]),
    (Uniform(), 10, [1, 101, 201, 301, 401, 501, 601, 701, 801, 901]),
    (Uniform(), 50, list(range(1, 1001, 20))),
    (Trailing(), 1, [1000]),
    (Trailing(), 7, [143, 286, 429, 571, 714, 857, 1000]),
    (Trailing(), 10, [100, 200, 300, 400, 500, 600, 700, 800, 900, 1000]),
    (Trailing(), 50, list(range(20, 1001, 20))),
    (Linspace(), 1, [1000]),
    (Linspace(), 2, [1, 1000]),
    (Linspace(), 7, [1, 167, 334, 501, 667, 833, 1000]),  # halves to even, as numpy
    (Linspace(), 10, [1, 112, 223, 334, 445, 556, 667, 778, 889, 1000]),
    (LogSNR(), 1, [1000]),
    (LogSNR(), 2, [1, 1000]),
    (LogSNR(last=40), 2, [40, 1000]),
    (LogSNR(first=800), 1, [800]),
    (LogSNR(last=40, first=800), 2, [40, 800]),
    (Karras(), 1, [1000]),
    (Karras(), 2, [1, 1000]),
    (Karras(last=0.5), 2, [0.5, 1000]),
    (Karras(last=40, first=800.5), 2, [40, 800.5]),
    (Explicit((1000, 612.5, 3)), 3, [3, 612.5, 1000]),
    (Quadratic(), 1, [1000]),
    (Quadratic(), 2, [1, 1000]),
    (Quadratic(), 7, [1, 28.75, 112, 250.75, 445, 694.75, 1000]),
    (Quadratic(), 10, [float(1 + 999 * Fraction(i, 9) ** 2) for i in range(10)]),
    (Quadratic(), 50, [float(1 + 999 * Fraction(i, 49) ** 2) for i in range(50)]),
    (Quadratic(), 1000, [float(1 + 999 * Fraction(i, 999) ** 2) for i in range(1000)]),
]


@pytest.mark.parametrize(("grid", "steps", "expected"), EXPECTED)
def test_the_steps_are_those_of_the_formula(grid: Grid, steps: int, expected: list[float]) -> None:
    assert whole_steps(grid, steps) == pytest.approx(expected, rel=1e-12)


@each_schedule
@pytest.mark.parametrize(("last", "first"), [(1.0, None), (30.0, None), (30.0, 700.0)])
def test_log_snr_and_karras_are_even_in_their_variables(
    schedule: Schedule, last: float, first: float | None
) -> None:
    even = node_at(schedule, LogSNR(last, first)(schedule, 40)).log_snr.diff()
    torch.testing.assert_close(even, even.mean().expand(39), rtol=1e-9, atol=0)
    for rho in (1.0, 3.0, 7.0):
        roots = node_at(schedule, Karras(rho, last, first)(schedule, 40)).noise_ratio ** (1 / rho)
        torch.testing.assert_close(
            roots.diff(), roots.diff().mean().expand(39), rtol=1e-6, atol=1e-9
        )


def test_karras_has_the_levels_of_edms_formula() -> None:
    low, high = (node_at(LinearBeta(), float64(k / 1000)).noise_ratio for k in (1, 1000))
    expected = [
        ((high ** (1 / 7) + i / 17 * (low ** (1 / 7) - high ** (1 / 7))) ** 7).item()
        for i in range(18)
    ]
    found = node_at(LinearBeta(), Karras()(LinearBeta(), 18)).noise_ratio.tolist()
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Karras(rho=0), r"rho must lie in \[0.1, 1000\], got 0"),
        (lambda: Karras(last=1000)(LinearBeta(), 5), r"last step must lie in \(0, 1000\)"),
        (lambda: LogSNR(last=0)(LinearBeta(), 5), r"last step must lie in \(0, 1000\), got 0"),
        (lambda: LogSNR(20, first=10)(LinearBeta(), 5), r"last step must lie in \(0, 10\)"),
        (lambda: Karras(first=1001)(LinearBeta(), 5), r"first step must lie in \(0, 1000\]"),
        (lambda: Explicit(()), "got none"),
        (lambda: Explicit((5, 10)), "each below the one before it, got 5:10"),
        (lambda: Explicit((10, 0)), "steps above 0"),
        (lambda: Explicit((10, 5))(LinearBeta(), 3), "lists 2 steps, but 3 were asked for"),
        (lambda: Explicit((1001, 5))(LinearBeta(), 2), "begins at 1001, above 1000"),
    ],
)
def test_impossible_grids_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize(
    ("text", "grid"),
    [
        ("trailing", Trailing()),
        ("karras,rho=5,last=20", Karras(5, 20)),
        ("explicit,steps=1000:600:250.5:40", Explicit((1000, 600, 250.5, 40))),
    ],
)
def test_grids_have_names_with_options(text: str, grid: Grid) -> None:
    assert grid_named(text) == grid


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trailling", "did you mean 'trailing'"),
        ("trailing,rho=3", "'rho=3' is none of its options; it takes no options"),
        ("karras,rho=x", "rho=x is not valid"),
        ("explicit", "cannot be made with these options"),
        ("explicit,steps=1000:a", "is not valid"),
        ("math:pi", "is not a grid"),
    ],
)
def test_what_is_no_grid_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(UserError) as refusal:
        grid_named(text)
    assert message in str(refusal.value)


def test_uniform_and_trailing_fall_on_whole_steps_whatever_their_number() -> None:
    schedule = LinearBeta()
    for steps in range(1, 1001):
        uniform = 1 + torch.arange(steps) * 1000 // steps
        quotient = torch.arange(1000, 1000 * steps + 1, 1000) // steps
        rest = 2 * (torch.arange(1000, 1000 * steps + 1, 1000) % steps)
        half_to_even = (rest > steps) | ((rest == steps) & (quotient % 2 == 1))
        trailing = quotient + half_to_even
        for grid, expected in ((Uniform(), uniform), (Trailing(), trailing)):
            times = grid(schedule, steps).flip(0)
            torch.testing.assert_close(times, expected / float64(1000), rtol=1e-14, atol=0)


@pytest.mark.parametrize("grid", [Uniform(), Trailing()])
def test_as_many_steps_as_the_schedule_has_are_all_its_steps(grid: Grid) -> None:
    for total in (1, 2, 100, 1000):
        assert whole_steps(grid, total, total) == pytest.approx(list(range(1, total + 1)))


@each_grid
@pytest.mark.parametrize("steps", [-1, 0, 1001])
def test_a_number_of_steps_outside_the_schedule_is_refused(grid: Grid, steps: int) -> None:
    with pytest.raises(UserError, match=rf"steps must lie in 1\.\.1000, got {steps}"):
        grid(LinearBeta(), steps)


@each_grid
@each_schedule
def test_the_nodes_are_the_grids_and_the_clean_end(grid: Grid, schedule: Schedule) -> None:
    path = nodes(grid, schedule, 12)
    times = [*grid(schedule, 12).tolist(), 0.0]
    assert [node.t.item() for node in path] == times
    alpha, sigma = schedule(float64(times))
    assert [node.alpha.item() for node in path] == alpha.tolist()
    assert [node.sigma.item() for node in path] == sigma.tolist()
    assert (path[-1].alpha.item(), path[-1].sigma.item()) == (1, 0)


def test_one_step_to_no_noise_at_all_is_the_first() -> None:
    assert LogSNR(last=0)(Cosine(), 1).tolist() == [1.0]


def test_the_grids_are_called_by_their_own_names() -> None:
    names = {name: getattr(grid, "name", None) for name, grid in GRIDS.items()}
    assert names == {name: name for name in GRIDS}
