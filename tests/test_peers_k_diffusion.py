"""The sampling functions of k-diffusion give the same images, in float64 to rounding.

Theirs step y = x / alpha through the levels r = sigma / alpha, with a denoiser (y, r) -> x0. The
denoiser here is the exact one of a mixture.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import draws, normal, run
from noise_free import PAST, by, observed_order
from peers import import_k_diffusion
from underone.conformance.oracles import plane_mixture
from underone.data import to_uint8
from underone.diffusion import (
    DDIM,
    DEIS,
    Bound,
    Clipped,
    DPMSolver,
    Estimate,
    Euler,
    Heun,
    LinearBeta,
    Node,
    Sampler,
    integrate,
    nodes,
)
from underone.diffusion.grid import Grid, Karras, LogSNR, Trailing, Uniform
from underone.zoo import load_model

SCHEDULE = LinearBeta()
ORACLE = plane_mixture(SCHEDULE)
MODEL = Bound(ORACLE, None)
TOLERANCE = 1e-9

States = list[Tensor]
Denoise = Callable[[Tensor, Tensor], Tensor]
Churned = type[Euler] | type[Heun]

each_grid = pytest.mark.parametrize("grid", [Trailing(), Uniform(), Karras(), LogSNR()], ids=repr)
each_count = pytest.mark.parametrize("steps", [2, 5, 12, 30])


@pytest.fixture(scope="module")
def sampling() -> Any:
    return import_k_diffusion("sampling")


@dataclass(frozen=True)
class Peer:
    """One of our samplers, and their function that should equal it."""

    sampler: Sampler
    function: str
    options: dict[str, Any] = field(default_factory=dict)


PEERS = {
    "euler": Peer(Euler(), "sample_euler"),
    "heun": Peer(Heun(), "sample_heun"),
    "ancestral-0": Peer(DDIM(0.0), "sample_euler_ancestral", {"eta": 0}),
    "ancestral-0.5": Peer(DDIM(0.5), "sample_euler_ancestral", {"eta": 0.5}),
    "ancestral-1": Peer(DDIM(1.0), "sample_euler_ancestral"),
    "2m": Peer(DPMSolver(2), "sample_dpmpp_2m"),
    "2m-sde-0": Peer(DPMSolver(2), "sample_dpmpp_2m_sde", {"eta": 0}),
    "2m-sde-0.5": Peer(DPMSolver(2, eta=0.5), "sample_dpmpp_2m_sde", {"eta": 0.5}),
    "2m-sde-1": Peer(DPMSolver(2, eta=1), "sample_dpmpp_2m_sde", {"solver_type": "midpoint"}),
}


CHURNED: dict[str, Churned] = {"sample_euler": Euler, "sample_heun": Heun}


def theirs(
    function: Callable[..., Tensor],
    path: Sequence[Node],
    x: Tensor,
    denoise: Denoise | None = None,
    **options: Any,
) -> States:
    """y at every evaluation, and the result."""
    ys: States = []
    ratios = torch.stack([node.noise_ratio for node in path])
    y = function(
        denoise or denoised,
        x / path[0].alpha,
        ratios,
        callback=lambda state: ys.append(state["x"].clone()),
        disable=True,
        **options,
    )
    return [*ys, y]


def denoised(y: Tensor, ratio: Tensor) -> Tensor:
    """x0 of x = alpha y, with the variance-preserving alpha of that level."""
    node = MODEL.node(-ratio[0].log())
    return MODEL(node.alpha * y, node).x0


def ours(sampler: Sampler, path: Sequence[Node], x: Tensor, noise: Callable[[], Tensor]) -> States:
    """The same of ours: an estimate knows the level it was made at, churned or not."""
    return [state.x / state.node.alpha for state in run(ORACLE, sampler, path, x, noise)]


def assert_equal(mine: States, peers: States) -> None:
    assert len(mine) == len(peers)
    for a, b in zip(mine, peers, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=TOLERANCE)


def assert_different(mine: Tensor, peer: Tensor) -> None:
    """Where a peer is known to differ, as long as it does."""
    assert (mine - peer).abs().max() > 100 * TOLERANCE


@pytest.mark.parametrize("peer", PEERS.values(), ids=PEERS.keys())
@each_grid
@each_count
def test_every_state_is_theirs(sampling: Any, peer: Peer, grid: Grid, steps: int) -> None:
    path, x = nodes(grid, SCHEDULE, steps), normal(16, 2)
    options = dict(peer.options)
    if "ancestral" in peer.function or "sde" in peer.function:
        noise = draws(16, 2)
        options["noise_sampler"] = lambda *_: noise()
    peers = theirs(getattr(sampling, peer.function), path, x, **options)
    assert_equal(ours(peer.sampler, path, x, draws(16, 2)), peers)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@each_grid
@each_count
def test_lms_is_deis_in_sigma_over_alpha(sampling: Any, order: int, grid: Grid, steps: int) -> None:
    path, x = nodes(grid, SCHEDULE, steps), normal(16, 2)
    mine = ours(DEIS(order, "ratio"), path, x, draws(16, 2))
    peers = theirs(sampling.sample_lms, path, x, None, order=order)
    if order > 1:  # they go to sigma = 0 with the whole order, where we take x0, an Euler step
        assert_different(mine.pop(), peers.pop())
    assert_equal(mine, peers)


@pytest.mark.parametrize(("name", "churned"), CHURNED.items(), ids=CHURNED.keys())
@pytest.mark.parametrize("churn", [0.3, 20.0])
def test_churned_states_are_theirs(
    monkeypatch: pytest.MonkeyPatch, sampling: Any, name: str, churned: Churned, churn: float
) -> None:
    # Below step 1000, since theirs would raise the noise above what the model knows.
    path, x, noise = nodes(Uniform(), SCHEDULE, 10), normal(16, 2), draws(16, 2)
    monkeypatch.setattr(torch, "randn_like", lambda _: noise())
    peers = theirs(getattr(sampling, name), path, x, None, s_churn=churn, s_noise=1.01)
    assert_equal(ours(churned(churn, churn_noise=1.01), path, x, draws(16, 2)), peers)


@pytest.mark.parametrize(("name", "churned"), CHURNED.items(), ids=CHURNED.keys())
def test_the_levels_that_are_churned_are_theirs(
    monkeypatch: pytest.MonkeyPatch, sampling: Any, name: str, churned: Churned
) -> None:
    path, x, noise = nodes(Karras(), SCHEDULE, 12), normal(16, 2), normal(16, 2, seed=2)
    # They draw at every level, we at the churned ones: with one noise for all it is the same.
    monkeypatch.setattr(torch, "randn_like", lambda _: noise)
    options = {"s_churn": 3.0, "s_tmin": 0.05, "s_tmax": 50.0}
    peers = theirs(getattr(sampling, name), path, x, None, **options)
    sampler = churned(3.0, churn_min=0.05, churn_max=50.0)
    assert_equal(ours(sampler, path, x, lambda: noise), peers)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@each_grid
def test_the_third_order_of_3m_is_theirs(sampling: Any, eta: float, grid: Grid) -> None:
    """Between the second step and the last but one.

    Their second step is exact for a linear x0, where ours is their own 2M, and their last step
    but one is of order 3, where ours is of order 2.
    """
    path, x, noise, ours_too = nodes(grid, SCHEDULE, 12), normal(16, 2), draws(16, 2), draws(16, 2)
    options: dict[str, Any] = {"eta": eta, "noise_sampler": lambda *_: noise()}
    peers = theirs(sampling.sample_dpmpp_3m_sde, path, x, **options)
    sampler = DPMSolver(3, eta=eta)
    mine = ours(sampler, path[:3], x, ours_too)
    assert_different(mine.pop(), peers[2])
    assert_equal(mine, peers[:2])
    # From there on, with their past.
    xs = [node.alpha * y for node, y in zip(path, peers, strict=True)]
    past = [MODEL(x, node) for x, node in zip(xs[:2], path, strict=False)]
    resumed = integrate(MODEL, sampler, path[2:], xs[2], ours_too, past)
    mine = [state.x / state.node.alpha for state in resumed]
    assert_equal(mine[:-2], peers[2:-2])
    assert_different(mine[-2], peers[-2])


@pytest.mark.parametrize("name", ["euler", "heun", "2m", "2m-sde-1"])
def test_the_shipped_model_gives_the_same_pixels(sampling: Any, name: str) -> None:
    peer, model = PEERS[name], load_model("fashion-mnist")
    path = nodes(Trailing(), SCHEDULE, 12)
    x, bound = normal(10, *model.shape).float(), Bound(Clipped(model.denoiser()), torch.arange(10))

    def denoise(y: Tensor, ratio: Tensor) -> Tensor:
        node = bound.node(-ratio[0].double().log())
        return bound((node.alpha * y).float(), node).x0

    noise, ours_too = draws(*x.shape, dtype=x.dtype), draws(*x.shape, dtype=x.dtype)
    drawn = {"noise_sampler": lambda *_: noise()} if peer.sampler.stochastic else {}
    with torch.no_grad():
        *_, peers = theirs(
            getattr(sampling, peer.function), path, x, denoise, **peer.options, **drawn
        )
        *_, last = integrate(bound, peer.sampler, path, x, ours_too)
    mine, theirs_too = to_uint8(last.x).int(), to_uint8(peers).int()
    assert ((mine - theirs_too).abs() <= 1).double().mean() >= 0.999
    assert mine.float().std() > 50  # images, not an empty canvas


@pytest.mark.parametrize(("name", "grid"), [("karras", Karras()), ("exponential", LogSNR())])
def test_their_grids_are_ours(sampling: Any, name: str, grid: Grid) -> None:
    ratios = torch.stack([node.noise_ratio for node in nodes(grid, SCHEDULE, 12)])
    get_sigmas = getattr(sampling, f"get_sigmas_{name}")
    sigmas = get_sigmas(12, ratios[-2].item(), ratios[0].item())
    torch.testing.assert_close(sigmas.double(), ratios, rtol=1e-5, atol=0)  # theirs is float32


# What follows are faults of theirs, and ours beside them.


def test_their_3m_sde_has_order_2(sampling: Any) -> None:
    """The coefficient of the second difference is half of what Taylor's expansion asks for."""

    def solve(path: Sequence[Node], start: Sequence[Estimate]) -> Tensor:
        indices = itertools.count()

        def denoise(y: Tensor, ratio: Tensor) -> Tensor:
            index = next(indices)
            if index <= PAST:  # what they are given of the past is exact, and so is their start
                y.copy_(start[index].x / start[index].node.alpha)
            return MODEL(path[index].alpha * y, path[index]).x0

        function, x = sampling.sample_dpmpp_3m_sde, start[0].x
        ys = theirs(function, path, x, denoise, noise_sampler=lambda *_: torch.zeros(()))
        return path[-1].alpha * ys[-1]

    order = observed_order(solve)
    assert order == pytest.approx(2, abs=0.3)
    assert order == pytest.approx(observed_order(by(DPMSolver(3, eta=1))), abs=1e-3)
    assert observed_order(by(DPMSolver(3, eta=1, exact=True))) == pytest.approx(3, abs=0.2)


@pytest.mark.parametrize("function", ["sample_dpmpp_2m_sde", "sample_dpmpp_3m_sde"])
def test_their_sde_solvers_cannot_make_one_step(sampling: Any, function: str) -> None:
    path, x = nodes(Trailing(), SCHEDULE, 1), normal(16, 2)
    with pytest.raises(UnboundLocalError):
        theirs(getattr(sampling, function), path, x, noise_sampler=lambda *_: x)
    assert run(ORACLE, DPMSolver(2, eta=1), path, x, draws(16, 2))[-1].x.isfinite().all()
