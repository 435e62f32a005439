import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import PRESERVING, AsNetwork, SmoothNetwork, each_preserving_schedule, float64, normal
from underone.conformance.oracles import plane_mixture
from underone.diffusion import (
    Data,
    LinearBeta,
    NetworkDenoiser,
    Node,
    Noise,
    Preconditioned,
    Prediction,
    Schedule,
    Velocity,
    node_at,
)
from underone.errors import UserError

PREDICTIONS: dict[str, Prediction] = {
    "noise": Noise(),
    "data": Data(),
    "velocity": Velocity(),
    "preconditioned": Preconditioned(0.7),
}
each_prediction = pytest.mark.parametrize(
    "prediction", PREDICTIONS.values(), ids=PREDICTIONS.keys()
)


@settings(deadline=None)
@given(
    st.sampled_from(list(PREDICTIONS.values())),
    st.sampled_from(list(PRESERVING.values())),
    st.lists(st.floats(1e-3, 1), min_size=1, max_size=8),
)
def test_the_target_implies_x0_at_every_level(
    prediction: Prediction, schedule: Schedule, times: list[float]
) -> None:
    x0, noise = normal(len(times), 1, 3, 3), normal(len(times), 1, 3, 3, seed=1)

    def recovered(x0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        node = node_at(schedule, t)
        alpha, sigma = (c.reshape(-1, 1, 1, 1) for c in (node.alpha, node.sigma))
        target = prediction.target(x0, noise, node)
        return prediction.to_x0(target, alpha * x0 + sigma * noise, node)

    # The noise prediction divides by alpha, which is 5e-5 at the end of the cosine schedule.
    torch.testing.assert_close(recovered(x0, noise, float64(times)), x0, rtol=0, atol=1e-10)
    for row, t in enumerate(times):
        alone = recovered(x0[row : row + 1], noise[row : row + 1], float64(t))
        torch.testing.assert_close(alone, x0[row : row + 1], rtol=0, atol=1e-10)


def test_each_prediction_by_hand() -> None:
    node = Node(float64(0.5), alpha=float64(0.8), sigma=float64(0.6))
    x0, noise = torch.tensor([[1.0]]), torch.tensor([[2.0]])
    x = torch.tensor([[2.0]])  # 0.8 * 1 + 0.6 * 2
    for prediction, target in ((Noise(), 2.0), (Data(), 1.0), (Velocity(), 0.8 * 2 - 0.6 * 1)):
        assert prediction.target(x0, noise, node).item() == pytest.approx(target)
        assert prediction.to_x0(torch.tensor([[target]]), x, node).item() == pytest.approx(1)
    assert Noise().to_x0(torch.tensor([[1.0]]), x, node).item() == pytest.approx(1.4 / 0.8)
    assert Velocity().to_x0(torch.tensor([[0.5]]), x, node).item() == pytest.approx(1.6 - 0.3)
    assert Data().to_x0(torch.tensor([[0.25]]), x, node).item() == 0.25


@each_prediction
@each_preserving_schedule
def test_networks_that_agree_give_the_same_x0(prediction: Prediction, schedule: Schedule) -> None:
    first = NetworkDenoiser(SmoothNetwork().double(), schedule, Noise())
    second = NetworkDenoiser(AsNetwork(first, prediction), schedule, prediction)
    x = normal(6, 1, 4, 4)
    for t in (float64(0.001), float64(0.7), float64([1, 40, 200, 500, 900, 1000]) / 1000):
        node = node_at(schedule, t)
        expected = first(x, node, None)
        torch.testing.assert_close(second(x, node, None), expected, rtol=1e-10, atol=1e-10)


@each_prediction
def test_the_network_that_is_exact_is_read_exactly(prediction: Prediction) -> None:
    oracle = plane_mixture(LinearBeta())
    denoiser = NetworkDenoiser(AsNetwork(oracle, prediction), oracle.schedule, prediction)
    x = normal(6, 2)
    for step in (1, 300, 1000):
        node = node_at(oracle.schedule, float64(step / 1000))
        estimate = denoiser(x, node, torch.tensor([0, 1, 2, 3, 0, 1]))
        expected = oracle(x, node, torch.tensor([0, 1, 2, 3, 0, 1]))
        torch.testing.assert_close(estimate, expected, rtol=0, atol=1e-10)


@each_prediction
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_precision_is_that_of_the_image(
    prediction: Prediction, dtype: torch.dtype, tolerance: float
) -> None:
    x0, noise = normal(3, 2).to(dtype), normal(3, 2, seed=1).to(dtype)
    for t in (float64(0.3), float64([0.01, 0.3, 0.5])):
        node = node_at(LinearBeta(), t)
        alpha, sigma = (c.reshape(-1, 1).to(dtype) for c in (node.alpha, node.sigma))
        target = prediction.target(x0, noise, node)
        estimate = prediction.to_x0(target, alpha * x0 + sigma * noise, node)
        assert target.dtype == estimate.dtype == dtype
        torch.testing.assert_close(estimate, x0, rtol=0, atol=tolerance)


@each_prediction
def test_the_network_sees_x_and_the_time_in_thousandths(prediction: Prediction) -> None:
    x = normal(3, 2)
    for steps in (1000, 100):
        node = node_at(LinearBeta(steps=steps), float64([1, 40, 100]) / 100)
        condition = prediction.condition(node)
        assert condition is not None
        assert condition.tolist() == pytest.approx([10, 400, 1000], rel=1e-12)
        scale = prediction.input(torch.ones_like(x), node)
        torch.testing.assert_close(prediction.input(x, node), scale * x)
        assert (scale == 1).all() or isinstance(prediction, Preconditioned)


def test_preconditioned_inputs_and_targets_have_variance_1_at_every_level() -> None:
    deviation = 0.7
    prediction = Preconditioned(deviation)
    x0, noise = deviation * normal(200_000), normal(200_000, seed=1)
    for t in (0.001, 0.1, 0.4, 1.0):
        node = node_at(LinearBeta(), float64(t))
        x = node.alpha * x0 + node.sigma * noise
        given, target = prediction.input(x, node), prediction.target(x0, noise, node)
        assert given.var().item() == pytest.approx(1, abs=0.02)
        assert target.var().item() == pytest.approx(1, abs=0.02)
        # What the network is asked for is nothing its input already tells.
        assert (given * target).mean().item() == pytest.approx(0, abs=0.01)


def test_of_data_of_deviation_1_the_preconditioned_output_is_minus_the_velocity() -> None:
    x0, noise = normal(4, 2), normal(4, 2, seed=1)
    for t in (0.01, 0.5, 1.0):
        node = node_at(LinearBeta(), float64(t))
        found = Preconditioned(1.0).target(x0, noise, node)
        torch.testing.assert_close(found, -Velocity().target(x0, noise, node))


@pytest.mark.parametrize("deviation", [0.0, -0.5, float("nan")])
def test_the_deviation_of_data_must_be_above_0(deviation: float) -> None:
    with pytest.raises(UserError, match="data_deviation must be above 0"):
        Preconditioned(deviation)
