"""What tuning changes: the sampler that parameters make, where they start, and their gradients."""

import itertools
import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from helpers import draws, each_schedule, normal, run
from underone.conformance.oracles import SingleImage, plane_mixture
from underone.diffusion import (
    DDIM,
    Bound,
    DPMSolver,
    LinearBeta,
    LogSNR,
    Node,
    Sampler,
    SASolver,
    Schedule,
    Tuned,
    UniPC,
    integrate,
    node_at,
    nodes,
)
from underone.tuning.parameters import Parameters
from underone.tuning.placement import jump_errors, shortest_path
from underone.tuning.reading import weights_of


@each_schedule
def test_without_noise_memory_or_shift_it_is_ddim(schedule: Schedule) -> None:
    path = nodes(LogSNR(last=20, first=900), schedule, 6)
    plain = Tuned(torch.zeros(5, dtype=torch.float64), *_first_order(6))
    x = normal(7, 2)
    denoiser = plane_mixture(schedule)
    mine = run(denoiser, plain, path, x, draws(7, 2))
    other = run(denoiser, DDIM(), path, x, draws(7, 2))
    for a, b in zip(mine, other, strict=True):
        torch.testing.assert_close(a.x, b.x, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(a.x0, b.x0, rtol=1e-9, atol=1e-9)


def _first_order(steps: int) -> tuple[Tensor, Tensor]:
    weights = torch.zeros(steps, 3, dtype=torch.float64)
    weights[:, 0] = 1
    return weights, torch.zeros(steps, dtype=torch.float64)


@each_schedule
@pytest.mark.parametrize("steps", [1, 2, 3, 7])
@pytest.mark.parametrize(
    ("solver", "eta"),
    [
        (DPMSolver(1), 0.01),
        (DPMSolver(2, eta=0.5), 0.5),
        (SASolver(), 1.0),
        (SASolver(eta=0.5), 0.5),
        (SASolver(3, 0, eta=0.25), 0.25),
    ],
)
def test_it_starts_as_a_classical_solver_on_the_steps_it_was_given(
    schedule: Schedule, steps: int, solver: Sampler, eta: float
) -> None:
    path = nodes(LogSNR(first=900, last=20), schedule, steps)
    start = Parameters.of_solver(solver, eta, path[:-1], schedule)
    for placed, given in zip(start.path(schedule), path, strict=True):
        torch.testing.assert_close(placed.t, given.t)
    if solver == DPMSolver(1):
        return  # which has no noise; of what is learned a little has a gradient
    x, denoiser = normal(7, 2), plane_mixture(schedule)
    mine = run(denoiser, start.sampler(), start.path(schedule), x, draws(7, 2))
    theirs = run(denoiser, solver, path, x, draws(7, 2))
    torch.testing.assert_close(mine[-1].x, theirs[-1].x, rtol=1e-6, atol=1e-8)


@each_schedule
def test_the_weights_of_a_solver_without_noise_are_read_too(schedule: Schedule) -> None:
    path = nodes(LogSNR(first=900, last=20), schedule, 6)
    x, denoiser = normal(7, 2), plane_mixture(schedule)
    for solver in (DPMSolver(3), UniPC(2)):
        read = weights_of(solver, 0.0, path, schedule)
        assert torch.equal(read, read.tril())
        torch.testing.assert_close(read.sum(dim=1), torch.ones(6, dtype=torch.float64))
        newest_first = torch.stack([row.roll(5 - i).flip(0) for i, row in enumerate(read)])
        same = Tuned(torch.zeros(5).double(), newest_first, torch.zeros(6).double())
        mine = run(denoiser, same, path, x, draws(7, 2))
        theirs = run(denoiser, solver, path, x, draws(7, 2))
        torch.testing.assert_close(mine[-1].x, theirs[-1].x, rtol=1e-6, atol=1e-8)


def test_where_it_starts_at_the_end_of_time_the_first_node_has_room_to_move() -> None:
    schedule = LinearBeta()
    path = nodes(LogSNR(last=20), schedule, 4)
    start = Parameters.of_solver(UniPC(2), 0.0, path[:-1], schedule)
    begin, end = (node_at(schedule, torch.tensor(t)).log_snr.item() for t in (1.0, 0.001))
    placed = start.path(schedule)[0].log_snr.item()
    assert 0.005 < (placed - begin) / (end - begin) < 0.01
    assert start.roots.min() == 0.1


@each_schedule
def test_what_was_learned_spreads_over_other_numbers_of_steps(schedule: Schedule) -> None:
    path = nodes(LogSNR(first=800, last=20), schedule, 5)[:-1]
    generator = torch.Generator().manual_seed(0)
    classical = Parameters.of_solver(SASolver(), 1.0, path, schedule).sampler()
    sampler = replace(
        classical,
        etas=torch.rand(4, generator=generator).double(),
        shifts=torch.rand(5, generator=generator).double(),
    )
    learned = Parameters.learned(path, sampler, schedule)
    for back in (learned, learned.spread(5)):
        for node, given in zip(back.path(schedule)[:-1], path, strict=True):
            torch.testing.assert_close(node.t, given.t)
        for mine, its in zip(vars(back.sampler()).values(), vars(sampler).values(), strict=True):
            torch.testing.assert_close(mine, its)
    for steps in (2, 4, 6, 9):
        spread = learned.spread(steps)
        placed = spread.path(schedule)[:-1]
        torch.testing.assert_close(placed[0].t, path[0].t)
        torch.testing.assert_close(placed[-1].t, path[-1].t)
        gaps = torch.stack([node.log_snr for node in placed]).diff()
        torch.testing.assert_close(gaps, gaps.mean().expand(steps - 1))
        assert spread.sampler().steps == steps
        assert sampler.etas.min() <= spread.sampler().etas.min()
        assert spread.shifts[0] == sampler.shifts[0]
        assert spread.shifts[-1] == sampler.shifts[-1]
        # Steps within are second order where all were, and at either end first order as those.
        weights = spread.sampler().weights
        assert torch.equal(weights[0], sampler.weights[0])
        assert torch.equal(weights[-1], sampler.weights[-1])
        assert (weights[1:-1, 1] < -0.5).all()


@dataclass(frozen=True)
class Listening:
    """A denoiser that remembers what it was told."""

    schedule: Schedule
    told: list[tuple[Tensor, Node]]

    def __call__(self, x: Tensor, node: Node, label: Tensor | None) -> Tensor:
        self.told.append((x, node))
        return torch.zeros_like(x)


def test_a_shift_changes_what_the_network_is_told_and_nothing_else() -> None:
    denoiser = Listening(LinearBeta(), [])
    path = nodes(LogSNR(last=20, first=900), denoiser.schedule, 2)
    weights, shifts = _first_order(2)
    sampler = Tuned(torch.zeros(1, dtype=torch.float64), weights, shifts + 0.25)
    x = normal(3, 2)
    run(denoiser, sampler, path, x, draws(3, 2))
    (seen, node), _ = denoiser.told
    assert node.log_snr.item() == pytest.approx(path[0].log_snr.item() + 0.25)
    # x / alpha, of which noise is a part of sigma / alpha, stays as it is.
    torch.testing.assert_close(seen / node.alpha, x / path[0].alpha)


def test_gradients_reach_every_number_and_agree_with_differences() -> None:
    schedule = LinearBeta()
    # It begins below T, where the noise that it begins with depends on the first node; and between
    # whole steps, where the schedule has kinks, and which side of one a node is on is rounding.
    grid = LogSNR(first=500.5, last=20.5)
    path = nodes(grid, schedule, 4)[:-1]
    start = Parameters.of_solver(DPMSolver(2, eta=0.5), 0.5, path, schedule)
    bound = Bound(plane_mixture(schedule), None)
    z = 0.3 * normal(5, 2)

    def loss(*tensors: Tensor) -> Tensor:
        parameters = Parameters(*tensors)
        path = parameters.path(schedule)
        *_, last = integrate(bound, parameters.sampler(), path, path[0].sigma * z, draws(5, 2))
        return last.x.square().sum()

    leaves = [tensor.clone().requires_grad_() for tensor in start.tensors()]
    # Off the kinks of the schedule and of the first steps, which have no earlier estimates.
    with torch.no_grad():
        leaves[3] += 0.05
        leaves[3][0] = 0.02
    loss(*leaves).backward()
    for which, leaf in enumerate(leaves):
        flat = leaf.grad.flatten() if leaf.grad is not None else torch.zeros(leaf.numel())
        for index in range(leaf.numel()):
            ends = []
            for change in (1e-5, -1e-5):
                moved = [other.detach().clone() for other in leaves]
                moved[which].flatten()[index] += change
                ends.append(loss(*moved).item())
            difference = (ends[0] - ends[1]) / 2e-5
            assert flat[index].item() == pytest.approx(difference, rel=2e-3, abs=2e-4)


# Placement.


@pytest.mark.parametrize("growth", [1.0, 1.15])
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 6])
def test_the_shortest_path_is_the_best_of_all(steps: int, growth: float) -> None:
    states = 7
    errors = torch.full((states, states), math.inf, dtype=torch.float64)
    upper = torch.triu_indices(states, states, 1)
    errors[upper[0], upper[1]] = normal(len(upper[0]), seed=steps).abs()

    def cost(path: tuple[int, ...]) -> float:
        return sum(
            growth**index * errors[a, b].item()
            for index, (a, b) in enumerate(itertools.pairwise(path))
        )

    every = [
        (0, *between, states - 1)
        for between in itertools.combinations(range(1, states - 1), steps - 1)
    ]
    assert tuple(shortest_path(errors, steps, growth)) == min(every, key=cost)


def test_more_jumps_than_states_are_refused() -> None:
    for steps in (0, 4):
        with pytest.raises(ValueError, match="3 jumps at most"):
            shortest_path(torch.ones(4, 4), steps)


def test_jumps_along_a_straight_flow_have_no_error_and_along_a_bent_one_grow() -> None:
    schedule = LinearBeta()
    path = nodes(LogSNR(last=5), schedule, 12)
    x = path[0].sigma * normal(50, 2)
    straight = run(SingleImage(schedule, normal(2)), DDIM(), path, x, draws(50, 2))
    errors = jump_errors(straight)
    assert errors[errors.isfinite()].max() < 1e-12
    bent = jump_errors(run(plane_mixture(schedule), DDIM(), path, x, draws(50, 2)))
    assert bent[0, 1] < 1e-12  # the jump that was made
    assert (bent.triu(2)[2] > 0).sum() == len(path) - 4
    assert bent[2, -1] > bent[9, -1] > 0
