"""DDPM, score-based models and flows are one framework: the same samplers, the same samples."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from helpers import SCHEDULES, draws, each_schedule, float64, normal, run
from underone.conformance.oracles import Mixture, SingleImage, plane_mixture
from underone.diffusion import (
    DDIM,
    DDPM,
    GRIDS,
    RK45,
    SAMPLERS,
    AnnealedLangevin,
    Bound,
    Denoiser,
    Estimate,
    FlowVelocity,
    Geometric,
    Heun,
    LinearBeta,
    LogSNR,
    Node,
    Sampler,
    Schedule,
    Score,
    Step,
    Straight,
    Trailing,
    node_at,
    nodes,
    sample,
)
from underone.diffusion.samplers.ddpm import added_variance, posterior_variance
from underone.diffusion.score_levels import langevin_rate
from underone.errors import UserError

NEW: dict[str, Schedule] = {"geometric": Geometric(), "straight": Straight()}
each_new_schedule = pytest.mark.parametrize("schedule", NEW.values(), ids=NEW.keys())


@each_new_schedule
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
def test_every_grid_begins_finite_and_ends_at_the_data(schedule: Schedule, grid: object) -> None:
    for steps in (1, 2, 3, 17, schedule.steps):
        path = nodes(grid, schedule, steps)  # type: ignore[arg-type]
        assert len(path) == steps + 1
        assert (path[-1].alpha.item(), path[-1].sigma.item()) == (1, 0)
        assert path[0].log_snr.isfinite()
        ratios = torch.stack([node.noise_ratio for node in path])
        assert (ratios.diff() < 0).all()
        for now, to in pairwise(path[:-1]):
            large, small = added_variance(now, to), posterior_variance(now, to)
            assert 0 < small < large < now.sigma**2


@each_new_schedule
def test_sampling_starts_from_sigma_z(schedule: Schedule) -> None:
    seen: list[Tensor] = []

    class Watching(DDIM):
        def step(self, x: Tensor, at: Step) -> tuple[Tensor, Estimate]:
            seen.append(x / at.now.sigma)
            return super().step(x, at)

    keys = [(0, index) for index in range(2000)]
    denoiser = SingleImage(schedule, float64([0.5, -0.5]))
    list(
        sample(
            denoiser, Watching(), Trailing(), 2, shape=(2,), keys=keys, labels=None, batch_size=2000
        )
    )
    deviation = seen[0].double().std().item()
    assert deviation == pytest.approx(1, abs=4 / (2 * 4000) ** 0.5)


# DDPM's large variance is the forward chain's own, which depends on alpha; "time" of DEIS is t.
SAME = {
    name: sampler
    for name, sampler in SAMPLERS.items()
    if name not in ("ddpm-large", "deis", "annealed-langevin", "rk45")
} | {"annealed-langevin": AnnealedLangevin(inner=3), "rk45": RK45(0.01, 0.01)}


@pytest.mark.parametrize("sampler", SAME.values(), ids=SAME.keys())
def test_a_sampler_goes_one_way_under_every_schedule(sampler: Sampler) -> None:
    """x / alpha at the same sigma / alpha: what the schedule is called does not matter."""
    found = []
    for schedule in (LinearBeta(), Geometric(sigma_min=0.005, sigma_max=200.0), Straight()):
        log_snr = torch.linspace(-4.5, 4.5, 12, dtype=torch.float64)
        path = [node_at(schedule, schedule.time(level)) for level in log_snr]
        path.append(node_at(schedule, float64(0)))
        start = path[0].alpha * normal(8, 2) + path[0].sigma * normal(8, 2, seed=1)
        states = run(plane_mixture(schedule), sampler, path, start, draws(8, 2))
        found.append(torch.stack([state.x / state.node.alpha for state in states]))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-6, atol=1e-6)


def test_the_ancestral_step_of_a_score_model_is_the_published_one() -> None:
    # Song et al. 2021 (arXiv 2011.13456), eq. 47: x + (s_i^2 - s_{i-1}^2) score
    # + sqrt(s_{i-1}^2 (s_i^2 - s_{i-1}^2) / s_i^2) z.
    schedule = NEW["geometric"]
    oracle = plane_mixture(schedule)
    now, to = (node_at(schedule, float64(k / schedule.steps)) for k in (60, 57))
    x, z = now.sigma * normal(8, 2), normal(8, 2, seed=1)
    at = Step([now, to], 0, [], Bound(oracle, None), lambda: z)
    score = (oracle(x, now, None) - x) / now.sigma**2
    gap = now.sigma**2 - to.sigma**2
    expected = x + gap * score + (to.sigma**2 * gap / now.sigma**2).sqrt() * z
    torch.testing.assert_close(DDPM("small").step(x, at)[0], expected, rtol=1e-10, atol=1e-10)


def test_ddim_of_a_flow_is_the_euler_method_of_its_velocity() -> None:
    schedule = NEW["straight"]
    oracle = plane_mixture(schedule)
    now, to = (node_at(schedule, float64(t)) for t in (0.8, 0.65))
    x = normal(8, 2)
    at = Step([now, to], 0, [], Bound(oracle, None), lambda: x)
    here = at.evaluate(x)
    velocity = FlowVelocity().target(here.x0, here.noise, now)
    expected = x + (to.sigma - now.sigma) * velocity
    torch.testing.assert_close(DDIM().step(x, at)[0], expected, rtol=1e-10, atol=1e-10)
    # And on the straight path the velocity is the path's own.
    path = now.alpha * here.x0 + now.sigma * here.noise
    torch.testing.assert_close(path + (to.sigma - now.sigma) * velocity, expected)


@each_schedule
def test_a_score_divided_by_sigma_is_the_score(schedule: Schedule) -> None:
    oracle, node = plane_mixture(schedule), node_at(schedule, float64(0.4))
    x = (node.alpha * normal(16, 2) + node.sigma * normal(16, 2, seed=1)).requires_grad_()
    score = torch.autograd.grad(_log_density(oracle, node, x).sum(), x)[0]
    x0 = Score().to_x0(node.sigma * score, x.detach(), node)
    torch.testing.assert_close(x0, oracle(x.detach(), node, None), rtol=1e-9, atol=1e-9)
    assert Score().condition(node) is None


def _log_density(oracle: Mixture, node: Node, x: Tensor) -> Tensor:
    variances = node.alpha**2 * oracle.deviations**2 + node.sigma**2
    squares = (x[:, None] - node.alpha * oracle.means).square().sum(2)
    return (oracle.weights.log() - squares / (2 * variances) - variances.log()).logsumexp(1)


@pytest.mark.parametrize(
    ("prediction", "name"), [(Score(), "geometric"), (FlowVelocity(), "straight")]
)
def test_a_prediction_is_undone(prediction: Score | FlowVelocity, name: str) -> None:
    schedule, x0, z = SCHEDULES[name], normal(5, 1, 4, 4), normal(5, 1, 4, 4, seed=1)
    node = node_at(schedule, float64([0.01, 0.2, 0.5, 0.9, 1.0]))
    alpha, sigma = (c[:, None, None, None] for c in (node.alpha, node.sigma))
    x = alpha * x0 + sigma * z
    found = prediction.to_x0(prediction.target(x0, z, node), x, node)
    torch.testing.assert_close(found, x0, rtol=1e-10, atol=1e-10)


COUNT = 4000
ERRORS = 4.0  # standard errors


def _drawn(oracle: Denoiser, sampler: Sampler, path: list[Node], seed: int) -> Tensor:
    x = path[0].sigma * normal(COUNT, 2, seed=seed)
    return run(oracle, sampler, path, x, draws(COUNT, 2, seed=seed))[-2].x


@pytest.mark.slow
def test_a_score_model_gives_one_law_by_ddpm_ddim_heun_and_annealed_langevin() -> None:
    """Moments and the weights of components, at the last level, within 4 standard errors.

    And 0.05 for what so many levels leave, which is of either sign: DDPM's variance is a little
    too small, and that of Langevin steps, which lag behind the levels, a little too large.
    """
    schedule = Geometric(sigma_min=0.05, sigma_max=20.0, steps=80)
    oracle = plane_mixture(schedule)
    path = nodes(Trailing(), schedule, schedule.steps)  # every level of the model
    drawn = {
        "ddpm-small": _drawn(oracle, DDPM("small"), path, 1),
        "ddim": _drawn(oracle, DDIM(), path, 2),
        "heun": _drawn(oracle, Heun(), path, 3),
        "langevin": _drawn(oracle, AnnealedLangevin(20, None, published=True), path, 4),
    }
    node = path[-2]
    mean = oracle.weights @ oracle.means
    centred = oracle.means - mean
    covariance = centred.T @ (oracle.weights[:, None] * centred)
    covariance += (oracle.weights @ oracle.deviations**2 + node.sigma**2) * torch.eye(2)
    for name, x in drawn.items():
        deviations = covariance.diagonal().sqrt()
        off = ((x.mean(0) - mean) / deviations).abs().max().item()
        assert off < ERRORS / COUNT**0.5 + 0.05, name
        scale = deviations[:, None] * deviations
        off = ((x.T.cov() - covariance) / scale).abs().max().item()
        assert off < ERRORS * (2 / COUNT) ** 0.5 + 0.05, name
        # The mean posterior of a component is its weight.
        posterior = _posterior(oracle, node, x)
        errors = posterior.std(0) / COUNT**0.5
        wrong = (posterior.mean(0) - oracle.weights).abs()
        assert (wrong < ERRORS * errors + 0.05 * oracle.weights).all(), name


def _posterior(oracle: Mixture, node: Node, x: Tensor) -> Tensor:
    variances = node.alpha**2 * oracle.deviations**2 + node.sigma**2
    squares = (x[:, None] - node.alpha * oracle.means).square().sum(2)
    return (oracle.weights.log() - squares / (2 * variances) - variances.log()).softmax(1)


def test_without_a_rate_langevin_has_that_of_the_levels() -> None:
    schedule = Geometric(steps=40)
    path = nodes(Trailing(), schedule, 40)
    ratio = (path[0].sigma / path[1].sigma).item()
    rate = langevin_rate(ratio, 5)
    oracle = plane_mixture(schedule)
    x = path[0].sigma * normal(8, 2)
    by_rule = run(oracle, SAMPLERS["ncsnv2"], path, x, draws(8, 2))
    by_rate = run(oracle, AnnealedLangevin(5, rate, published=True), path, x, draws(8, 2))
    torch.testing.assert_close(by_rule[-1].x, by_rate[-1].x, rtol=1e-4, atol=1e-4)
    # Fewer levels are farther apart, and take larger steps.
    few = nodes(LogSNR(), schedule, 10)
    wide = langevin_rate((few[0].sigma / few[1].sigma).item(), 5)
    assert wide > 1.5 * rate
    with pytest.raises(UserError, match="for the published noise alone"):
        AnnealedLangevin(5, None)
