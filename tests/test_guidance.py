import math
from collections.abc import Callable
from functools import partial

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
    AdaptiveProjected,
    ClassifierFree,
    Clipped,
    Data,
    Denoiser,
    LinearBeta,
    NetworkDenoiser,
    Noise,
    Prediction,
    Rescaled,
    Schedule,
    Velocity,
    branches,
    count_evaluations,
    node_at,
)
from underone.errors import UserError

SCHEDULE = LinearBeta()
HALF = node_at(SCHEDULE, float64(0.5))
LABEL = torch.tensor([0, 2, 1, 1])
NULL = torch.full_like(LABEL, 3)

# Every form of it, for what they have in common: (denoiser, w, null label) -> guided.
FORMS: dict[str, Callable[[Denoiser, float, int], Denoiser]] = {
    "plain": ClassifierFree,
    "rescaled": partial(Rescaled, phi=0.7),
    "projected": AdaptiveProjected,
    "projected within": partial(AdaptiveProjected, eta=0.5, radius=0.1),
}
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())


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


@each_form
@pytest.mark.parametrize(("weight", "label"), [(0, LABEL), (-1, NULL), (0.0, LABEL), (-1.0, NULL)])
def test_weights_0_and_minus_1_are_bitwise_the_model_itself(
    form: Callable[[Denoiser, float, int], Denoiser], weight: float, label: Tensor
) -> None:
    x = normal(4, 1, 8, 8)
    with torch.no_grad(), count_evaluations() as evaluations:
        guided = form(smooth("guided"), weight, 3)(x, HALF, LABEL)
        alone = smooth("alone")(x, HALF, label)
    assert torch.equal(guided, alone)
    assert evaluations == {"guided": 4, "alone": 4}


@each_form
@pytest.mark.parametrize("weight", [-1.5, -0.5, 1e-3, 1, 7.5])
def test_other_weights_cost_two_evaluations_an_image(
    form: Callable[[Denoiser, float, int], Denoiser], weight: float
) -> None:
    denoiser = form(smooth("guided"), weight, 3)
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


@each_form
@pytest.mark.parametrize("weight", [-1.0, 0.0, 2.0])
def test_every_row_may_have_its_own_node(
    form: Callable[[Denoiser, float, int], Denoiser], weight: float
) -> None:
    denoiser = form(plane_mixture(SCHEDULE), weight, 3)
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


@each_form
def test_the_schedule_is_that_of_the_wrapped_denoiser(
    form: Callable[[Denoiser, float, int], Denoiser],
) -> None:
    assert form(smooth(), 1, 3).schedule is SCHEDULE


@each_form
def test_the_precision_of_x_is_kept(form: Callable[[Denoiser, float, int], Denoiser]) -> None:
    denoiser, x = form(plane_mixture(SCHEDULE), 2, 3), normal(4, 2)
    for node in (HALF, node_at(SCHEDULE, float64([1, 200, 700, 1000]) / 1000)):
        x0 = denoiser(x.float(), node, LABEL)
        assert x0.dtype == torch.float32
        torch.testing.assert_close(x0.double(), denoiser(x, node, LABEL), rtol=1e-4, atol=1e-4)


@each_form
@pytest.mark.parametrize("weight", [math.nan, math.inf, -math.inf])
def test_a_weight_that_is_no_finite_number_is_refused(
    form: Callable[[Denoiser, float, int], Denoiser], weight: float
) -> None:
    with pytest.raises(UserError, match="must be a finite number"):
        form(smooth(), weight, 3)


def both(x: Tensor) -> tuple[Tensor, Tensor]:
    """The two branches of `smooth`, one after the other."""
    return smooth()(x, HALF, LABEL), smooth()(x, HALF, NULL)


@torch.no_grad()
def test_both_branches_come_from_one_batch() -> None:
    x = normal(4, 1, 8, 8)
    with count_evaluations() as evaluations:
        together = branches(smooth("once"), x, HALF, LABEL, 3)
    assert evaluations == {"once": 8}
    for branch, alone in zip(together, both(x), strict=True):
        torch.testing.assert_close(branch, alone, rtol=0, atol=1e-12)


@torch.no_grad()
def test_rescaling_by_0_is_bitwise_plain_guidance() -> None:
    x = normal(4, 1, 8, 8)
    plain = ClassifierFree(smooth(), 4, 3)(x, HALF, LABEL)
    assert torch.equal(Rescaled(smooth(), 4, 3, phi=0)(x, HALF, LABEL), plain)
    assert not torch.equal(Rescaled(smooth(), 4, 3, phi=0.1)(x, HALF, LABEL), plain)


@torch.no_grad()
@pytest.mark.parametrize("phi", [0.3, 1.0])
def test_rescaling_brings_each_sample_to_the_spread_of_its_conditional(phi: float) -> None:
    x = normal(4, 1, 8, 8) * float64([0.5, 1, 2, 4])[:, None, None, None]
    plain = ClassifierFree(smooth(), 30, 3)(x, HALF, LABEL)
    rescaled = Rescaled(smooth(), 30, 3, phi=phi)(x, HALF, LABEL)
    conditional, _ = both(x)
    wanted, guided, got = (x0.flatten(1).std(1) for x0 in (conditional, plain, rescaled))
    assert ((guided - wanted).abs() > 1e-3 * wanted).all()
    torch.testing.assert_close(got, phi * wanted + (1 - phi) * guided, rtol=1e-12, atol=0)
    # One factor a sample: the image itself is the same.
    torch.testing.assert_close(
        rescaled / got[:, None, None, None], plain / guided[:, None, None, None]
    )


def test_rescaling_leaves_constant_images_as_they_are() -> None:
    inner = NetworkDenoiser(Labelled(1, 2, 4, 0), SCHEDULE, Data())
    x0 = Rescaled(inner, 1, 3, phi=1.0)(normal(4, 2), HALF, LABEL)
    assert x0.tolist() == [[2, 2], [8, 8], [4, 4], [4, 4]]


@torch.no_grad()
def test_projection_that_keeps_all_is_bitwise_plain_guidance() -> None:
    x = normal(4, 1, 8, 8)
    plain = ClassifierFree(smooth(), 4, 3)(x, HALF, LABEL)
    assert torch.equal(AdaptiveProjected(smooth(), 4, 3, eta=1)(x, HALF, LABEL), plain)
    # The same by the long way round: a radius that binds nothing.
    projected = AdaptiveProjected(smooth(), 4, 3, eta=1, radius=1e6)(x, HALF, LABEL)
    torch.testing.assert_close(projected, plain, rtol=0, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("radius", [None, 0.05])
@pytest.mark.parametrize("eta", [0.0, 0.25, 1.0])
def test_projection_keeps_a_share_eta_of_the_parallel_part(
    eta: float, radius: float | None
) -> None:
    x, weight = normal(4, 1, 8, 8), 4
    guided = AdaptiveProjected(smooth(), weight, 3, eta=eta, radius=radius)(x, HALF, LABEL)
    conditional, unconditional = (branch.flatten(1) for branch in both(x))
    difference = conditional - unconditional
    if radius is not None:
        assert (difference.norm(dim=1) > radius).all()
        difference *= radius / difference.norm(dim=1, keepdim=True)
    moved = (guided.flatten(1) - conditional) / weight
    length = conditional.norm(dim=1)
    full, kept = ((d * conditional).sum(1) / length for d in (difference, moved))
    assert (full.abs() > 1e-3).all()
    torch.testing.assert_close(kept, eta * full, rtol=1e-9, atol=1e-12)
    # What is orthogonal to the conditional estimate is kept whole.
    across = [
        d - ((d * conditional).sum(1) / length**2)[:, None] * conditional
        for d in (difference, moved)
    ]
    torch.testing.assert_close(across[1], across[0], rtol=0, atol=1e-12)


@torch.no_grad()
def test_no_sample_moves_further_than_the_radius_times_the_weight() -> None:
    x = normal(4, 1, 8, 8)
    conditional, unconditional = (branch.flatten(1) for branch in both(x))
    norms = (conditional - unconditional).norm(dim=1)
    radius = norms.sort().values[1:3].mean().item()  # binds for two samples of the four
    guided = AdaptiveProjected(smooth(), 4, 3, eta=1, radius=radius)(x, HALF, LABEL).flatten(1)
    moved = (guided - conditional).norm(dim=1) / 4
    torch.testing.assert_close(moved, norms.clamp(max=radius), rtol=1e-9, atol=0)


def test_projection_survives_branches_that_agree_and_estimates_of_zero() -> None:
    inner = NetworkDenoiser(Labelled(0, 1, 2, 1), SCHEDULE, Data())
    x0 = AdaptiveProjected(inner, 2, 3, radius=10.0)(normal(3, 2), HALF, torch.arange(3))
    # D_c = 0 has no direction to project on; D_c = D_null moves nothing; 2 against 1 is parallel.
    torch.testing.assert_close(x0, float64([[-2, -2], [1, 1], [2, 2]]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("phi", [-0.1, 1.1, math.nan])
def test_a_share_outside_0_and_1_is_refused(phi: float) -> None:
    with pytest.raises(UserError, match=r"phi of rescaling must lie in \[0, 1\]"):
        Rescaled(smooth(), 1, 3, phi=phi)


@pytest.mark.parametrize("radius", [0.0, -1.0, math.nan])
def test_a_radius_that_is_not_above_0_is_refused(radius: float) -> None:
    with pytest.raises(UserError, match="radius must be above 0"):
        AdaptiveProjected(smooth(), 1, 3, radius=radius)


@pytest.mark.parametrize("eta", [math.inf, math.nan])
def test_a_parallel_share_that_is_no_finite_number_is_refused(eta: float) -> None:
    with pytest.raises(UserError, match="eta must be a finite number"):
        AdaptiveProjected(smooth(), 1, 3, eta=eta)
