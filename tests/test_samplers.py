"""DDPM and DDIM against closed forms, each other, and exact models."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from helpers import (
    FIRST_ORDER,
    draws,
    each_first_order_sampler,
    each_grid,
    each_schedule,
    float64,
    mixture,
    moments,
    normal,
    run,
    small_unet,
)
from oracles import Gaussian, SingleImage
from underone.diffusion import (
    DDIM,
    DDPM,
    Bound,
    Estimate,
    Grid,
    LinearBeta,
    NetworkDenoiser,
    Node,
    Sampler,
    Schedule,
    Trailing,
    Velocity,
    count_evaluations,
    integrate,
    node_at,
    nodes,
)
from underone.errors import UserError

SCHEDULE = LinearBeta()


def reported(
    sampler: Sampler, now: Node, to: Node, x0: float
) -> tuple[Callable[[float], float], float]:
    """The mean (as a function of x) and standard deviation of one step towards a known x0."""
    model = Bound(SingleImage(SCHEDULE, float64([x0])), None)

    def step(x: float, z: float) -> float:
        state, _ = sampler.step(float64([[x]]), now, to, [], model, lambda: float64([[z]]))
        return state.item()

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
    one = run(mixture(schedule), DDIM(1.0), path, x, draws(16, 2))
    other = run(mixture(schedule), DDPM("small"), path, x, draws(16, 2))
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a.x, b.x, rtol=1e-10, atol=1e-10)


def test_ddim_converges_with_order_1_on_a_nonlinear_model() -> None:
    def end(steps: int) -> Tensor:
        times = torch.linspace(1, 0.02, steps + 1, dtype=torch.float64)
        path = [node_at(SCHEDULE, t) for t in times]
        return run(mixture(SCHEDULE), DDIM(), path, normal(64, 2), draws(64, 2))[-1].x

    exact = 2 * end(8192) - end(4096)  # extrapolated, so as not to flatter the order
    errors = [(end(steps) - exact).norm().item() for steps in (128, 256, 512)]
    orders = torch.tensor(errors).log2().diff().neg()
    assert orders.min() > 0.8
    assert orders.max() < 1.3


@pytest.mark.parametrize("steps", [10, 50])
def test_large_over_disperses_and_small_under_disperses_a_gaussian(steps: int) -> None:
    oracle = Gaussian(SCHEDULE, mean=0.3, deviation=0.5)
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
    oracle = Gaussian(SCHEDULE, mean=0.0, deviation=0.5)
    path = nodes(Trailing(), SCHEDULE, 1000)
    start = (0.0, oracle.variance(path[0]).item())
    for sampler in (DDPM("small"), DDPM("large")):
        variance = moments(oracle, sampler, path, start)[-2][1]
        assert variance == pytest.approx(oracle.variance(path[-2]).item(), rel=0.02)


def test_drawn_samples_have_the_propagated_moments() -> None:
    oracle, count = Gaussian(SCHEDULE, mean=0.3, deviation=0.5), 20_000
    path = nodes(Trailing(), SCHEDULE, 8)
    for sampler in (DDPM("large"), DDIM(0.5)):
        x = path[0].sigma * normal(count, 1)
        states = run(oracle, sampler, path, x, draws(count, 1, seed=1))
        expected = moments(oracle, sampler, path, (0.0, path[0].sigma.item() ** 2))
        for state, (mean, variance) in zip(states, expected, strict=True):
            assert abs(state.x.mean().item() - mean) < 4 * (variance / count) ** 0.5
            assert abs(state.x.var().item() / variance - 1) < 4 * (2 / count) ** 0.5


@each_schedule
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
        return run(mixture(SCHEDULE), sampler, path, normal(4, 2), draws(4, 2, seed=3))

    with count_evaluations() as evaluations:
        first = once()
    assert evaluations == {"oracle": 9 * 4}
    assert len(first) == 10
    assert all(torch.equal(a.x, b.x) for a, b in zip(first, once(), strict=True))


def test_the_loop_is_differentiable_in_x() -> None:
    path = nodes(Trailing(), SCHEDULE, 4)
    x = normal(2, 2).requires_grad_()
    *_, last = integrate(Bound(mixture(SCHEDULE), None), DDIM(), path, x, draws(2, 2))
    (gradient,) = torch.autograd.grad(last.x.sum(), x)
    step = 1e-6 * torch.ones_like(x)
    ahead, behind = (
        run(mixture(SCHEDULE), DDIM(), path, x.detach() + sign * step, draws(2, 2))[-1].x
        for sign in (1, -1)
    )
    expected = (ahead - behind).sum() / 2e-6
    assert gradient.sum().item() == pytest.approx(expected.item(), rel=1e-5)


def test_batch_1_equals_batch_64_in_a_network() -> None:
    denoiser = NetworkDenoiser(small_unet(), SCHEDULE, Velocity())
    path = nodes(Trailing(), SCHEDULE, 10)
    x = normal(64, 1, 8, 8).float()
    label = torch.arange(64) % 3
    whole = run(denoiser, DDIM(), path, x, draws(64, 1, 8, 8), label)[-1].x
    alone = torch.cat(
        [
            run(denoiser, DDIM(), path, x[i : i + 1], draws(1, 1, 8, 8), label[i : i + 1])[-1].x
            for i in range(64)
        ]
    )
    torch.testing.assert_close(whole, alone, rtol=1e-4, atol=1e-4)


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
