"""The way from an image to its noise and back: exact where it can be, convergent elsewhere."""

import pytest
import torch

from helpers import draws, each_grid, each_schedule, float64, normal, run
from underone.conformance.oracles import GaussianData, plane_mixture
from underone.diffusion import (
    DDIM,
    DDPM,
    RK45,
    Bound,
    DPMSolver,
    Grid,
    LinearBeta,
    LogSNR,
    Node,
    Sampler,
    Schedule,
    Step,
    Trailing,
    UniPC,
    nodes,
)
from underone.diffusion.inversion import decode, encode, with_first_step
from underone.diffusion.node import Estimate
from underone.errors import UserError

SCHEDULE = LinearBeta()
GAUSSIAN = GaussianData(SCHEDULE, mean=0.3, deviation=0.5)


def path_of(steps: int) -> list[Node]:
    return with_first_step(nodes(LogSNR(), SCHEDULE, steps), SCHEDULE)


def encoding_error(sampler: Sampler, steps: int) -> float:
    """Against the flow of a Gaussian, which keeps every x at its number of standard deviations."""
    path, x0 = path_of(steps), float64([[-0.9], [0.1], [0.7]])
    first, last = path[-2], path[0]
    standard = first.alpha * (x0 - GAUSSIAN.mean) / GAUSSIAN.variance(first).sqrt()
    exact = last.alpha * GAUSSIAN.mean + GAUSSIAN.variance(last).sqrt() * standard
    found = encode(Bound(GAUSSIAN, None), sampler, path, x0)
    return (found - exact).abs().max().item()


@pytest.mark.parametrize(("sampler", "order"), [(DDIM(), 1), (DPMSolver(2), 2), (UniPC(2), 3)])
def test_the_noise_of_gaussian_data_is_found_with_the_order_of_the_sampler(
    sampler: Sampler, order: int
) -> None:
    errors = [encoding_error(sampler, steps) for steps in (100, 200)]
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.25)


@pytest.mark.parametrize(("sampler", "order"), [(DDIM(), 1), (DPMSolver(2), 3)])
def test_a_round_trip_converges_and_errors_of_even_order_cancel(
    sampler: Sampler, order: int
) -> None:
    model, x0 = plane_mixture(SCHEDULE), 0.5 * normal(20, 2)
    errors = []
    for steps in (100, 200):
        path = path_of(steps)
        noisy = encode(Bound(model, None), sampler, path, x0)
        # The last step, to sigma = 0, removes what noise the model sees in x: no error of the way.
        back = run(model, sampler, path, noisy, draws(20, 2))[-2]
        assert back.node is path[-2]
        errors.append((back.x / back.node.alpha - x0).square().mean().sqrt().item())
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.25)
    assert errors[1] < 0.02


def test_an_adaptive_solver_returns_to_its_tolerance() -> None:
    path, x0 = path_of(2), 0.5 * normal(20, 2)
    model = Bound(plane_mixture(SCHEDULE), None)
    sampler = RK45(relative=1e-8, absolute=1e-8)
    there = encode(model, sampler, path, x0)
    back = decode(model, sampler, path, there)
    expected = model(path[-2].alpha * x0, path[-2]).x0  # what the last step makes of x
    assert (back - expected).abs().max() < 1e-5


def test_decoding_is_sampling() -> None:
    path, x = path_of(7), normal(5, 2)
    model = plane_mixture(SCHEDULE)
    sampled = run(model, DPMSolver(2), path, x, lambda: x)[-1].x
    assert torch.equal(decode(Bound(model, None), DPMSolver(2), path, x), sampled)


@each_grid
@each_schedule
@pytest.mark.parametrize("steps", [1, 2, 20])
def test_every_path_has_a_clean_node_for_the_image_and_no_node_twice(
    grid: Grid, schedule: Schedule, steps: int
) -> None:
    path = with_first_step(nodes(grid, schedule, steps), schedule)
    times = torch.stack([node.t for node in path])
    assert (times.diff() < -1e-5).all()
    assert times[-2] <= 1 / schedule.steps + 1e-9
    assert times[-1] == 0
    assert len(path) - (steps + 1) in (0, 1)


def test_a_grid_that_goes_further_is_left_as_it_is() -> None:
    path = nodes(LogSNR(last=0.5), SCHEDULE, 10)
    assert with_first_step(path, SCHEDULE) == path
    added = with_first_step(nodes(Trailing(), SCHEDULE, 10), SCHEDULE)
    assert [round(node.t.item() * 1000) for node in added[-3:]] == [100, 1, 0]


def test_samplers_that_draw_noise_are_refused() -> None:
    class Liar(DDIM):
        def step(self, x: torch.Tensor, at: Step) -> tuple[torch.Tensor, Estimate]:
            return at.noise(), at.evaluate(x)

    model, path = Bound(GAUSSIAN, None), path_of(3)
    for call in (encode, decode):
        with pytest.raises(UserError, match="cannot be run backwards"):
            call(model, DDPM("small"), path, torch.zeros(1, 1))
        with pytest.raises(ValueError, match="has drawn noise"):
            call(model, Liar(), path, torch.zeros(1, 1))
