import pytest
import torch
from torch import Tensor, nn

from helpers import SmoothNetwork, each_schedule, float64, normal, small_unet
from underone.conformance.oracles import SingleImage
from underone.diffusion import (
    Bound,
    Clipped,
    Data,
    DynamicallyThresholded,
    LinearBeta,
    NetworkDenoiser,
    Node,
    Schedule,
    Velocity,
    count_evaluations,
    node_at,
)

SCHEDULE = LinearBeta()


class Recorder(nn.Module):
    """Keeps what it was given; outputs its input."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor, Tensor | None]] = []

    def forward(self, x: Tensor, condition: Tensor, label: Tensor | None) -> Tensor:
        self.seen.append((x, condition, label))
        return x


def test_the_network_gets_x_the_step_and_the_label() -> None:
    network = Recorder()
    denoiser = NetworkDenoiser(network, SCHEDULE, Data())
    x, label = normal(3, 2), torch.tensor([4, 5, 6])
    denoiser(x, node_at(SCHEDULE, float64(0.25)), label)
    denoiser(x, node_at(SCHEDULE, float64([1, 2, 1000]) / 1000), None)
    expected = [([250.0, 250.0, 250.0], label), ([1.0, 2.0, 1000.0], None)]
    for (seen, condition, seen_label), (steps, given_label) in zip(
        network.seen, expected, strict=True
    ):
        assert seen is x
        assert condition.dtype == torch.float32
        assert condition.tolist() == steps
        assert seen_label is given_label


def test_one_evaluation_an_image_under_the_networks_name() -> None:
    denoiser = NetworkDenoiser(Recorder(), SCHEDULE, Data(), name="weak")
    node = node_at(SCHEDULE, float64(0.5))
    with count_evaluations() as outer:
        denoiser(normal(3, 2), node, None)
        with count_evaluations() as inner:
            denoiser(normal(4, 2), node, None)
            NetworkDenoiser(Recorder(), SCHEDULE, Data())(normal(2, 2), node, None)
        denoiser(normal(1, 2), node, None)
    denoiser(normal(9, 2), node, None)
    assert inner == {"weak": 4, "model": 2}
    assert outer == {"weak": 8, "model": 2}


def test_a_count_ends_with_its_block_even_by_an_error() -> None:
    denoiser = NetworkDenoiser(Recorder(), SCHEDULE, Data())
    with count_evaluations() as outer:
        with pytest.raises(KeyError), count_evaluations() as inner:
            raise KeyError
        denoiser(normal(3, 2), node_at(SCHEDULE, float64(0.5)), None)
    assert inner == {}
    assert outer == {"model": 3}


def test_every_row_may_have_its_own_node() -> None:
    denoiser = NetworkDenoiser(small_unet(), SCHEDULE, Velocity())
    times, label = float64([0.001, 0.5, 1]), torch.tensor([0, 3, 2])
    x = normal(3, 1, 8, 8).float()
    together = denoiser(x, node_at(SCHEDULE, times), label)
    for row in range(3):
        one = slice(row, row + 1)
        alone = denoiser(x[one], node_at(SCHEDULE, times[row]), label[one])
        torch.testing.assert_close(together[one], alone, rtol=0, atol=1e-5)


def test_autocast_concerns_the_network_alone() -> None:
    network = SmoothNetwork()
    outputs: list[torch.dtype] = []
    network.register_forward_hook(lambda module, inputs, output: outputs.append(output.dtype))
    x, node = normal(4, 1, 8, 8).float(), node_at(SCHEDULE, float64(0.5))
    full = NetworkDenoiser(network, SCHEDULE, Data())(x, node, None)
    mixed = NetworkDenoiser(network, SCHEDULE, Data(), autocast=torch.bfloat16)(x, node, None)
    assert outputs == [torch.float32, torch.bfloat16]
    assert mixed.dtype == torch.float32
    assert 0 < (mixed - full).abs().max().item() < 0.05


def test_clipping_clamps_x0_and_nothing_else() -> None:
    image = float64([-3.0, -0.9, 0.4, 2.0])
    x, node = normal(2, 4), node_at(SCHEDULE, float64(0.5))
    clipped = Clipped(SingleImage(SCHEDULE, image))
    assert clipped.schedule is SCHEDULE
    assert clipped(x, node, None).tolist() == [[-1.0, -0.9, 0.4, 1.0]] * 2
    wider = Clipped(SingleImage(SCHEDULE, image), bound=2.5)
    assert wider(x, node, None).tolist() == [[-2.5, -0.9, 0.4, 2.0]] * 2


@each_schedule
def test_a_bound_model_knows_its_labels_and_its_nodes(schedule: Schedule) -> None:
    network, label = Recorder(), torch.tensor([2, 0])
    model = Bound(NetworkDenoiser(network, schedule, Data()), label)
    node = model.node(float64(0.75))
    assert node.log_snr.item() == pytest.approx(0.75, rel=1e-10)
    assert (node.alpha.item(), node.sigma.item()) == tuple(c.item() for c in schedule(node.t))
    x = normal(2, 3)
    estimate = model(x, node)
    assert estimate.node is node
    assert estimate.x is x
    assert torch.equal(estimate.x0, x)
    assert network.seen[0][2] is label


def test_dynamic_thresholding_bounds_each_sample_by_its_own_quantile() -> None:
    image = float64([[[3.0, -2.0, 0.5, 1.0, 0.0]], [[0.2, -0.4, 0.5, 0.1, 0.0]]])

    class Images(SingleImage):
        def __call__(self, x: Tensor, node: Node, label: Tensor | None) -> Tensor:
            return self.image

    denoiser = DynamicallyThresholded(Images(SCHEDULE, image), quantile=0.75)
    found = denoiser(torch.zeros_like(image), node_at(SCHEDULE, float64(0.5)), None)
    # The 0.75 quantile of 0, 0.5, 1, 2, 3 is 2; below 1 nothing is changed.
    torch.testing.assert_close(found[0], float64([[1.0, -1.0, 0.25, 0.5, 0.0]]))
    torch.testing.assert_close(found[1], image[1])
    assert denoiser.schedule is SCHEDULE


def test_rows_take_their_labels_with_them() -> None:
    bound = Bound(SingleImage(SCHEDULE, float64([0.0])), torch.tensor([4, 5, 6]))
    assert bound.rows(torch.tensor([2, 0])).label.tolist() == [6, 4]  # type: ignore[union-attr]
    assert Bound(bound.denoiser, None).rows(torch.tensor([1])).label is None
