import math

import pytest
import torch
from torch import Tensor, nn

from helpers import SmoothNetwork, each_schedule, float64, normal, run
from underone.conformance.oracles import Mixture, plane_mixture
from underone.diffusion import (
    DDIM,
    ClassifierFree,
    ClassifierGuidance,
    Interval,
    LinearBeta,
    NetworkDenoiser,
    Node,
    Schedule,
    Uniform,
    Velocity,
    count_evaluations,
    node_at,
    nodes,
)
from underone.diffusion.node import expand
from underone.errors import UserError

SCHEDULE = LinearBeta()
HALF = node_at(SCHEDULE, float64(0.5))
LABEL = torch.arange(12) % 3


class Exact:
    """The mixture's own classifier: log p(c, x_t), from the densities of x_t alone."""

    def __init__(self, oracle: Mixture) -> None:
        self.oracle = oracle

    def __call__(self, x: Tensor, node: Node) -> Tensor:
        flat, oracle = x[:, None], self.oracle
        alpha, sigma = (expand(c, flat) for c in (node.alpha, node.sigma))
        variance = alpha**2 * oracle.deviations.to(x)[:, None] ** 2 + sigma**2
        squares = (flat - alpha * oracle.means.to(x)) ** 2 / variance + variance.log()
        joint = oracle.weights.to(x).log() - 0.5 * squares.sum(2)
        classes = [joint[:, oracle.classes == c].logsumexp(1) for c in range(oracle.null_label)]
        return torch.stack(classes, dim=1)


class SmallClassifier(nn.Module):
    """A random classifier with parameters, conditioned on the noise level."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.body = nn.Linear(65, 16)
            self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor, node: Node) -> Tensor:
        level = node.log_snr.to(x).expand(len(x))[:, None]
        logits: Tensor = self.head(torch.tanh(self.body(torch.cat([x.flatten(1), level], 1))))
        return logits


def unconditional(oracle: Mixture) -> ClassifierFree:
    return ClassifierFree(oracle, -1, oracle.null_label)


def guided_oracle(schedule: Schedule, scale: float = 1.0) -> ClassifierGuidance:
    oracle = plane_mixture(schedule)
    return ClassifierGuidance(unconditional(oracle), Exact(oracle), scale)


def noisy(node: Node) -> Tensor:
    x0, z = normal(12, 2, seed=1), normal(12, 2)
    return expand(node.alpha, x0) * x0 + expand(node.sigma, z) * z


@each_schedule
@pytest.mark.parametrize("step", [1, 20, 300, 900, 1000])
@pytest.mark.parametrize("gradients", [True, False])
def test_the_exact_classifier_makes_the_exact_conditional_denoiser(
    schedule: Schedule, step: int, gradients: bool
) -> None:
    node = node_at(schedule, float64(step / 1000))
    x = noisy(node)
    with torch.set_grad_enabled(gradients):
        guided = guided_oracle(schedule)(x, node, LABEL)
    expected = plane_mixture(schedule)(x, node, LABEL)
    torch.testing.assert_close(guided, expected, rtol=0, atol=1e-8)
    assert not guided.requires_grad


@each_schedule
@pytest.mark.parametrize("scale", [-1.0, 0.5, 3.0])
def test_scale_s_is_classifier_free_guidance_of_weight_s_minus_1(
    schedule: Schedule, scale: float
) -> None:
    node, oracle = node_at(schedule, float64(0.3)), plane_mixture(schedule)
    x = noisy(node)
    expected = ClassifierFree(oracle, scale - 1, oracle.null_label)(x, node, LABEL)
    guided = guided_oracle(schedule, scale)(x, node, LABEL)
    torch.testing.assert_close(guided, expected, rtol=0, atol=1e-8)
    # The denoiser sees the label too: a conditional one is sharpened by the whole scale.
    sharpened = ClassifierGuidance(oracle, Exact(oracle), scale)(x, node, LABEL)
    expected = ClassifierFree(oracle, scale, oracle.null_label)(x, node, LABEL)
    torch.testing.assert_close(sharpened, expected, rtol=0, atol=1e-8)


def test_every_row_may_have_its_own_node() -> None:
    node = node_at(SCHEDULE, torch.linspace(0.001, 1, 12, dtype=torch.float64))
    x = noisy(node)
    expected = plane_mixture(SCHEDULE)(x, node, LABEL)
    guided = guided_oracle(SCHEDULE)(x, node, LABEL)
    torch.testing.assert_close(guided, expected, rtol=0, atol=1e-8)


def test_the_noise_moves_by_s_sigma_times_the_gradient() -> None:
    """Dhariwal and Nichol's own form of it, eq. 14."""
    oracle, x = plane_mixture(SCHEDULE), noisy(HALF).requires_grad_()
    log_probability = Exact(oracle)(x, HALF).log_softmax(1)[torch.arange(12), LABEL]
    (gradient,) = torch.autograd.grad(log_probability.sum(), x)
    x = x.detach()

    def noise(x0: Tensor) -> Tensor:
        return (x - HALF.alpha * x0) / HALF.sigma

    expected = noise(unconditional(oracle)(x, HALF, LABEL)) - 2.5 * HALF.sigma * gradient
    guided = noise(guided_oracle(SCHEDULE, 2.5)(x, HALF, LABEL))
    torch.testing.assert_close(guided, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("times", [0.5, [0.1 + step / 20 for step in range(12)]])
def test_inference_mode_changes_nothing(times: float | list[float]) -> None:
    oracle = plane_mixture(SCHEDULE)

    def classifier(x: Tensor, node: Node) -> Tensor:
        # Autograd has to keep the node itself, which it would not if made in inference mode.
        return Exact(oracle)(x, node) + expand(node.alpha, x) * x @ x.new_ones(2, 3).cumsum(1)

    denoiser = ClassifierGuidance(unconditional(oracle), classifier, 1)
    node = node_at(SCHEDULE, float64(times))
    expected = denoiser(noisy(node), node, LABEL)
    with torch.inference_mode():
        # Everything is made in inference mode, as in a whole sampling run.
        node = node_at(SCHEDULE, float64(times))
        guided = denoiser(noisy(node), node, torch.arange(12) % 3)
    assert torch.equal(guided, expected)


@torch.no_grad()
@pytest.mark.parametrize("scale", [0, 0.0])
@pytest.mark.parametrize("label", [torch.tensor([0, 2, 1, 1]), None])
def test_scale_0_is_bitwise_the_denoiser_and_asks_no_classifier(
    scale: float, label: Tensor | None
) -> None:
    def never(x: Tensor, node: Node) -> Tensor:
        raise AssertionError("asked")

    inner = NetworkDenoiser(SmoothNetwork().double(), SCHEDULE, Velocity())
    x = normal(4, 1, 8, 8)
    with count_evaluations() as evaluations:
        guided = ClassifierGuidance(inner, never, scale)(x, HALF, label)
    assert evaluations == {"model": 4}
    assert torch.equal(guided, inner(x, HALF, label))


def test_the_classifier_is_counted_by_its_own_name_once_a_row() -> None:
    path, oracle = nodes(Uniform(), SCHEDULE, 10), plane_mixture(SCHEDULE)
    everywhere = guided_oracle(SCHEDULE)
    within = Interval(everywhere, oracle, 0, path[6].noise_ratio.item())
    for denoiser, steps in ((everywhere, 10), (within, 4)):
        with count_evaluations() as evaluations:
            run(denoiser, DDIM(0.0), path, normal(12, 2), lambda: normal(12, 2), LABEL)
        assert evaluations == {"oracle": 12 * 10, "classifier": 12 * steps}


def test_nothing_is_left_in_the_networks_or_in_x() -> None:
    inner = NetworkDenoiser(SmoothNetwork().double(), SCHEDULE, Velocity())
    classifier = SmallClassifier().double()
    x = normal(3, 1, 8, 8)
    with torch.no_grad():
        guided = ClassifierGuidance(inner, classifier, 2)(x, HALF, LABEL[:3])
        assert (guided - inner(x, HALF, LABEL[:3])).abs().max() > 1e-3
        assert not torch.is_grad_enabled()
    assert not guided.requires_grad
    assert not x.requires_grad
    assert all(parameter.grad is None for parameter in classifier.parameters())


def test_the_gradient_is_not_taken_through_the_denoiser() -> None:
    """Whatever the denoiser is, what is added to it is the same."""
    x, classifier = normal(3, 1, 8, 8), SmallClassifier().double()
    added = []
    with torch.no_grad():
        for seed in (0, 1):
            inner = NetworkDenoiser(SmoothNetwork(seed).double(), SCHEDULE, Velocity())
            guided = ClassifierGuidance(inner, classifier, 2)(x, HALF, LABEL[:3])
            added.append(guided - inner(x, HALF, LABEL[:3]))
    assert added[0].abs().max() > 1e-3
    torch.testing.assert_close(added[0], added[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("per_row", [False, True])
def test_the_precision_of_x_is_kept(per_row: bool) -> None:
    times = torch.linspace(0.1, 1, 12, dtype=torch.float64)
    node = node_at(SCHEDULE, times if per_row else times[5])
    x, denoiser = noisy(node), guided_oracle(SCHEDULE)
    guided = denoiser(x.float(), node, LABEL)
    assert guided.dtype == torch.float32
    torch.testing.assert_close(guided.double(), denoiser(x, node, LABEL), rtol=1e-3, atol=1e-3)


def test_labels_are_needed() -> None:
    with pytest.raises(ValueError, match="needs labels"):
        guided_oracle(SCHEDULE)(normal(4, 2), HALF, None)


@pytest.mark.parametrize("scale", [math.nan, math.inf, -math.inf])
def test_a_scale_that_is_no_finite_number_is_refused(scale: float) -> None:
    with pytest.raises(UserError, match="must be a finite number"):
        guided_oracle(SCHEDULE, scale)


def test_the_schedule_is_that_of_the_wrapped_denoiser() -> None:
    assert guided_oracle(SCHEDULE).schedule is SCHEDULE
