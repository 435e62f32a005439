"""What every sampler is put through, and what it claims compared with what it does.

All denoisers are exact (see `oracles`), so that whatever is wrong is the sampler's. Orders are
measured to the last noisy node, from exact estimates at the nodes before the start, without
clipping: the end at sigma = 0 and the lack of a past are the same for all samplers.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from underone.conformance.flow import exact_flow
from underone.conformance.oracles import Mixture, SingleImage, line_mixture, plane_mixture
from underone.diffusion import (
    GRIDS,
    Bound,
    Cosine,
    Denoiser,
    Estimate,
    LinearBeta,
    LogSNR,
    Node,
    Sampler,
    Trailing,
    count_evaluations,
    integrate,
    nodes,
)

# The betas of the DDPM paper in a hundred times as many steps: between whole steps log alpha^2 is
# linear, and at 1000 steps those kinks can be seen in fourth orders.
SCHEDULE = LinearBeta(steps=100_000, beta_min=1e-6, beta_max=2e-4)
TOLERANCE = 0.2  # of an observed order
INTERVALS = (128, 256, 512)  # of the grid, each dividing the last
_STOCHASTIC_INTERVALS, _FINEST = (64, 128, 256), 2048
_COUNT = 10_000  # samples, where moments are estimated
_MOST_EVALUATIONS = 1000  # a sample, there
_MOMENT_STEPS = 200
_GRID = LogSNR(last=SCHEDULE.steps / 1000)
_BIAS = 0.03  # of the standard deviation or variance, left by so many steps


@dataclass(frozen=True)
class Finding:
    """One check: what was claimed, what was measured, and whether it holds."""

    check: str
    claimed: str
    measured: str
    holds: bool


def conformance(sampler: Sampler) -> Iterator[Finding]:
    """Every check that applies to `sampler`, in turn. Takes about a minute at most."""
    checks = [order, noise_order, one_image, law, finiteness, batches, memory, evaluations]
    with torch.no_grad():
        for check in checks:
            try:
                finding = check(sampler)
            except Exception as error:  # a fault of the sampler under test, whatever it is
                name = type(error).__name__
                finding = Finding(check.__name__.replace("_", " "), "", f"{name}: {error}", False)
            if finding is not None:
                yield finding


def order(sampler: Sampler) -> Finding | None:
    """The order of a deterministic sampler against the exact flow of a mixture."""
    claimed = sampler.global_order
    if sampler.stochastic or claimed is None:
        return None
    observed = observed_order(sampler)
    return _order_finding("order of convergence", claimed, observed)


Place = Callable[[int], Sequence[Node]]


def observed_order(sampler: Sampler, place: Place | None = None) -> float:
    """The slope of log(error) over log(h) on a grid whose nodes are among those of finer ones.

    `place(n)` gives n intervals between noisy nodes, and the clean end; by default even in log-SNR.
    """
    place = place or log_snr_path
    errors = [_flow_error(sampler, place, intervals) for intervals in INTERVALS]
    return _slope(INTERVALS, errors)


def _flow_error(sampler: Sampler, place: Place, intervals: int) -> float:
    path = place(intervals)
    exact = _exact_states(place)[:: INTERVALS[-1] // intervals]
    start = intervals // 4 if sampler.history is None else sampler.history
    model = Bound(plane_mixture(SCHEDULE), None)
    past = [model(x, node) for x, node in zip(exact[:start], path[:start], strict=True)]
    *_, last, _ = integrate(model, sampler, path[start:], exact[start], _no_noise, past)
    return (last.x - exact[-1]).square().mean().sqrt().item()


@lru_cache(maxsize=4)
def _exact_states(place: Place) -> list[Tensor]:
    return exact_flow(plane_mixture(SCHEDULE), place(INTERVALS[-1])[:-1], _normal(32, 2))


def noise_order(sampler: Sampler) -> Finding | None:
    """The order of a stochastic sampler along one Brownian path, in one dimension."""
    claimed = sampler.global_order
    if not sampler.stochastic or claimed is None:
        return None
    finest = _along_brownian_path(sampler, _FINEST)
    errors = [
        (_along_brownian_path(sampler, intervals) - finest).square().mean().sqrt().item()
        for intervals in _STOCHASTIC_INTERVALS
    ]
    observed = _slope(_STOCHASTIC_INTERVALS, errors)
    return _order_finding("order along one Brownian path", claimed, observed)


def _along_brownian_path(sampler: Sampler, intervals: int) -> Tensor:
    """The end of paths whose noise is the increments of one Brownian motion in log-SNR."""
    fine = _normal(_FINEST, 256, 1, seed=1)
    together = _FINEST // intervals
    increments = fine.reshape(intervals, together, 256, 1).sum(1) / math.sqrt(together)
    draws = iter(increments)
    path = log_snr_path(intervals)[:-1]
    model = Bound(line_mixture(SCHEDULE), None)
    *_, end = integrate(model, sampler, path, _normal(256, 1), lambda: next(draws))
    return end.x


def one_image(sampler: Sampler) -> Finding | None:
    """The law of x at the last noisy node where the data are one image."""
    if not sampler.exact_for_one_image:
        return None
    image = torch.tensor([0.9, -0.4, 0.1, -1.0], dtype=torch.float64)
    path, noise = nodes(Trailing(), SCHEDULE, 10), _normal(_COUNT, 4)
    first = path[0].alpha * image + path[0].sigma * noise
    states = _run(SingleImage(SCHEDULE, image), sampler, path, first)
    last = states[-2]
    implied = (last.x - last.node.alpha * image) / last.node.sigma
    if not sampler.stochastic:
        error = (implied - noise).abs().max().item()
        return Finding("a single image", "error below 1e-10", f"{error:.1e}", error < 1e-10)
    mean, variance = implied.mean().item(), implied.var().item()
    errors = (mean * implied.numel() ** 0.5, (variance - 1) * (implied.numel() / 2) ** 0.5)
    return Finding(
        "a single image",
        "mean and variance within 4 standard errors",
        f"{errors[0]:+.1f} and {errors[1]:+.1f}",
        max(map(abs, errors)) < 4,
    )


def law(sampler: Sampler) -> Finding:
    """Mean and covariance at the last noisy node where the data are a mixture."""
    steps = next(n for n in range(_MOMENT_STEPS, 0, -1) if n <= 2 or _affordable(sampler, n))
    oracle, path = plane_mixture(SCHEDULE), log_snr_path(steps - 1)
    data = _draw(oracle, _COUNT)
    first = path[0].alpha * data + path[0].sigma * _normal(_COUNT, 2, seed=2)
    last = _run(oracle, sampler, path, first)[-2]
    mean, covariance = _moments(oracle, last.node)
    # In units in which the truth has mean 0 and covariance 1.
    whitener = torch.linalg.inv(torch.linalg.cholesky(covariance))
    white = (last.x - mean) @ whitener.T
    off_mean = white.mean(0).abs().max().item()
    off_covariance = (white.T.cov() - torch.eye(2)).abs().max().item()
    allowed = (4 / _COUNT**0.5 + _BIAS, 4 * (2 / _COUNT) ** 0.5 + _BIAS)
    return Finding(
        f"mean and covariance of a mixture, {steps} steps",
        f"off by less than {allowed[0]:.3f} and {allowed[1]:.3f}",
        f"{off_mean:.3f} and {off_covariance:.3f}",
        off_mean < allowed[0] and off_covariance < allowed[1],
    )


def _affordable(sampler: Sampler, steps: int) -> bool:
    evaluations = sampler.evaluations(steps)
    if evaluations is None:
        return steps <= _MOMENT_STEPS // 10
    return evaluations <= _MOST_EVALUATIONS


def finiteness(sampler: Sampler) -> Finding:
    """Finite results, of float32, on every schedule, every grid and any number of steps."""
    failures = []
    for schedule in (LinearBeta(), Cosine()):
        for name, grid in GRIDS.items():
            for steps in (1, 2, 3, 10):
                x = _normal(2, 2).float()
                states = _run(plane_mixture(schedule), sampler, nodes(grid, schedule, steps), x)
                if not all(state.x.isfinite().all() for state in states):
                    failures.append(f"{schedule.name} {name} {steps}")
    measured = "all" if not failures else "not " + ", ".join(failures)
    return Finding("finite on every schedule and grid", "all", measured, not failures)


def batches(sampler: Sampler) -> Finding:
    """A sample does not depend on the others of its batch."""
    path, x, noise = nodes(Trailing(), SCHEDULE, 7), _normal(8, 2), _normal(2000, 8, 2, seed=3)
    oracle = plane_mixture(SCHEDULE)
    together = _run(oracle, sampler, path, x, noise)[-1].x
    alone = [
        _run(oracle, sampler, path, x[row : row + 1], noise[:, row : row + 1])[-1].x
        for row in range(len(x))
    ]
    difference = (torch.cat(alone) - together).abs().max().item()
    return Finding("alone as in a batch", "to 1e-10", f"{difference:.1e}", difference < 1e-10)


def memory(sampler: Sampler) -> Finding:
    """Nothing is remembered from another run, even one interleaved with it."""
    path, x, noise = nodes(Trailing(), SCHEDULE, 7), _normal(8, 2), _normal(2000, 8, 2, seed=3)
    model = Bound(plane_mixture(SCHEDULE), None)

    def start(x: Tensor) -> Iterator[Estimate]:
        draws = iter(noise)
        return integrate(model, sampler, path, x, lambda: next(draws))

    alone = [state.x for state in start(x)]
    pairs = list(zip(start(x), start(-x), strict=True))
    same = all(torch.equal(a, b.x) for a, (b, _) in zip(alone, pairs, strict=True))
    return Finding("no memory between runs", "equal", "equal" if same else "different", same)


def evaluations(sampler: Sampler) -> Finding:
    """As many evaluations as declared."""
    wrong, counts = False, []
    for steps in (1, 2, 5, 10):
        with count_evaluations() as counter:
            path = nodes(Trailing(), SCHEDULE, steps)
            _run(plane_mixture(SCHEDULE), sampler, path, _normal(4, 2))
        counted, declared = counter.total() / 4, sampler.evaluations(steps)
        wrong |= declared is not None and counted != declared
        right = declared in (None, counted)
        counts.append(f"{counted:g}" if right else f"{counted:g}, not {declared}")
    return Finding("evaluations at 1, 2, 5, 10 steps", "as declared", "; ".join(counts), not wrong)


def log_snr_path(intervals: int) -> Sequence[Node]:
    """Intervals even in log-SNR, between the noise levels of the steps 1000 and 1 of 1000."""
    return nodes(_GRID, SCHEDULE, intervals + 1)


def _run(
    denoiser: Denoiser,
    sampler: Sampler,
    path: Sequence[Node],
    x: Tensor,
    noise: Tensor | None = None,
) -> list[Estimate]:
    generator = torch.Generator().manual_seed(105)

    def draw() -> Tensor:
        return torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)

    draws = draw if noise is None else iter(noise).__next__
    return list(integrate(Bound(denoiser, None), sampler, path, x, draws))


def _moments(oracle: Mixture, node: Node) -> tuple[Tensor, Tensor]:
    """Mean (d,) and covariance (d, d) of x at a node."""
    mean = oracle.weights @ oracle.means
    centred = oracle.means - mean
    covariance = centred.T @ (oracle.weights[:, None] * centred)
    identity = torch.eye(len(mean), dtype=torch.float64)
    covariance = covariance + (oracle.weights @ oracle.deviations**2) * identity
    return node.alpha * mean, node.alpha**2 * covariance + node.sigma**2 * identity


def _draw(oracle: Mixture, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    component = torch.multinomial(oracle.weights, count, replacement=True, generator=generator)
    noise = _normal(count, oracle.means.shape[1], seed=4)
    return oracle.means[component] + oracle.deviations[component, None] * noise


def _normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(100 + seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _no_noise() -> Tensor:
    raise ValueError("a sampler that says it is not stochastic has drawn noise")


def _slope(intervals: Sequence[int], errors: Sequence[float]) -> float:
    """The least-squares slope of -log(error) over log(intervals)."""
    h = torch.tensor(intervals, dtype=torch.float64).log()
    e = torch.tensor(errors, dtype=torch.float64).log()
    return -((h - h.mean()) * (e - e.mean())).sum().item() / (h - h.mean()).square().sum().item()


def _order_finding(check: str, claimed: int, observed: float) -> Finding:
    return Finding(check, f"{claimed}", f"{observed:.2f}", observed >= claimed - TOLERANCE)
