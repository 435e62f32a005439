"""Aligned resampling, and revisions that never mix."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from small_networks import classifier, inputs, normal, unet
from underone.networks.layers import DOWNSAMPLE, UPSAMPLE, Downsample, Revision

REVISIONS: tuple[Revision, ...] = (1, 2)


class BuggyDownsample(nn.Module):
    """What revision 1 did, kept here word for word: centred on every other pixel, not on cells."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


def with_flip_symmetric_kernels(network: nn.Module) -> None:
    """Make every convolution commute with mirrorings, as far as its placing allows."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            kernel = layer.weight.data
            layer.weight.data = (kernel + kernel.flip(2) + kernel.flip(3) + kernel.flip(2, 3)) / 4


def box_filter(layer: nn.Module) -> None:
    """Make a layer's only convolution an average over its window."""
    for name, parameter in layer.named_parameters():
        parameter.data.fill_(0 if name.endswith("bias") else 1 / parameter[0, 0].numel())


def plain_copy(layer: nn.Module) -> None:
    """Make a layer's only 3x3 convolution the identity."""
    for parameter in layer.parameters():
        parameter.data.zero_()
        if parameter.ndim == 4:
            parameter.data[0, 0, 1, 1] = 1


def there_and_back(down: nn.Module, up: nn.Module, x: Tensor) -> Tensor:
    out: Tensor = up(down(x), x.shape[2:])
    return out


# Alignment: the defect of revision 1, and its cure.


@pytest.mark.parametrize(
    ("down", "up", "shift"),
    [
        (DOWNSAMPLE[2](1, 1), UPSAMPLE[2](1, 1), 0.0),
        (DOWNSAMPLE[1](1, 1), UPSAMPLE[1](1, 1), -0.5),
        (BuggyDownsample(1, 1), UPSAMPLE[1](1, 1), -0.5),
    ],
    ids=["revision-2", "revision-1", "the-bug-itself"],
)
@pytest.mark.parametrize("axis", [2, 3])
@torch.no_grad()
def test_a_ramp_keeps_its_place_in_revision_2_and_shifts_half_a_pixel_in_revision_1(
    down: nn.Module, up: nn.Module, shift: float, axis: int
) -> None:
    box_filter(down)
    plain_copy(up)
    ramp = torch.arange(12.0).expand(1, 1, 12, 12)
    ramp = ramp if axis == 3 else ramp.transpose(2, 3)
    moved = (there_and_back(down, up, ramp) - ramp)[:, :, 2:-2, 2:-2]
    assert moved.mean().item() == pytest.approx(shift, abs=1e-5)


@torch.no_grad()
def test_revision_1_still_is_the_function_it_was() -> None:
    legacy, original = DOWNSAMPLE[1](3, 5), BuggyDownsample(3, 5)
    original.load_state_dict(legacy.state_dict())
    for size in (7, 8):
        x = normal(2, 3, size, size)
        assert torch.equal(legacy(x), original(x))


@pytest.mark.parametrize("axes", [(3,), (2,), (2, 3)])
@torch.no_grad()
def test_a_mirrored_image_gives_the_mirrored_output_in_revision_2_alone(
    axes: tuple[int, ...],
) -> None:
    faults = {}
    for revision in REVISIONS:
        network = unet(revision=revision, multipliers=(1, 2, 2), attention=(2,)).double()
        with_flip_symmetric_kernels(network)
        x, time, label = inputs(network, dtype=torch.float64)
        straight, mirrored = network(x, time, label), network(x.flip(axes), time, label)
        faults[revision] = ((mirrored.flip(axes) - straight).norm() / straight.norm()).item()
    assert faults[2] < 1e-6  # the sinusoidal encoding is float32
    assert faults[1] > 0.01


@torch.no_grad()
def test_a_classifier_of_revision_2_sees_no_difference_in_a_mirrored_image() -> None:
    faults = {}
    for revision in REVISIONS:
        network = classifier(revision=revision).double()
        with_flip_symmetric_kernels(network)
        x = normal(4, 1, 8, 8, dtype=torch.float64)
        straight, mirrored = network.features(x), network.features(x.flip(2, 3))
        faults[revision] = ((mirrored - straight).norm() / straight.norm()).item()
    assert faults[2] < 1e-12
    assert faults[1] > 0.001


@torch.no_grad()
def test_a_constant_image_stays_constant_at_odd_sizes() -> None:
    down = Downsample(1, 1)
    box_filter(down)
    for height, width in itertools.product((6, 7), (6, 7)):
        out = down(torch.full((1, 1, height, width), 3.0))
        assert out.shape == (1, 1, math.ceil(height / 2), math.ceil(width / 2))
        torch.testing.assert_close(out, torch.full_like(out, 3.0))


@pytest.mark.parametrize("revision", REVISIONS)
def test_odd_sizes_work_and_no_pixel_is_lost(revision: Revision) -> None:
    network = unet(image_size=7, revision=revision)
    assert network.config.resolutions == (7, 4)
    x, time, label = inputs(network)
    x.requires_grad_()
    out = network(x, time, label)
    assert out.shape == x.shape
    sensitivity = torch.autograd.grad((out * normal(*out.shape, seed=1)).sum(), x)[0]
    assert (sensitivity != 0).all()


# Revisions never mix.


@pytest.mark.parametrize(
    ("build", "resampling"), [(unet, {"downsample", "upsample"}), (classifier, {"downsample"})]
)
def test_revisions_differ_in_the_names_of_the_resampling_tensors_alone(
    build: Callable[..., nn.Module], resampling: set[str]
) -> None:
    first, second = (build(revision=revision).state_dict() for revision in REVISIONS)
    for own, other in ((first, second), (second, first)):
        changed = {name for name in own if name not in other}
        assert changed == {name for name in own if name.split(".")[0] in resampling}
        assert {name.split(".")[0] for name in changed} == resampling
    assert all(first[name].shape == second[name].shape for name in first.keys() & second.keys())


@pytest.mark.parametrize("build", [unet, classifier])
def test_no_state_dict_of_one_revision_fits_the_other(build: Callable[..., nn.Module]) -> None:
    for own, other in ((1, 2), (2, 1)):
        with pytest.raises(RuntimeError, match=r"(?s)Missing.*sample.*Unexpected.*sample"):
            build(revision=own).load_state_dict(build(revision=other).state_dict())


@torch.no_grad()
def test_upsampling_is_one_function_under_two_names() -> None:
    first, second = UPSAMPLE[1](3, 3), UPSAMPLE[2](3, 3)
    renamed = {name.replace("conv", "smooth"): t for name, t in first.state_dict().items()}
    second.load_state_dict(renamed)
    x = normal(2, 3, 4, 4)
    assert torch.equal(first(x, (7, 8)), second(x, (7, 8)))
