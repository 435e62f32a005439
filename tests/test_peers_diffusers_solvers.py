"""The solvers of diffusers ask the same network the same questions, and give the same images.

Their grids in whole steps are taken as they are, except for tests of the grids themselves.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    SASolverScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor, nn

from helpers import AsNetwork, draws, normal, run
from noise_free import MODEL, by, observed_order
from test_peers_diffusers import PREDICTIONS, SCHEDULES, States, assert_equal, smooth_network
from underone.conformance.oracles import SingleImage
from underone.data import to_uint8
from underone.diffusion import (
    DDIM,
    DEIS,
    GRIDS,
    Clipped,
    Denoiser,
    DPMSolver,
    Estimate,
    Euler,
    Heun,
    LinearBeta,
    NetworkDenoiser,
    Node,
    Noise,
    Sampler,
    SASolver,
    UniPC,
    nodes,
)
from underone.diffusion.grid import Explicit, Karras, Linspace, LogSNR, Trailing, Uniform
from underone.diffusion.schedule import DiscreteSchedule
from underone.zoo import load_model

# Theirs to settle with numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")


@dataclass(frozen=True)
class Peer:
    """One of our samplers, and their scheduler that should equal it."""

    sampler: Sampler
    scheduler: type[Any]
    options: dict[str, Any] = field(default_factory=dict)

    def make(self, **options: Any) -> Any:
        betas = {"beta_start": 1e-4, "beta_end": 0.02}
        return self.scheduler(**betas, **self.options, **options)


def dpm(order: int, eta: int = 0) -> Peer:
    algorithm = "sde-dpmsolver++" if eta else "dpmsolver++"
    options = {"solver_order": order, "algorithm_type": algorithm, "solver_type": "midpoint"}
    return Peer(DPMSolver(order, eta), DPMSolverMultistepScheduler, options)


def unipc_bh1(order: int) -> Peer:
    """Their bh1 is not a number at sigma = 0, see below, so it stops at their last sigma."""
    options = {"solver_order": order, "solver_type": "bh1", "final_sigmas_type": "sigma_min"}
    return Peer(UniPC(order, "bh1"), UniPCMultistepScheduler, options)


def unipc_bh2(order: int) -> Peer:
    return Peer(UniPC(order, "bh2"), UniPCMultistepScheduler, {"solver_order": order})


def deis(order: int) -> Peer:
    """Theirs stops at the sigma of k = 1, with full order if told so, as ours does there."""
    options = {"solver_order": order, "lower_order_final": False}
    return Peer(DEIS(order, "log-ratio"), DEISMultistepScheduler, options)


def sa_solver() -> Peer:
    """Of first order: their second-order weights differ from ours beyond the leading order."""
    options = {"predictor_order": 1, "corrector_order": 1, "tau_func": lambda index: 1}
    return Peer(SASolver(1, 1), SASolverScheduler, options)


PEERS = {
    "dpm-solver++-1": dpm(1),
    "dpm-solver++-2": dpm(2),
    "dpm-solver++-3": dpm(3),
    "sde-dpm-solver++-1": dpm(1, eta=1),
    "sde-dpm-solver++-2": dpm(2, eta=1),
    "sa-solver-1-1": sa_solver(),
    "unipc-1-bh1": unipc_bh1(1),
    "unipc-2-bh1": unipc_bh1(2),
    "unipc-3-bh1": unipc_bh1(3),
    "unipc-1-bh2": unipc_bh2(1),
    "unipc-2-bh2": unipc_bh2(2),
    "unipc-3-bh2": unipc_bh2(3),
    "deis-1": deis(1),
    "deis-2": deis(2),
    "deis-3": deis(3),
    "euler": Peer(Euler(), EulerDiscreteScheduler),
    "euler-ancestral": Peer(DDIM(1.0), EulerAncestralDiscreteScheduler),
    "heun": Peer(Heun(), HeunDiscreteScheduler),
}
TOLERANCE = 3e-5  # the largest difference found is 6e-6
each_peer = pytest.mark.parametrize("peer", PEERS.values(), ids=PEERS.keys())

# With numbers of steps for which all of them use whole steps, on both sides of their limit of 15.
each_case = pytest.mark.parametrize(
    ("spacing", "steps", "prediction"),
    [
        ("trailing", 10, "epsilon"),
        ("trailing", 20, "v_prediction"),
        ("leading", 10, "v_prediction"),
        ("leading", 25, "epsilon"),
        ("linspace", 10, "epsilon"),
        ("linspace", 28, "v_prediction"),
    ],
)


class Questioned(nn.Module):
    """A network that remembers every state and every step it was asked about."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.states: States = []
        self.steps: list[float] = []

    def forward(self, x: Tensor, condition: Tensor, label: Tensor | None) -> Tensor:
        self.states.append(x)
        self.steps.append(condition[0].item())
        return self.network(x, condition, label)


def theirs(
    scheduler: Any, network: nn.Module, x: Tensor, label: Tensor | None = None, **options: Any
) -> tuple[States, list[float]]:
    """The states they ask about, with the result, and the steps; from index k - 1 to step k."""
    questioned = Questioned(network)
    # Some step x / alpha, and scale it back for the network. The others start at deviation 1.
    ratios = scheduler.init_noise_sigma != 1
    state = x * (1 + scheduler.sigmas[0] ** 2).sqrt() if ratios else x
    with torch.no_grad():
        for index in scheduler.timesteps:
            asked = scheduler.scale_model_input(state, index)
            output = questioned(asked, (index + 1).expand(len(x)).float(), label)
            state = scheduler.step(output, index, state, **options).prev_sample
    return [*questioned.states, state], questioned.steps


def ours(
    denoiser: Denoiser,
    sampler: Sampler,
    path: Sequence[Node],
    x: Tensor,
    label: Tensor | None = None,
) -> Tensor:
    return run(denoiser, sampler, path, x, noise_like(x), label)[-1].x


def noise_like(x: Tensor) -> Callable[[], Tensor]:
    return draws(*x.shape, seed=1, dtype=x.dtype)


def prepared(
    peer: Peer, schedule: DiscreteSchedule, steps: int, **options: Any
) -> tuple[Any, list[Node]]:
    """Their scheduler, and our path along its steps."""
    scheduler = peer.make(**options)
    scheduler.set_timesteps(steps)
    path = path_of(scheduler, schedule)
    if peer == deis(3):
        # Its coefficients are differences of nearly equal numbers. Computed from their own sigmas,
        # of float32, they are what moves 20 steps by 3e-5 and 50 by 5e-4.
        scheduler.sigmas = torch.stack([node.noise_ratio for node in path])
    return scheduler, path


def path_of(scheduler: Any, schedule: DiscreteSchedule) -> list[Node]:
    """Our nodes at their steps, to where they end: sigma = 0, or that of step 1."""
    indices = dict.fromkeys(scheduler.timesteps.tolist())  # Heun's are listed twice
    steps = tuple(index + 1.0 for index in indices)
    if scheduler.sigmas[-1] == 0:
        return nodes(Explicit(steps), schedule, len(steps))
    return nodes(Explicit((*steps, 1.0)), schedule, len(steps) + 1)[:-1]


def with_our_noise(patch: pytest.MonkeyPatch, scheduler: Any, x: Tensor) -> None:
    """Theirs draw their own noise, if any, through this function."""
    noise = noise_like(x)
    patch.setattr(f"{scheduler.__module__}.randn_tensor", lambda *_, **__: noise(), raising=False)


def without_high_final_order(peer: Peer, steps: int, mine: States, peers: States) -> None:
    """Leaves out the two states in which the peer is known to differ, if they still do.

    Their `lower_order_final` lowers the order of the last step but one below 15 steps only.
    """
    if peer.sampler == DPMSolver(3) and steps >= 15:
        for _ in range(2):
            assert (peers.pop() - mine.pop()).abs().max() > 1e-3


@each_peer
@each_case
def test_in_float32_the_network_is_asked_the_same_and_the_results_agree(
    monkeypatch: pytest.MonkeyPatch, peer: Peer, spacing: str, steps: int, prediction: str
) -> None:
    schedule, meaning, x = LinearBeta(), PREDICTIONS[prediction], normal(4, 1, 8, 8).float()
    network = smooth_network(schedule, meaning, torch.float32)
    options = {"timestep_spacing": spacing, "prediction_type": prediction}
    scheduler, path = prepared(peer, schedule, steps, **options)
    with_our_noise(monkeypatch, scheduler, x)
    peers, their_steps = theirs(scheduler, network, x)
    questioned = Questioned(network)
    denoiser = NetworkDenoiser(questioned, schedule, meaning)
    result = ours(denoiser, peer.sampler, path, x)
    mine = [*questioned.states, result]
    assert questioned.steps == their_steps
    without_high_final_order(peer, steps, mine, peers)
    assert_equal(mine, peers, TOLERANCE)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_deis_of_order_3_agrees_to_rounding_in_float64(prediction: str) -> None:
    schedule, meaning, x = LinearBeta(), PREDICTIONS[prediction], normal(4, 1, 8, 8)
    network, peer = smooth_network(schedule, meaning, torch.float64), deis(3)
    options = {"timestep_spacing": "trailing", "prediction_type": prediction}
    scheduler, path = prepared(peer, schedule, 50, **options)
    peers, _ = theirs(scheduler, network, x)
    mine = ours(NetworkDenoiser(network, schedule, meaning), peer.sampler, path, x)
    assert_equal([mine], peers[-1:], 1e-10)


@pytest.mark.parametrize(
    "peer", [dpm(2), dpm(2, eta=1), unipc_bh2(3), deis(3)], ids=lambda peer: repr(peer.sampler)
)
def test_on_the_cosine_schedule_results_agree(monkeypatch: pytest.MonkeyPatch, peer: Peer) -> None:
    schedule, meaning = SCHEDULES["squaredcos_cap_v2"], PREDICTIONS["v_prediction"]
    x = normal(4, 1, 8, 8).float()
    network = smooth_network(schedule, meaning, torch.float32)
    # Leading: at step 1000 alpha is 5e-5, where their float32 has no digits left.
    options = {"timestep_spacing": "leading", "prediction_type": "v_prediction"}
    scheduler, path = prepared(peer, schedule, 12, beta_schedule="squaredcos_cap_v2", **options)
    with_our_noise(monkeypatch, scheduler, x)
    peers, _ = theirs(scheduler, network, x)
    mine = ours(NetworkDenoiser(network, schedule, meaning), peer.sampler, path, x)
    assert_equal([mine], peers[-1:], TOLERANCE)


@pytest.mark.parametrize(
    "name", ["dpm-solver++-2", "sde-dpm-solver++-2", "unipc-3-bh2", "heun", "deis-3"]
)
def test_the_shipped_model_gives_the_same_pixels(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    peer, model, label = PEERS[name], load_model("fashion-mnist"), torch.arange(10)
    x = normal(10, *model.shape).float()
    # What clips x0 to [-1, 1]: their threshold is at most 1.
    clip = {"clip_sample": True} if name == "heun" else {"thresholding": True}
    scheduler, path = prepared(peer, LinearBeta(), 12, timestep_spacing="trailing", **clip)
    with_our_noise(monkeypatch, scheduler, x)
    peers, _ = theirs(scheduler, model.network, x, label)
    mine = to_uint8(ours(Clipped(model.denoiser()), peer.sampler, path, x, label))
    difference = (mine.int() - to_uint8(peers[-1]).int()).abs()
    assert (difference <= 1).double().mean() >= 0.999
    assert mine.float().std() > 50  # images, not an empty canvas


def whole_steps(times: Tensor) -> list[float]:
    return (1000 * times).round().tolist()


def their_steps(scheduler: Any, steps: int) -> list[float]:
    """From index k - 1, doubled for Heun, to step k."""
    scheduler.set_timesteps(steps)
    return [index + 1.0 for index in dict.fromkeys(scheduler.timesteps.tolist())]


DIVISORS = [steps for steps in range(2, 1001) if 1000 % steps == 0]
MULTISTEP = [DPMSolverMultistepScheduler, UniPCMultistepScheduler, DEISMultistepScheduler]
SINGLE_STEP = [EulerDiscreteScheduler, EulerAncestralDiscreteScheduler, HeunDiscreteScheduler]
each_multistep = pytest.mark.parametrize("scheduler", MULTISTEP)
each_single_step = pytest.mark.parametrize("scheduler", SINGLE_STEP)


@each_multistep
def test_their_multistep_grids_lack_the_cleanest_step(scheduler: type[Any]) -> None:
    """It is the end of their last step, unless that is at sigma = 0, or the grid is "trailing"."""
    for steps in DIVISORS:
        trailing = their_steps(scheduler(timestep_spacing="trailing"), steps)
        assert trailing == whole_steps(Trailing()(LinearBeta(), steps))
        leading = their_steps(scheduler(timestep_spacing="leading"), steps - 1)
        assert leading == whole_steps(Uniform()(LinearBeta(), steps))[:-1]
    for steps in (2, 10, 12, 28, 50):  # odd ones have a tie to round
        linspace = their_steps(scheduler(timestep_spacing="linspace"), steps - 1)
        assert linspace == whole_steps(Linspace()(LinearBeta(), steps))[:-1]


@each_single_step
def test_their_single_step_grids_are_ours(scheduler: type[Any]) -> None:
    for steps in DIVISORS:
        trailing = their_steps(scheduler(timestep_spacing="trailing"), steps)
        assert trailing == whole_steps(Trailing()(LinearBeta(), steps))
        leading = their_steps(scheduler(timestep_spacing="leading"), steps)
        assert leading == whole_steps(Uniform()(LinearBeta(), steps))
    for steps in (2, 4, 10, 28, 38, 112):  # in others theirs are not whole
        linspace = their_steps(scheduler(timestep_spacing="linspace"), steps)
        assert linspace == pytest.approx(whole_steps(Linspace()(LinearBeta(), steps)), abs=1e-3)


@pytest.mark.parametrize(
    ("option", "grid"),
    [
        ("use_karras_sigmas", Karras()),
        ("use_exponential_sigmas", LogSNR()),
        ("use_lu_lambdas", LogSNR()),
    ],
)
def test_their_continuous_grids_have_our_noise_levels(option: str, grid: Karras | LogSNR) -> None:
    # The noise levels only: the time they tell the network is rounded to whole steps.
    scheduler: Any = DPMSolverMultistepScheduler(**{option: True})
    scheduler.set_timesteps(12)
    ratios = torch.stack([node.noise_ratio for node in nodes(grid, LinearBeta(), 12)])
    # The sigma of step 1 is 3e-4 off in their float32.
    torch.testing.assert_close(scheduler.sigmas.double(), ratios, rtol=1e-3, atol=0)


# What follows are faults of theirs, and ours beside them.


@pytest.mark.parametrize(
    "scheduler", [DDIMScheduler, *MULTISTEP, *SINGLE_STEP], ids=lambda class_: class_.__name__
)
def test_their_trailing_grid_may_have_a_step_too_many_below_the_clean_end(
    scheduler: type[Any],
) -> None:
    """`arange` with a fractional step may pass its end: of 1 to 1000 steps at 62, 61 the first."""
    assert len(their_steps(scheduler(timestep_spacing="trailing"), 61)) == 62
    assert their_steps(scheduler(timestep_spacing="trailing"), 61)[-1] == 0
    times = GRIDS["trailing"](LinearBeta(), 61)
    assert len(times) == 61
    assert times[-1] > 0


@pytest.mark.parametrize("order", [1, 2, 3])
def test_their_unipc_bh1_is_not_a_number_at_the_clean_end(order: int) -> None:
    """h = infinity, times a sum over no differences, 0."""
    schedule, x = LinearBeta(), normal(4, 1, 8, 8).float()
    network = smooth_network(schedule, PREDICTIONS["epsilon"], torch.float32)
    scheduler: Any = UniPCMultistepScheduler(solver_order=order, solver_type="bh1")
    scheduler.set_timesteps(10)
    assert theirs(scheduler, network, x)[0][-1].isnan().all()
    denoiser = NetworkDenoiser(network, schedule, PREDICTIONS["epsilon"])
    assert ours(denoiser, UniPC(order, "bh1"), path_of(scheduler, schedule), x).isfinite().all()


def test_their_euler_adds_the_noise_of_churn_after_the_network_was_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So the noise it predicts is not that of the state stepped from.

    Where the data are one image, the noise of x must keep its variance of 1.
    """
    schedule, image = LinearBeta(), torch.full((1, 8, 8), 0.5)
    oracle, x = SingleImage(schedule, image), normal(64, 1, 8, 8).float()
    scheduler: Any = EulerDiscreteScheduler(timestep_spacing="leading")
    scheduler.set_timesteps(10)
    path = path_of(scheduler, schedule)
    x = path[0].alpha * image + path[0].sigma * x
    *_, last, _ = run(oracle, Euler(churn=4), path, x, noise_like(x))
    assert last.noise.var() == pytest.approx(1, abs=0.1)
    with_our_noise(monkeypatch, scheduler, x)
    peers, _ = theirs(scheduler, AsNetwork(oracle, Noise()), x, s_churn=4.0)
    their_last = Estimate(path[-2], peers[-2], image)
    assert their_last.noise.var() > 2


def their_third_order_sde(path: Sequence[Node], start: Sequence[Estimate]) -> Tensor:
    """Their update itself, since their `step` rounds to float32."""
    scheduler: Any = dpm(3, eta=1).make()
    scheduler.sigmas = torch.stack([node.noise_ratio for node in path])
    *known, here = start
    x, x0s = here.x, [estimate.x0 for estimate in known]
    for index in range(len(known), len(path) - 1):
        x0s = [*x0s[-2:], MODEL(x, path[index]).x0]
        scheduler._step_index = index
        x = scheduler.multistep_dpm_solver_third_order_update(
            x0s, sample=x, noise=torch.zeros_like(x)
        )
    return x


@pytest.mark.slow
def test_their_sde_solver_of_order_3_has_order_1() -> None:
    """A sign: the coefficient of the second difference has -1/2 where it should have +1/2.

    So it is left out of the comparisons above.
    """
    assert observed_order(their_third_order_sde) == pytest.approx(1, abs=0.2)
    assert observed_order(by(DPMSolver(3, eta=1))) == pytest.approx(2, abs=0.3)
    assert observed_order(by(DPMSolver(3, eta=1, exact=True))) == pytest.approx(3, abs=0.2)
