import math

import pytest
import torch
from torch import Tensor

from helpers import SmoothNetwork, float64, normal
from underone.conformance.oracles import GaussianData
from underone.diffusion import (
    Autoguidance,
    ClassifierFree,
    Cosine,
    LinearBeta,
    NetworkDenoiser,
    Node,
    Velocity,
    count_evaluations,
    node_at,
)
from underone.errors import UserError

SCHEDULE = LinearBeta()
HALF = node_at(SCHEDULE, float64(0.5))
ROWS = node_at(SCHEDULE, float64([1, 200, 700, 1000]) / 1000)
LABEL = torch.tensor([0, 2, 1, 1])


def smooth(name: str = "model", seed: int = 0) -> NetworkDenoiser:
    return NetworkDenoiser(SmoothNetwork(seed).double(), SCHEDULE, Velocity(), name=name)


@torch.no_grad()
@pytest.mark.parametrize("label", [LABEL, None])
@pytest.mark.parametrize(("weight", "name", "seed"), [(0, "main", 0), (-1, "weak", 1)])
def test_weights_0_and_minus_1_are_bitwise_one_model_alone(
    weight: float, name: str, seed: int, label: Tensor | None
) -> None:
    x = normal(4, 1, 8, 8)
    with count_evaluations() as evaluations:
        guided = Autoguidance(smooth("main"), smooth("weak", 1), weight)(x, HALF, label)
    assert evaluations == {name: 4}
    assert torch.equal(guided, smooth(seed=seed)(x, HALF, label))


@torch.no_grad()
@pytest.mark.parametrize("weight", [-1.5, -0.5, 1.0, 4.0])
@pytest.mark.parametrize("node", [HALF, ROWS], ids=["one node", "a node a row"])
@pytest.mark.parametrize("label", [LABEL, None])
def test_the_weak_model_is_extrapolated_through_the_main_one(
    weight: float, node: Node, label: Tensor | None
) -> None:
    x = normal(4, 1, 8, 8)
    with count_evaluations() as evaluations:
        guided = Autoguidance(smooth("main"), smooth("weak", 1), weight)(x, node, label)
    assert evaluations == {"main": 4, "weak": 4}
    main, weak = smooth()(x, node, label), smooth(seed=1)(x, node, label)
    assert (main - weak).abs().max() > 1e-2
    scale = 1 + weight
    torch.testing.assert_close(guided, weak + scale * (main - weak), rtol=0, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("weight", [-0.5, 1.0, 7.5])
def test_a_model_guided_by_itself_is_itself(weight: float) -> None:
    x = normal(4, 1, 8, 8)
    guided = Autoguidance(smooth(), smooth(), weight)(x, HALF, LABEL)
    torch.testing.assert_close(guided, smooth()(x, HALF, LABEL), rtol=0, atol=1e-12)


@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_an_error_that_the_weak_model_makes_larger_is_undone(weight: float) -> None:
    """Errors e and (1 + 1/w) e: (1 + w) e - w (1 + 1/w) e = 0."""
    error = 0.1
    main = GaussianData(SCHEDULE, mean=error, deviation=0.5)
    weak = GaussianData(SCHEDULE, mean=error * (1 + 1 / weight), deviation=0.5)
    true = GaussianData(SCHEDULE, mean=0, deviation=0.5)
    x = normal(4, 2)
    guided = Autoguidance(main, weak, weight)(x, HALF, None)
    torch.testing.assert_close(guided, true(x, HALF, None), rtol=0, atol=1e-12)


@torch.no_grad()
def test_autoguidance_combines_with_classifier_free_guidance() -> None:
    x = normal(4, 1, 8, 8)
    main = ClassifierFree(smooth("main"), 1, 3)
    with count_evaluations() as evaluations:
        guided = Autoguidance(main, smooth("weak", 1), 2)(x, HALF, LABEL)
    assert evaluations == {"main": 8, "weak": 4}
    null = torch.full_like(LABEL, 3)
    expected = 6 * smooth()(x, HALF, LABEL) - 3 * smooth()(x, HALF, null)
    expected -= 2 * smooth(seed=1)(x, HALF, LABEL)
    torch.testing.assert_close(guided, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("node", [HALF, ROWS], ids=["one node", "a node a row"])
def test_the_precision_of_x_is_kept(node: Node) -> None:
    main, weak = (GaussianData(SCHEDULE, mean=0.1, deviation=d) for d in (0.5, 0.7))
    denoiser, x = Autoguidance(main, weak, 2), normal(4, 2)
    guided = denoiser(x.float(), node, None)
    assert guided.dtype == torch.float32
    torch.testing.assert_close(guided.double(), denoiser(x, node, None), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weight", [math.nan, math.inf, -math.inf])
def test_a_weight_that_is_no_finite_number_is_refused(weight: float) -> None:
    with pytest.raises(UserError, match="must be a finite number"):
        Autoguidance(smooth(), smooth(), weight)


def test_models_of_different_schedules_are_refused() -> None:
    other = NetworkDenoiser(SmoothNetwork().double(), Cosine(), Velocity())
    with pytest.raises(UserError, match="the same noise schedule"):
        Autoguidance(smooth(), other, 1)


def test_equal_schedules_are_the_same_whatever_object_they_are() -> None:
    other = NetworkDenoiser(SmoothNetwork().double(), LinearBeta(), Velocity())
    assert Autoguidance(smooth(), other, 1).schedule is SCHEDULE
