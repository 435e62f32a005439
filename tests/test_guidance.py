import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import Normal

from helpers import (
    AsNetwork,
    SmoothNetwork,
    each_schedule,
    float64,
    normal,
)
from underone.conformance.oracles import plane_mixture
from underone.diffusion import (
    ClassifierFree,
    Clipped,
    Data,
    Denoiser,
    LinearBeta,
    NetworkDenoiser,
    Noise,
    Prediction,
    Schedule,
    Velocity,
    count_evaluations,
    node_at,
)

SCHEDULE = LinearBeta()
HALF = node_at(SCHEDULE, float64(0.5))
LABEL = torch.tensor([0, 2, 1, 1])
NULL = torch.full_like(LABEL, 3)


class Labelled(nn.Module):
    """x0 is one number a label."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.values = values
        self.seen: list[list[int]] = []

    def forward(self, x: Tensor, condition: Tensor, label: Tensor) -> Tensor:
        self.seen.append(label.tolist())
        return x.new_tensor(self.values)[label][:, None].expand_as(x)


def smooth(name: str = "model") -> NetworkDenoiser:
    return NetworkDenoiser(SmoothNetwork().double(), SCHEDULE, Velocity(), name=name)


@pytest.mark.parametrize(("weight", "label"), [(0, LABEL), (-1, NULL), (0.0, LABEL), (-1.0, NULL)])
def test_weights_0_and_minus_1_are_bitwise_the_model_itself(weight: float, label: Tensor) -> None:
    x = normal(4, 1, 8, 8)
    with torch.no_grad(), count_evaluations() as evaluations:
        guided = ClassifierFree(smooth("guided"), weight, null_label=3)(x, HALF, LABEL)
        alone = smooth("alone")(x, HALF, label)
    assert torch.equal(guided, alone)
    assert evaluations == {"guided": 4, "alone": 4}


@pytest.mark.parametrize("weight", [-1.5, -0.5, 1e-3, 1, 7.5])
def test_other_weights_cost_two_evaluations_an_image(weight: float) -> None:
    denoiser = ClassifierFree(smooth("guided"), weight, null_label=3)
    with torch.no_grad(), count_evaluations() as outer:
        denoiser(normal(4, 1, 8, 8), HALF, LABEL)
        with count_evaluations() as inner:
            denoiser(normal(3, 1, 8, 8), HALF, LABEL[:3])
    assert inner == {"guided": 6}
    assert outer == {"guided": 14}


def test_only_the_unconditional_model_does_without_labels() -> None:
    x = normal(4, 2)
    network = Labelled(1, 2, 3, 4)
    inner = NetworkDenoiser(network, SCHEDULE, Data())
    assert ClassifierFree(inner, -1, null_label=3)(x, HALF, None).unique().tolist() == [4]
    for weight in (0, 1):
        with pytest.raises(ValueError, match="needs labels"):
            ClassifierFree(inner, weight, null_label=3)(x, HALF, None)


def test_both_branches_share_one_batch_with_the_null_label_last() -> None:
    network = Labelled(1, 2, 3, 0)
    guided = ClassifierFree(NetworkDenoiser(network, SCHEDULE, Data()), 2, null_label=3)
    x0 = guided(normal(4, 2), HALF, LABEL)
    assert network.seen == [[0, 2, 1, 1, 3, 3, 3, 3]]
    assert x0[:, 0].tolist() == [3, 9, 6, 6]  # (1 + 2) times 1, 3, 2, 2


@pytest.mark.parametrize("prediction", [Noise(), Data(), Velocity()])
@pytest.mark.parametrize("step", [1, 500, 1000])
def test_mixing_x0_is_mixing_the_networks_own_output(prediction: Prediction, step: int) -> None:
    network = AsNetwork(smooth(), prediction)
    denoiser = NetworkDenoiser(network, SCHEDULE, prediction)
    node = node_at(SCHEDULE, float64(step / 1000))
    x, condition = normal(4, 1, 8, 8), torch.full((4,), float(step))
    with torch.no_grad():
        conditional = network(x, condition, LABEL)
        unconditional = network(x, condition, NULL)
        assert (conditional - unconditional).abs().max() > 1e-5
        for weight in (-0.5, 1.0, 6.0):
            output = (1 + weight) * conditional - weight * unconditional
            expected = prediction.to_x0(output, x, node)
            guided = ClassifierFree(denoiser, weight, null_label=3)(x, node, LABEL)
            torch.testing.assert_close(guided, expected, rtol=1e-9, atol=1e-9)


@each_schedule
@pytest.mark.parametrize("step", [20, 300, 900])
@pytest.mark.parametrize("weight", [-0.5, 0.0, 1.0, 4.0])
def test_guidance_climbs_the_log_probability_of_the_class(
    schedule: Schedule, step: int, weight: float
) -> None:
    """D(x, c) + w (sigma^2 / alpha) grad log p(c | x_t), in closed form by Bayes' rule."""
    oracle = plane_mixture(schedule)
    node = node_at(schedule, float64(step / 1000))
    label = torch.arange(12) % 3
    x = node.alpha * normal(12, 2, seed=1) + node.sigma * normal(12, 2)

    x.requires_grad_()
    deviation = (node.alpha**2 * oracle.deviations**2 + node.sigma**2).sqrt()
    law = Normal(node.alpha * oracle.means, deviation[:, None].expand_as(oracle.means))
    joint = oracle.weights.log() + law.log_prob(x[:, None]).sum(2)
    of_class = torch.where(oracle.classes == label[:, None], joint, -torch.inf)
    log_probability = of_class.logsumexp(1) - joint.logsumexp(1)
    (climb,) = torch.autograd.grad(log_probability.sum(), x)
    x = x.detach()

    expected = oracle(x, node, label) + weight * node.sigma**2 / node.alpha * climb
    guided = ClassifierFree(oracle, weight, oracle.null_label)(x, node, label)
    torch.testing.assert_close(guided, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("weight", [-1.0, 0.0, 2.0])
def test_every_row_may_have_its_own_node(weight: float) -> None:
    denoiser = ClassifierFree(plane_mixture(SCHEDULE), weight, null_label=3)
    times, x = float64([1, 200, 700, 1000]) / 1000, normal(4, 2)
    together = denoiser(x, node_at(SCHEDULE, times), LABEL)
    for row in range(4):
        one = slice(row, row + 1)
        alone = denoiser(x[one], node_at(SCHEDULE, times[row]), LABEL[one])
        torch.testing.assert_close(together[one], alone, rtol=0, atol=1e-12)


def test_clipping_comes_after_mixing() -> None:
    network = Labelled(1.2, -1.5, 0.5, 2.0)
    inner = NetworkDenoiser(network, SCHEDULE, Data())
    label, x = torch.tensor([0, 1, 2]), normal(3, 2)
    guided = Clipped(ClassifierFree(inner, 1, null_label=3))(x, HALF, label)[:, 0]
    # 2 * 1.2 - 2 = 0.4, 2 * -1.5 - 2 = -5, 2 * 0.5 - 2 = -1; clipping each branch would give 1.
    assert guided.tolist() == pytest.approx([0.4, -1, -1], abs=1e-12)
    each: Denoiser = ClassifierFree(Clipped(inner), 1, null_label=3)
    assert each(x, HALF, label)[0, 0].item() == 1


@settings(deadline=None, max_examples=30)
@given(st.floats(-3, 10))
def test_the_estimate_is_affine_in_the_weight(weight: float) -> None:
    x = normal(4, 2)
    oracle = plane_mixture(SCHEDULE)
    at_0, at_1, here = (
        ClassifierFree(oracle, w, null_label=3)(x, HALF, LABEL) for w in (0, 1, weight)
    )
    torch.testing.assert_close(here, at_0 + weight * (at_1 - at_0), rtol=1e-10, atol=1e-10)


def test_the_schedule_is_that_of_the_wrapped_denoiser() -> None:
    assert ClassifierFree(smooth(), 1, null_label=3).schedule is SCHEDULE
