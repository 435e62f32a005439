"""DDPM and DDIM against closed forms, each other, and exact models."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from torch import Tensor

from helpers import (
    FIRST_ORDER,
    draws,
    each_first_order_sampler,
    each_grid,
    each_preserving_schedule,
    each_schedule,
    float64,
    moments,
    normal,
    run,
)
from underone.conformance.oracles import GaussianData, Mixture, SingleImage, plane_mixture
from underone.diffusion import (
    DDIM,
    DDPM,
    Bound,
    Estimate,
    Grid,
    LinearBeta,
    Node,
    Quadratic,
    Sampler,
    Schedule,
    Step,
    Trailing,
    Uniform,
    count_evaluations,
    node_at,
    nodes,
)
from underone.diffusion.samplers.ddpm import added_variance, posterior_variance
from underone.errors import UserError

SCHEDULE = LinearBeta()


def reported(
    sampler: Sampler, now: Node, to: Node, x0: float
) -> tuple[Callable[[float], float], float]:
    """The mean (as a function of x) and standard deviation of one step towards a known x0."""
    model = Bound(SingleImage(SCHEDULE, float64([x0])), None)

    def step(x: float, z: float) -> float:
        at = Step([now, to], 0, [], model, lambda: float64([[z]]))
        return sampler.step(float64([[x]]), at)[0].item()

    return lambda x: step(x, 0.0), step(0.0, 1.0) - step(0.0, 0.0)


@pytest.mark.parametrize(("now_step", "to_step"), [(1000, 999), (1000, 500), (60, 40), (2, 1)])
def test_ddpm_is_the_posterior_by_bayes_rule(now_step: int, to_step: int) -> None:
    # q(x_s | x_t, x0) from its two Gaussian factors: N(alpha_s x0, sigma_s^2) and the
    # likelihood of x_t, which is a x_s plus the product of the betas' noise between s and t.
    betas = SCHEDULE.betas()
    a = (1 - betas[to_step:now_step]).prod().sqrt().item()
    added = 1 - a**2  # 1 - prod (1 - beta): beta after respacing
    now, to = (node_at(SCHEDULE, float64(k / 1000)) for k in (now_step, to_step))
    alpha, variance = to.alpha.item(), to.sigma.item() ** 2
    precision = 1 / variance + a**2 / added
    x0, x = 0.7, -0.4
    expected = (alpha * x0 / variance + a * x / added) / precision
    for choice, expected_variance in (("small", 1 / precision), ("large", added)):
        mean, deviation = reported(FIRST_ORDER[f"ddpm-{choice}"], now, to, x0)
        assert mean(x) == pytest.approx(expected, rel=1e-9)
        assert deviation**2 == pytest.approx(expected_variance, rel=1e-9)


@each_schedule
@each_grid
@pytest.mark.parametrize("steps", [2, 7, 50])
def test_ddim_with_eta_1_is_ddpm_small(schedule: Schedule, grid: Grid, steps: int) -> None:
    path, x = nodes(grid, schedule, steps), normal(16, 2)
    one = run(plane_mixture(schedule), DDIM(1.0), path, x, draws(16, 2))
    other = run(plane_mixture(schedule), DDPM("small"), path, x, draws(16, 2))
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a.x, b.x, rtol=1e-10, atol=1e-10)


def flow(oracle: Mixture, path: Sequence[Node], x: Tensor) -> Tensor:
    """x at the end of the path by the probability flow d(x/alpha)/d log(r) = x/alpha - x0.

    With r = sigma/alpha the equation knows no schedule and no steps; an adaptive method of order 8
    solves it far beyond the errors to be measured.
    """

    def slope(log_ratio: float, flat: NDArray[np.float64]) -> NDArray[np.float64]:
        ratio = float64(log_ratio).exp()
        alpha = (1 + ratio**2).rsqrt()
        scaled = torch.from_numpy(flat).reshape(x.shape)
        estimate = oracle(alpha * scaled, Node(ratio, alpha, ratio * alpha), None)
        return (scaled - estimate).flatten().numpy()

    ends = [-path[0].log_snr.item(), -path[-1].log_snr.item()]
    start = (x / path[0].alpha).flatten().numpy()
    solved = solve_ivp(slope, ends, start, method="DOP853", rtol=1e-10, atol=1e-10)
    return path[-1].alpha * torch.from_numpy(solved.y[:, -1]).reshape(x.shape)


def in_time(schedule: Schedule, steps: int) -> list[Node]:
    return [node_at(schedule, t) for t in torch.linspace(1, 1e-3, steps + 1, dtype=torch.float64)]


def in_log_snr(schedule: Schedule, steps: int) -> list[Node]:
    first, last = (node.log_snr.item() for node in in_time(schedule, 1))
    return [
        node_at(schedule, schedule.time(log_snr))
        for log_snr in torch.linspace(first, last, steps + 1, dtype=torch.float64)
    ]


def quadratic(schedule: Schedule, steps: int) -> list[Node]:
    return nodes(Quadratic(), schedule, steps + 1)[:-1]


@each_schedule
@pytest.mark.parametrize("place", [in_time, in_log_snr, quadratic])
def test_ddim_converges_to_the_flow_with_order_1(
    schedule: Schedule, place: Callable[[Schedule, int], list[Node]]
) -> None:
    oracle, x = plane_mixture(schedule), normal(16, 2)
    exact = flow(oracle, place(schedule, 1), x)
    errors = [
        (run(oracle, DDIM(), place(schedule, steps), x, draws(16, 2))[-1].x - exact).norm().item()
        for steps in (32, 64, 128, 256)
    ]
    orders = float64(errors).log2().diff().neg()
    assert orders.min() > 0.9
    assert orders.max() < 1.15
    assert errors[-1] < 0.06


def recursion(
    sampler: Sampler, oracle: GaussianData, path: Sequence[Node], start: tuple[float, float]
) -> list[tuple[float, float]]:
    """Mean and variance at every node in the papers' own symbols: bar = alpha^2, beta = 1 - ratio.

    Every step is x_s = c0 x0 + c1 x + noise of some variance, and x0 = slope x + offset.
    """
    states = [start]
    for now, to in pairwise(path):
        mean, variance = states[-1]
        slope, offset = (c.item() for c in oracle.affine(now))
        bar, bar_to = now.alpha.item() ** 2, to.alpha.item() ** 2
        beta = 1 - bar / bar_to
        posterior = (1 - bar_to) / (1 - bar) * beta
        if to.sigma == 0:
            c0, c1, added = 1.0, 0.0, 0.0
        elif isinstance(sampler, DDPM):  # Ho et al. 2020, eq. 7
            c0 = bar_to**0.5 * beta / (1 - bar)
            c1 = (bar / bar_to) ** 0.5 * (1 - bar_to) / (1 - bar)
            added = beta if sampler.variance == "large" else posterior
        else:  # Song et al. 2021, eq. 12 and 16
            assert isinstance(sampler, DDIM)
            added = sampler.eta**2 * posterior
            c1 = ((1 - bar_to - added) / (1 - bar)) ** 0.5
            c0 = bar_to**0.5 - c1 * bar**0.5
        gain = c0 * slope + c1
        states.append((gain * mean + c0 * offset, gain**2 * variance + added))
    return states


@each_preserving_schedule
@each_grid
@each_first_order_sampler
@pytest.mark.parametrize("steps", [1, 5, 50])
def test_moments_are_those_of_the_closed_form(
    schedule: Schedule, grid: Grid, sampler: Sampler, steps: int
) -> None:
    oracle, path = GaussianData(schedule, mean=0.3, deviation=0.5), nodes(grid, schedule, steps)
    start = (0.0, path[0].sigma.item() ** 2)
    computed = float64(moments(oracle, sampler, path, start))
    expected = float64(recursion(sampler, oracle, path, start))
    torch.testing.assert_close(computed, expected, rtol=1e-9, atol=1e-12)


@each_preserving_schedule
@each_grid
@pytest.mark.parametrize(
    ("sampler", "deviation"), [(DDPM("large"), 1.0), (DDPM("small"), 0.0), (DDIM(1.0), 0.0)]
)
@pytest.mark.parametrize("steps", [2, 20])
def test_each_variance_is_exact_for_the_data_it_is_optimal_for(
    schedule: Schedule, grid: Grid, sampler: Sampler, deviation: float, steps: int
) -> None:
    oracle = GaussianData(schedule, mean=0.3, deviation=deviation)
    path = nodes(grid, schedule, steps)
    # No node but the last, where every sampler ends at the mean of x0 given x.
    truth = [(node.alpha.item() * 0.3, oracle.variance(node).item()) for node in path[:-1]]
    computed = moments(oracle, sampler, path, truth[0])[:-1]
    torch.testing.assert_close(float64(computed), float64(truth), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("steps", [10, 50])
def test_large_over_disperses_and_small_under_disperses_a_gaussian(steps: int) -> None:
    oracle = GaussianData(SCHEDULE, mean=0.3, deviation=0.5)
    path = nodes(Trailing(), SCHEDULE, steps)
    start = (oracle.schedule(path[0].t)[0].item() * 0.3, oracle.variance(path[0]).item())
    truth = oracle.variance(path[-2]).item()
    variances = {
        name: moments(oracle, sampler, path, start)[-2][1] for name, sampler in FIRST_ORDER.items()
    }
    assert variances["ddpm-small"] < 0.98 * truth
    assert variances["ddpm-large"] > 1.02 * truth
    assert variances["ddim-1"] == pytest.approx(variances["ddpm-small"], rel=1e-9)
    means = [moments(oracle, s, path, start)[-2][0] for s in FIRST_ORDER.values()]
    assert means == pytest.approx([path[-2].alpha.item() * 0.3] * 5, rel=1e-9)


def test_many_ancestral_steps_reproduce_the_variance() -> None:
    oracle = GaussianData(SCHEDULE, mean=0.0, deviation=0.5)
    path = nodes(Trailing(), SCHEDULE, 1000)
    start = (0.0, oracle.variance(path[0]).item())
    for sampler in (DDPM("small"), DDPM("large")):
        variance = moments(oracle, sampler, path, start)[-2][1]
        assert variance == pytest.approx(oracle.variance(path[-2]).item(), rel=0.02)


def test_drawn_samples_have_the_propagated_moments() -> None:
    oracle, count = GaussianData(SCHEDULE, mean=0.3, deviation=0.5), 20_000
    path = nodes(Trailing(), SCHEDULE, 8)
    for sampler in (DDPM("large"), DDIM(0.5)):
        x = path[0].sigma * normal(count, 1)
        states = run(oracle, sampler, path, x, draws(count, 1, seed=1))
        expected = moments(oracle, sampler, path, (0.0, path[0].sigma.item() ** 2))
        for state, (mean, variance) in zip(states, expected, strict=True):
            assert abs(state.x.mean().item() - mean) < 4 * (variance / count) ** 0.5
            assert abs(state.x.var().item() / variance - 1) < 4 * (2 / count) ** 0.5


@each_preserving_schedule
@each_grid
@each_first_order_sampler
@pytest.mark.parametrize("steps", [1, 2, 10, 1000])
def test_a_single_image_is_recovered(
    schedule: Schedule, grid: Grid, sampler: Sampler, steps: int
) -> None:
    image = normal(1, 3, 3).clamp(-1, 1)
    path = nodes(grid, schedule, steps)
    x = path[0].sigma * normal(2, 1, 3, 3)
    states = run(SingleImage(schedule, image), sampler, path, x, draws(2, 1, 3, 3, seed=2))
    assert all(state.x.isfinite().all() for state in states)
    torch.testing.assert_close(states[-1].x, image.expand(2, 1, 3, 3), rtol=0, atol=1e-5)


@each_first_order_sampler
def test_a_second_run_equals_the_first_and_costs_what_it_says(sampler: Sampler) -> None:
    path = nodes(Trailing(), SCHEDULE, 9)

    def once() -> list[Estimate]:
        return run(plane_mixture(SCHEDULE), sampler, path, normal(4, 2), draws(4, 2, seed=3))

    with count_evaluations() as evaluations:
        first = once()
    assert evaluations == {"oracle": 9 * 4}
    assert len(first) == 10
    assert all(torch.equal(a.x, b.x) for a, b in zip(first, once(), strict=True))


@each_preserving_schedule
@each_grid
def test_the_coefficients_are_sound_at_every_number_of_steps(
    schedule: Schedule, grid: Grid
) -> None:
    for steps in range(2, 1001):
        times = grid(schedule, steps)
        now, to = node_at(schedule, times[:-1]), node_at(schedule, times[1:])
        large, small = added_variance(now, to), posterior_variance(now, to)
        assert (small > 0).all()
        assert (small < large).all()
        assert (large < now.sigma**2).all()
        assert (small < to.sigma**2).all()


@each_schedule
@pytest.mark.parametrize("grid", [Trailing(), Uniform(), Quadratic()])
@each_first_order_sampler
def test_a_mixture_is_sampled_with_its_weights_and_spreads(
    schedule: Schedule, grid: Grid, sampler: Sampler
) -> None:
    oracle, path = plane_mixture(schedule), nodes(grid, schedule, 100)
    x = run(oracle, sampler, path, path[0].sigma * normal(4000, 2), draws(4000, 2, seed=1))[-1].x
    mean = oracle.weights @ oracle.means
    centred = oracle.means - mean
    covariance = centred.T @ (oracle.weights[:, None] * centred)
    covariance += (oracle.weights @ oracle.deviations**2) * torch.eye(2)
    torch.testing.assert_close(x.mean(0), mean, rtol=0, atol=0.04)
    torch.testing.assert_close(x.T.cov(), covariance, rtol=0, atol=0.04)


@pytest.mark.parametrize(
    "make",
    [
        lambda: DDIM(1.1),
        lambda: DDIM(-0.1),
        lambda: DDPM("medium"),  # type: ignore[arg-type]
    ],
)
def test_impossible_samplers_are_refused(make: Callable[[], Sampler]) -> None:
    with pytest.raises(UserError):
        make()
