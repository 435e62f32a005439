import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal

from helpers import SCHEDULES, each_schedule, float64, normal
from underone.conformance.oracles import GaussianData, Mixture, SingleImage, plane_mixture
from underone.diffusion import Denoiser, Node, Schedule, count_evaluations, node_at

SCHEDULE = SCHEDULES["cosine"]
EVERY_ORACLE: dict[str, Denoiser] = {
    "single": SingleImage(SCHEDULE, float64([0.3, -0.7])),
    "gaussian": GaussianData(SCHEDULE, mean=0.3, deviation=0.5),
    "mixture": plane_mixture(SCHEDULE),
}
each_oracle = pytest.mark.parametrize("oracle", EVERY_ORACLE.values(), ids=EVERY_ORACLE.keys())
each_step = pytest.mark.parametrize("step", [1, 100, 500, 900])


def noisy_mixture(oracle: Mixture, node: Node, chosen: Tensor) -> Distribution:
    """The law of x_t when x0 comes from the chosen components."""
    means = node.alpha * oracle.means[chosen]
    deviations = (node.alpha**2 * oracle.deviations[chosen] ** 2 + node.sigma**2).sqrt()
    components = Independent(Normal(means, deviations[:, None].expand_as(means)), 1)
    return MixtureSameFamily(Categorical(oracle.weights[chosen]), components)


def posterior_mean(x: Tensor, node: Node, law: Distribution) -> Tensor:
    """(x_t + sigma^2 grad log p(x_t)) / alpha, Tweedie's formula, from the density of x_t alone."""
    x = x.clone().requires_grad_()
    (score,) = torch.autograd.grad(law.log_prob(x).sum(), x)
    return (x.detach() + node.sigma**2 * score) / node.alpha


def a_node(schedule: Schedule, *steps: int) -> Node:
    return node_at(schedule, float64(steps[0] if len(steps) == 1 else steps) / schedule.steps)


@each_schedule
@each_step
def test_the_mixture_is_the_posterior_mean_of_every_class(schedule: Schedule, step: int) -> None:
    oracle = plane_mixture(schedule)
    node = a_node(schedule, step)
    x = node.alpha * normal(32, 2) + node.sigma * normal(32, 2, seed=1)
    for label in range(oracle.null_label):
        expected = posterior_mean(x, node, noisy_mixture(oracle, node, oracle.classes == label))
        estimate = oracle(x, node, torch.full((32,), label))
        torch.testing.assert_close(estimate, expected, rtol=0, atol=1e-10)
    expected = posterior_mean(x, node, noisy_mixture(oracle, node, oracle.classes >= 0))
    for anything in (None, torch.full((32,), oracle.null_label)):
        torch.testing.assert_close(oracle(x, node, anything), expected, rtol=0, atol=1e-10)


@each_schedule
@each_step
def test_the_gaussian_is_the_posterior_mean(schedule: Schedule, step: int) -> None:
    oracle = GaussianData(schedule, mean=0.3, deviation=0.5)
    node = a_node(schedule, step)
    x = normal(32, 2)
    law = Normal(node.alpha * 0.3, (node.alpha**2 * 0.25 + node.sigma**2).sqrt())
    expected = posterior_mean(x, node, law)
    torch.testing.assert_close(oracle(x, node, None), expected, rtol=0, atol=1e-10)
    slope, offset = oracle.affine(node)
    torch.testing.assert_close(slope * x + offset, expected, rtol=0, atol=1e-10)
    assert oracle.variance(node).item() == pytest.approx(float(law.variance), rel=1e-12)


def test_a_mixture_of_images_has_the_shape_of_the_images() -> None:
    images = normal(2, 1, 4, 4)
    oracle = Mixture(SCHEDULE, images, float64([1e-3, 1e-3]), float64([0.5, 0.5]), torch.arange(2))
    node = a_node(SCHEDULE, 300)
    x = node.alpha * images[[1, 0, 1]]
    estimate = oracle(x.float(), node, None)
    assert estimate.dtype == torch.float32
    torch.testing.assert_close(estimate.double(), images[[1, 0, 1]], rtol=0, atol=1e-5)


def test_the_single_image_is_the_estimate_everywhere() -> None:
    oracle = SingleImage(SCHEDULE, float64([0.3, -0.7]))
    estimate = oracle(normal(2, 2), a_node(SCHEDULE, 1000), None)
    assert torch.equal(estimate, float64([[0.3, -0.7], [0.3, -0.7]]))


@each_oracle
def test_every_row_may_have_its_own_node(oracle: Denoiser) -> None:
    steps = (1, 400, 1000)
    x = normal(3, 2)
    together = oracle(x, a_node(SCHEDULE, *steps), torch.tensor([0, 1, 3]))
    for row, (step, label) in enumerate(zip(steps, (0, 1, 3), strict=True)):
        alone = oracle(x[row : row + 1], a_node(SCHEDULE, step), torch.tensor([label]))
        torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=1e-12)


@each_oracle
def test_the_evaluations_of_an_oracle_are_counted(oracle: Denoiser) -> None:
    with count_evaluations() as evaluations:
        oracle(normal(5, 2), a_node(SCHEDULE, 10), None)
    assert evaluations == {"oracle": 5}
