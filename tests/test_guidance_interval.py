import math

import pytest
import torch
from torch import Tensor

from helpers import SmoothNetwork, each_schedule, float64, normal, run
from underone.conformance.oracles import plane_mixture
from underone.diffusion import (
    DDIM,
    Autoguidance,
    ClassifierFree,
    Cosine,
    Denoiser,
    Heun,
    Interval,
    LinearBeta,
    NetworkDenoiser,
    Schedule,
    Uniform,
    Velocity,
    count_evaluations,
    node_at,
    nodes,
)
from underone.errors import UserError

SCHEDULE = LinearBeta()
LABEL = torch.tensor([0, 2, 1, 1])
PATH = nodes(Uniform(), SCHEDULE, 10)
LEVELS = [node.noise_ratio.item() for node in PATH[:-1]]  # from noisy to clean


def smooth(name: str = "model", seed: int = 0) -> NetworkDenoiser:
    return NetworkDenoiser(SmoothNetwork(seed).double(), SCHEDULE, Velocity(), name=name)


def limited(
    low: float, high: float, weight: float = 2, *, guided: str = "model", plain: str = "model"
) -> Interval:
    return Interval(ClassifierFree(smooth(guided), weight, 3), smooth(plain), low, high)


@torch.no_grad()
@pytest.mark.parametrize("weight", [-1, 0, 3])
def test_an_interval_over_all_levels_is_bitwise_plain_guidance(weight: float) -> None:
    x = normal(4, 1, 8, 8)
    guided = ClassifierFree(smooth(), weight, 3)
    everywhere = limited(0, math.inf, weight)
    for node in (*PATH[:-1], node_at(SCHEDULE, float64([1, 200, 700, 900]) / 1000)):
        assert torch.equal(everywhere(x, node, LABEL), guided(x, node, LABEL))


@torch.no_grad()
def test_an_interval_that_no_level_meets_is_bitwise_the_conditional_model() -> None:
    x = normal(4, 1, 8, 8)
    nowhere = limited(LEVELS[0], math.inf, guided="guided")
    path_of_rows = node_at(SCHEDULE, float64([1, 200, 700, 900]) / 1000)
    for node in (*PATH, path_of_rows):
        with count_evaluations() as evaluations:
            estimate = nowhere(x, node, LABEL)
        assert evaluations == {"model": 4}
        assert torch.equal(estimate, smooth()(x, node, LABEL))


def test_the_interval_holds_its_upper_end_and_not_its_lower_one() -> None:
    denoiser = limited(LEVELS[7], LEVELS[4], guided="guided", plain="plain")
    asked = []
    for node in PATH[:-1]:
        with count_evaluations() as evaluations:
            denoiser(normal(1, 1, 8, 8), node, LABEL[:1])
        asked.append(dict(evaluations))
    assert asked == [{"plain": 1}] * 4 + [{"guided": 2}] * 3 + [{"plain": 1}] * 3


@pytest.mark.parametrize(("first", "last"), [(0, 0), (4, 7), (0, 5), (9, 9), (0, 9)])
def test_each_step_within_costs_one_evaluation_more(first: int, last: int) -> None:
    low = LEVELS[last + 1] if last < 9 else 0
    denoiser = limited(low, LEVELS[first])
    with count_evaluations() as evaluations:
        run(denoiser, DDIM(0.0), PATH, normal(4, 1, 8, 8), lambda: normal(4, 1, 8, 8), LABEL)
    assert evaluations == {"model": 4 * (10 + last - first + 1)}


@each_schedule
def test_rows_with_nodes_of_their_own_are_guided_only_within(schedule: Schedule) -> None:
    oracle = plane_mixture(schedule)
    node = node_at(schedule, float64([900, 100, 500, 1]) / 1000)
    levels, x = node.noise_ratio, normal(4, 2)
    low, high = levels[1].item(), levels[2].item()
    denoiser = Interval(ClassifierFree(oracle, 2, 3), oracle, low, high)
    with count_evaluations() as evaluations:
        together = denoiser(x, node, LABEL)
    assert evaluations == {"oracle": 4 + 1}  # the third row alone lies within
    guided, plain = ClassifierFree(oracle, 2, 3)(x, node, LABEL), oracle(x, node, LABEL)
    within = torch.tensor([[False], [False], [True], [False]])
    expected = torch.where(within, guided, plain)
    assert (guided - plain).abs().max() > 1e-3
    torch.testing.assert_close(together, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("label", [LABEL, None])
def test_rows_return_to_their_places_with_and_without_labels(label: Tensor | None) -> None:
    oracle = plane_mixture(SCHEDULE)
    node = node_at(SCHEDULE, float64([500, 1000, 400, 900]) / 1000)
    middle = node.noise_ratio.sort().values[1:3].mean().item()
    autoguided = Autoguidance(oracle, plane_mixture(SCHEDULE), 0)
    x = normal(4, 2)
    for denoiser in (
        Interval(autoguided, oracle, 0, middle),
        Interval(autoguided, oracle, middle, math.inf),
    ):
        torch.testing.assert_close(
            denoiser(x, node, label), oracle(x, node, label), rtol=0, atol=1e-12
        )


def test_autoguidance_can_be_limited_as_well() -> None:
    main, weak = smooth("main"), smooth("weak", seed=1)
    denoiser: Denoiser = Interval(Autoguidance(main, weak, 1), main, LEVELS[6], LEVELS[2])
    with count_evaluations() as evaluations:
        run(denoiser, DDIM(0.0), PATH, normal(2, 1, 8, 8), lambda: normal(2, 1, 8, 8), LABEL[:2])
    assert evaluations == {"main": 2 * 10, "weak": 2 * 4}


def test_inner_evaluations_of_a_solver_are_judged_by_their_own_level() -> None:
    """Heun's second evaluation of a step is at the next node, which may lie outside."""
    denoiser = limited(LEVELS[6], LEVELS[2])
    with count_evaluations() as evaluations:
        run(denoiser, Heun(), PATH, normal(1, 1, 8, 8), lambda: normal(1, 1, 8, 8), LABEL[:1])
    # Nodes 2 to 5 lie within; each is the start of one step and the end of another.
    assert evaluations == {"model": (2 * 10 - 1) + 2 * 4}


@torch.no_grad()
def test_the_precision_of_x_is_kept() -> None:
    oracle = plane_mixture(SCHEDULE)
    denoiser = Interval(ClassifierFree(oracle, 2, 3), oracle, 0.1, 2)
    for node in (PATH[5], node_at(SCHEDULE, float64([900, 100, 500, 1]) / 1000)):
        estimate = denoiser(normal(4, 2).float(), node, LABEL)
        assert estimate.dtype == torch.float32
        expected = denoiser(normal(4, 2), node, LABEL)
        torch.testing.assert_close(estimate.double(), expected, rtol=1e-4, atol=1e-4)


def test_an_estimate_of_mixed_rows_is_differentiable_in_x() -> None:
    oracle = plane_mixture(SCHEDULE)
    denoiser = Interval(ClassifierFree(oracle, 2, 3), oracle, 0.1, 2)
    node = node_at(SCHEDULE, float64([900, 100, 500, 1]) / 1000)
    x = normal(4, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: denoiser(x, node, LABEL), x)


@pytest.mark.parametrize(
    ("low", "high"), [(1, 1), (2, 1), (-1, 1), (math.nan, 1), (0, math.nan), (math.inf, math.inf)]
)
def test_an_interval_that_holds_nothing_is_refused(low: float, high: float) -> None:
    with pytest.raises(UserError, match="needs 0 <= low < high, got low"):
        limited(low, high)


def test_two_schedules_cannot_share_an_interval() -> None:
    with pytest.raises(UserError, match="the same noise schedule"):
        Interval(plane_mixture(SCHEDULE), plane_mixture(Cosine()), 0, 1)


def test_the_schedule_is_that_of_both() -> None:
    assert limited(0, 1).schedule is SCHEDULE
