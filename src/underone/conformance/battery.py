"""What every sampler is put through, and what it claims compared with what it does.

All denoisers are exact (see `oracles`), so that whatever is wrong is the sampler's. Orders are
measured to the last noisy node, from exact estimates at the nodes before the start, without
clipping: the lack of a past is the same for all samplers, and the end at sigma = 0 has a check of
its own.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

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
    Geometric,
    Grid,
    LinearBeta,
    LogSNR,
    Node,
    Sampler,
    Schedule,
    Straight,
    Trailing,
    count_evaluations,
    integrate,
    no_noise,
    node_at,
    nodes,
)

# The betas of the DDPM paper in a hundred times as many steps: between whole steps log alpha^2 is
# linear, and at 1000 steps those kinks can be seen in fourth orders.
SCHEDULE = LinearBeta(steps=100_000, beta_min=1e-6, beta_max=2e-4)
# The same levels of sigma / alpha, of data that keep their size and of data that shrink as noise
# grows: what holds of one schedule must hold of all.
FRAMEWORKS: tuple[Schedule, ...] = (
    SCHEDULE,
    Geometric(sigma_min=0.01, sigma_max=150.0, steps=1000),
    Straight(),
)
TOLERANCE = 0.2  # of an observed order
INTERVALS = (128, 256, 512)  # of the grid, each dividing the last
_STOCHASTIC_INTERVALS, _FINEST = (64, 128, 256), 2048
_COUNT = 10_000  # samples, where moments are estimated
_MOST_EVALUATIONS = 1000  # a sample, there
_MOMENT_STEPS = 200
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
    checks = [
        order,
        noise_order,
        one_image,
        clean_end,
        law,
        other_laws,
        finiteness,
        batches,
        memory,
        evaluations,
    ]
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
    """The order of a deterministic sampler against the exact flow of a mixture.

    On steps even in log-SNR, and on steps that grow: weights that are right for equal steps alone
    are found out there.
    """
    claimed = sampler.global_order
    if sampler.stochastic or claimed is None:
        return None
    observed = [observed_order(sampler, place) for place in (log_snr_path, uneven_path)]
    return _order_finding("order of convergence, even and uneven", claimed, *observed)


Place = Callable[[int], Sequence[Node]]


def observed_order(sampler: Sampler, place: Place) -> float:
    """The slope of log(error) over log(h) on a grid whose nodes are among those of finer ones.

    `place(n)` gives n intervals between noisy nodes, and the clean end.
    """
    errors = [_flow_error(sampler, place, intervals) for intervals in INTERVALS]
    return _slope(INTERVALS, errors)


def _flow_error(sampler: Sampler, place: Place, intervals: int) -> float:
    path = place(intervals)
    exact = _exact_states(place)[:: INTERVALS[-1] // intervals]
    start = intervals // 4 if sampler.history is None else sampler.history
    model = Bound(plane_mixture(SCHEDULE), None)
    past = [model(x, node) for x, node in zip(exact[:start], path[:start], strict=True)]
    *_, last, _ = integrate(model, sampler, path[start:], exact[start], no_noise, past)
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
    """The end of paths whose noise is the increments of Brownian motions in log-SNR."""
    model, path = Bound(line_mixture(SCHEDULE), None), log_snr_path(intervals)[:-1]
    noise = _BrownianNoise(intervals)
    states = integrate(model, sampler, path, _normal(256, 1), noise)
    for index in range(intervals):
        noise.begin(index)
        next(states)
    return next(states).x


class _BrownianNoise:
    """The k-th draw of a step is from the k-th motion, over that step's own part of the path."""

    def __init__(self, intervals: int) -> None:
        self._intervals = intervals
        self._index = self._drawn = 0

    def begin(self, index: int) -> None:
        """The next draws are of that step."""
        self._index, self._drawn = index, 0

    def __call__(self) -> Tensor:
        self._drawn += 1
        return _increments(self._drawn, self._intervals)[self._index]


@lru_cache(maxsize=16)
def _increments(motion: int, intervals: int) -> Tensor:
    """(intervals, 256, 1), each of variance 1: sums of the same fine increments."""
    fine = _normal(_FINEST, 256, 1, seed=10 + motion)
    together = _FINEST // intervals
    return fine.reshape(intervals, together, 256, 1).sum(1) / math.sqrt(together)


def one_image(sampler: Sampler) -> Finding | None:
    """The law of x at the last noisy node where the data are one image."""
    if not sampler.exact_for_one_image:
        return None
    noise = _normal(_COUNT, 4)
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
    last = _run(SingleImage(schedule, image), sampler, path, first)[-2]
    return (last.x - last.node.alpha * image) / last.node.sigma


def clean_end(sampler: Sampler) -> Finding:
    """No noise is left at sigma = 0: where the data are one image, the result is that image."""
    image = torch.tensor([0.9, -0.4, 0.1, -1.0], dtype=torch.float64)
    worst = 0.0
    for schedule, grid, steps in _all_grids():
        path = nodes(grid, schedule, steps)
        x = path[0].alpha * image + path[0].sigma * _normal(4, 4)
        result = _run(SingleImage(schedule, image), sampler, path, x)[-1].x
        worst = max(worst, (result - image).abs().max().item())
    return Finding("the end is clean", "to 1e-5", f"{worst:.1e}", worst < 1e-5)


def law(sampler: Sampler) -> Finding:
    """Mean and covariance at the last noisy node and at the end, where the data are a mixture."""
    return _law_finding("of a mixture", sampler, FRAMEWORKS[:1], _COUNT)


def other_laws(sampler: Sampler) -> Finding:
    """The same where alpha is 1, and on the straight path; of fewer samples."""
    return _law_finding("under other schedules", sampler, FRAMEWORKS[1:], _COUNT // 4)


def _law_finding(
    where: str, sampler: Sampler, schedules: Sequence[Schedule], count: int
) -> Finding:
    steps = next(n for n in range(_MOMENT_STEPS, 0, -1) if n <= 2 or _affordable(sampler, n))
    errors = [off for schedule in schedules for off in _law_of(sampler, schedule, steps, count)]
    allowed = (4 / count**0.5 + _BIAS, 4 * (2 / count) ** 0.5 + _BIAS)
    off = tuple(max(pair) for pair in zip(*errors, strict=True))
    return Finding(
        f"mean and covariance {where}, {steps} steps",
        f"off by less than {allowed[0]:.3f} and {allowed[1]:.3f}",
        f"{off[0]:.3f} and {off[1]:.3f}",
        all(found < most for found, most in zip(off, allowed, strict=True)),
    )


def _law_of(
    sampler: Sampler, schedule: Schedule, steps: int, count: int
) -> list[tuple[float, float]]:
    """How far off the law is at the last noisy node and at the end."""
    oracle, path = plane_mixture(schedule), nodes(_even(schedule), schedule, steps)
    data = _draw(oracle, count)
    first = path[0].alpha * data + path[0].sigma * _normal(count, 2, seed=2)
    *_, last, end = _run(oracle, sampler, path, first)
    return [_off(oracle, state) for state in (last, end)]


def _off(oracle: Mixture, state: Estimate) -> tuple[float, float]:
    """How far off are mean and covariance, in units where the truth has mean 0, covariance 1."""
    mean, covariance = _moments(oracle, state.node)
    whitener = torch.linalg.inv(torch.linalg.cholesky(covariance))
    white = (state.x - mean) @ whitener.T
    off_covariance = (white.T.cov() - torch.eye(2)).abs().max()
    return white.mean(0).abs().max().item(), off_covariance.item()


def _affordable(sampler: Sampler, steps: int) -> bool:
    evaluations = sampler.evaluations(steps)
    if evaluations is None:
        return steps <= _MOMENT_STEPS // 10
    return evaluations <= _MOST_EVALUATIONS


def finiteness(sampler: Sampler) -> Finding:
    """Finite results, of float32, on every schedule, every grid and any number of steps."""
    failures = []
    for schedule, grid, steps in _all_grids():
        path = nodes(grid, schedule, steps)
        x = (path[0].sigma * _normal(2, 2)).float()
        states = _run(plane_mixture(schedule), sampler, path, x)
        if not all(s.x.dtype == x.dtype and s.x.isfinite().all() for s in states):
            failures.append(f"{type(schedule).__name__} {type(grid).__name__} {steps}")
    measured = "all" if not failures else "not " + ", ".join(failures)
    return Finding("finite on every schedule and grid", "all", measured, not failures)


def _all_grids() -> Iterator[tuple[Schedule, Grid, int]]:
    schedules = (LinearBeta(), Cosine(), Geometric(), Straight())
    return product(schedules, GRIDS.values(), (1, 2, 3, 10))


def batches(sampler: Sampler) -> Finding:
    """A sample does not depend on the others of its batch."""
    path, x, oracle = nodes(Trailing(), SCHEDULE, 7), _normal(8, 2), plane_mixture(SCHEDULE)
    together = _run(oracle, sampler, path, x, _draws(slice(None)))[-1].x
    alone = [
        _run(oracle, sampler, path, x[row : row + 1], _draws(slice(row, row + 1)))[-1].x
        for row in range(len(x))
    ]
    difference = (torch.cat(alone) - together).abs().max().item()
    return Finding("alone as in a batch", "to 1e-10", f"{difference:.1e}", difference < 1e-10)


def memory(sampler: Sampler) -> Finding:
    """Nothing is remembered from another run, even one interleaved with it."""
    path, x = nodes(Trailing(), SCHEDULE, 7), _normal(8, 2)
    model = Bound(plane_mixture(SCHEDULE), None)

    def start(x: Tensor) -> Iterator[Estimate]:
        return integrate(model, sampler, path, x, _draws(slice(None)))

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
    return nodes(_even(SCHEDULE), SCHEDULE, intervals + 1)


def _even(schedule: Schedule) -> Grid:
    return LogSNR(last=schedule.steps / 1000)


def uneven_path(intervals: int) -> Sequence[Node]:
    """Between the same levels, from intervals 1.3 times the mean to ones 0.7 times."""
    even = torch.linspace(0, 1, intervals + 1, dtype=torch.float64)
    first, *_, last, clean = log_snr_path(1)
    bent = even + 0.3 * even * (1 - even)
    levels = torch.lerp(first.log_snr, last.log_snr, bent)
    times = SCHEDULE.time(levels).clamp(last.t, first.t)
    return [*(node_at(SCHEDULE, t) for t in times), clean]


def _run(
    denoiser: Denoiser,
    sampler: Sampler,
    path: Sequence[Node],
    x: Tensor,
    noise: Callable[[], Tensor] | None = None,
) -> list[Estimate]:
    draw = noise or _endless(x.shape, seed=5)
    return list(integrate(Bound(denoiser, None), sampler, path, x, lambda: draw().to(x)))


def _draws(rows: slice) -> Callable[[], Tensor]:
    """Noise for some rows of one batch of 8."""
    draw = _endless((8, 2), seed=3)
    return lambda: draw()[rows]


def _endless(shape: Sequence[int], seed: int) -> Callable[[], Tensor]:
    generator = torch.Generator().manual_seed(100 + seed)
    return lambda: torch.randn(*shape, generator=generator, dtype=torch.float64)


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


def _slope(intervals: Sequence[int], errors: Sequence[float]) -> float:
    """The least-squares slope of -log(error) over log(intervals)."""
    h = torch.tensor(intervals, dtype=torch.float64).log()
    e = torch.tensor(errors, dtype=torch.float64).log()
    return -((h - h.mean()) * (e - e.mean())).sum().item() / (h - h.mean()).square().sum().item()


def _order_finding(check: str, claimed: int, *observed: float) -> Finding:
    return Finding(
        check,
        f"{claimed}",
        ", ".join(f"{order:.2f}" for order in observed),
        min(observed) >= claimed - TOLERANCE,
    )
