"""The distribution of what a sampler draws, where that of the data is known."""

from collections.abc import Sequence

import torch
from torch import Tensor

from underone.conformance.finding import Finding
from underone.conformance.oracles import Mixture, SingleImage, plane_mixture
from underone.conformance.paths import FRAMEWORKS, all_grids, even_grid
from underone.conformance.runs import normal, run
from underone.diffusion import Estimate, Node, Sampler, Schedule, Trailing, nodes

_COUNT = 10_000  # samples, where moments are estimated
_MOST_EVALUATIONS = 1000  # of a sample, for that
_MOMENT_STEPS = 200
_BIAS = 0.03  # allowed in so many steps, relative to the standard deviation or variance


def one_image(sampler: Sampler) -> Finding | None:
    """The distribution of x at the last noisy node where the data are one image."""
    if not sampler.exact_for_one_image:
        return None
    noise = normal(_COUNT, 4)
    implied = torch.stack([_implied_noise(sampler, schedule, noise) for schedule in FRAMEWORKS])
    if not sampler.stochastic:
        error = (implied - noise).abs().max().item()
        return Finding("a single image", "error below 1e-10", f"{error:.1e}", error < 1e-10)
    means = implied.mean(1) * _COUNT**0.5
    variances = (implied.var(1) - 1) * (_COUNT / 2) ** 0.5
    most = (means.abs().max().item(), variances.abs().max().item())
    return Finding(
        "a single image",
        "mean and variance within 4 standard errors",
        f"{most[0]:.1f} and {most[1]:.1f}",
        max(most) < 4,
    )


def _implied_noise(sampler: Sampler, schedule: Schedule, noise: Tensor) -> Tensor:
    """The noise in x at the last noisy node, of paths that began with `noise`."""
    image = torch.tensor([0.9, -0.4, 0.1, -1.0], dtype=torch.float64)
    path = nodes(Trailing(), schedule, 10)
    first = path[0].alpha * image + path[0].sigma * noise
    last = run(SingleImage(schedule, image), sampler, path, first)[-2]
    return (last.x - last.node.alpha * image) / last.node.sigma


def clean_end(sampler: Sampler) -> Finding:
    """No noise is left at sigma = 0: where the data are one image, the result is that image."""
    image = torch.tensor([0.9, -0.4, 0.1, -1.0], dtype=torch.float64)
    worst = 0.0
    for schedule, grid, steps in all_grids():
        path = nodes(grid, schedule, steps)
        x = path[0].alpha * image + path[0].sigma * normal(4, 4)
        result = run(SingleImage(schedule, image), sampler, path, x)[-1].x
        worst = max(worst, (result - image).abs().max().item())
    return Finding("the end is clean", "to 1e-5", f"{worst:.1e}", worst < 1e-5)


def mixture(sampler: Sampler) -> Finding:
    """Mean and covariance at the last noisy node and at the end, where the data are a mixture."""
    return _moments_finding("of a mixture", sampler, FRAMEWORKS[:1], _COUNT)


def mixture_under_other_schedules(sampler: Sampler) -> Finding:
    """The same for alpha = 1 and for the straight path, with fewer samples."""
    return _moments_finding("under other schedules", sampler, FRAMEWORKS[1:], _COUNT // 4)


def _moments_finding(
    where: str, sampler: Sampler, schedules: Sequence[Schedule], count: int
) -> Finding:
    steps = next(n for n in range(_MOMENT_STEPS, 0, -1) if n <= 2 or _affordable(sampler, n))
    errors = [
        off for schedule in schedules for off in _moment_errors(sampler, schedule, steps, count)
    ]
    allowed = (4 / count**0.5 + _BIAS, 4 * (2 / count) ** 0.5 + _BIAS)
    off = tuple(max(pair) for pair in zip(*errors, strict=True))
    return Finding(
        f"mean and covariance {where}, {steps} steps",
        f"off by less than {allowed[0]:.3f} and {allowed[1]:.3f}",
        f"{off[0]:.3f} and {off[1]:.3f}",
        all(found < most for found, most in zip(off, allowed, strict=True)),
    )


def _moment_errors(
    sampler: Sampler, schedule: Schedule, steps: int, count: int
) -> list[tuple[float, float]]:
    """How far off mean and covariance are at the last noisy node and at the end."""
    oracle, path = plane_mixture(schedule), nodes(even_grid(schedule), schedule, steps)
    data = draw(oracle, count)
    first = path[0].alpha * data + path[0].sigma * normal(count, 2, seed=2)
    *_, last, end = run(oracle, sampler, path, first)
    return [_off(oracle, state) for state in (last, end)]


def _off(oracle: Mixture, state: Estimate) -> tuple[float, float]:
    """The errors of mean and covariance, in units where the truth has mean 0 and covariance I."""
    mean, covariance = moments(oracle, state.node)
    whitener = torch.linalg.inv(torch.linalg.cholesky(covariance))
    white = (state.x - mean) @ whitener.T
    off_covariance = (white.T.cov() - torch.eye(2)).abs().max()
    return white.mean(0).abs().max().item(), off_covariance.item()


def _affordable(sampler: Sampler, steps: int) -> bool:
    evaluations = sampler.evaluations(steps)
    if evaluations is None:
        return steps <= _MOMENT_STEPS // 10
    return evaluations <= _MOST_EVALUATIONS


def moments(oracle: Mixture, node: Node) -> tuple[Tensor, Tensor]:
    """Mean (d,) and covariance (d, d) of x at a node."""
    mean = oracle.weights @ oracle.means
    centred = oracle.means - mean
    covariance = centred.T @ (oracle.weights[:, None] * centred)
    identity = torch.eye(len(mean), dtype=torch.float64)
    covariance = covariance + (oracle.weights @ oracle.deviations**2) * identity
    return node.alpha * mean, node.alpha**2 * covariance + node.sigma**2 * identity


def draw(oracle: Mixture, count: int) -> Tensor:
    """Data (count, d) of a mixture, the same every time."""
    generator = torch.Generator().manual_seed(0)
    component = torch.multinomial(oracle.weights, count, replacement=True, generator=generator)
    noise = normal(count, oracle.means.shape[1], seed=4)
    return oracle.means[component] + oracle.deviations[component, None] * noise
