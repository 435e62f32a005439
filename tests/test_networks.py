"""The networks: conditions that count, what a fresh one is, sizes and precision."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from small_networks import classifier, inputs, normal, randomised, unet
from underone.errors import UserError
from underone.networks import (
    Encoder,
    EncoderConfig,
    FeatureNetwork,
    Transformer,
    TransformerConfig,
    UNet,
)
from underone.networks.layers import (
    AdaptiveGroupNorm,
    Attention,
    ResidualBlock,
    normalisation,
    sinusoidal_encoding,
)
from underone.networks.precision import fast_dtype, fast_memory_format

# What a network is given matters.


@torch.no_grad()
def test_time_and_class_change_the_output() -> None:
    network = unet()
    x = normal(1, 1, 8, 8).expand(2, 1, 8, 8)
    same, times, labels = torch.tensor([5.0, 5.0]), torch.tensor([5.0, 6.0]), torch.tensor([0, 1])

    def difference(time: Tensor, label: Tensor) -> float:
        first, second = network(x, time, label)
        return float((first - second).abs().max())

    assert difference(same, torch.tensor([1, 1])) == 0
    assert difference(times, torch.tensor([1, 1])) > 1e-5
    for pair in itertools.combinations(range(4), 2):  # the last is the null label
        assert difference(same, torch.tensor(pair)) > 1e-5
    assert difference(times, labels) > 1e-5


@torch.no_grad()
def test_a_network_without_time_or_classes_asks_for_none() -> None:
    network = unet(time=False, classes=None)
    x, time, label = inputs(network)
    expected = network(x, None, None)
    assert torch.equal(network(x, time, label), expected)
    assert expected.std() > 0
    assert not any(name.startswith(("time", "label")) for name in network.state_dict())


def test_a_condition_that_is_missing_is_an_error() -> None:
    network = unet()
    x, time, label = inputs(network)
    with pytest.raises(ValueError, match="time"):
        network(x, None, label)
    with pytest.raises(ValueError, match="class"):
        network(x, time, None)


def test_the_encoding_is_cosines_then_sines_of_falling_frequency() -> None:
    encoding = sinusoidal_encoding(torch.tensor([0.0, 3.0]), 4)
    expected = [math.cos(3), math.cos(0.03), math.sin(3), math.sin(0.03)]
    assert encoding[0].tolist() == [1, 1, 0, 0]
    assert encoding[1].tolist() == pytest.approx(expected, abs=1e-6)


# What a fresh network is.


@torch.no_grad()
def test_a_fresh_network_predicts_zero_and_its_branches_are_silent() -> None:
    torch.manual_seed(0)
    network = UNet(unet().config)
    assert not network(*inputs(network)).any()
    x, embedding = normal(2, 8, 4, 4), normal(2, 32)
    assert torch.equal(Attention(8, 2)(x), x)
    assert torch.equal(ResidualBlock(8, 8, 32, 0.0)(x, embedding), x)
    adaptive = AdaptiveGroupNorm(8, 32)
    assert torch.equal(adaptive(x, embedding), adaptive.norm(x))


def test_a_fresh_network_learns_from_its_first_gradients() -> None:
    torch.manual_seed(0)
    network = UNet(unet().config)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    x, time, label = inputs(network)
    target = normal(*x.shape, seed=1)
    losses = []
    for _ in range(30):
        loss = (network(x, time, label) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(target.square().mean().item())
    assert losses[-1] < 0.5 * losses[0]
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


# Sizes and precision.


@pytest.mark.parametrize(("patch", "sizes"), [(1, (8, 4)), (2, (4, 2)), (4, (2, 1))])
@pytest.mark.parametrize("channels", [1, 3])
@torch.no_grad()
def test_a_patch_makes_the_network_work_at_a_fraction_of_the_size(
    patch: int, sizes: tuple[int, int], channels: int
) -> None:
    network = unet(patch=patch, channels=channels, attention=(sizes[1],))
    assert network.config.resolutions == sizes
    seen: list[tuple[int, int]] = []
    for level in (network.encoder[0], network.encoder[1]):
        assert isinstance(level, nn.ModuleList)
        level[0].register_forward_hook(lambda module, given, out: seen.append(out.shape[2:]))
    x, time, label = inputs(network)
    assert network(x, time, label).shape == x.shape
    assert seen == [(size, size) for size in sizes]


@torch.no_grad()
def test_a_sample_does_not_depend_on_its_batch() -> None:
    denoiser = unet()
    pairs: list[tuple[nn.Module, tuple[Tensor, ...]]] = [
        (denoiser, inputs(denoiser)),
        (classifier(), (normal(4, 1, 8, 8),)),
    ]
    for network, given in pairs:
        together = network(*given)
        alone = torch.cat([network(*(part[i : i + 1] for part in given)) for i in range(4)])
        torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)
        changed = [part.clone() for part in given]
        changed[0][2] += 10
        other = network(*changed)
        assert torch.equal(other[[0, 1, 3]], together[[0, 1, 3]])
        assert not torch.allclose(other[2], together[2])


@torch.no_grad()
def test_channels_last_and_bfloat16_give_nearly_the_same() -> None:
    denoiser = unet()
    pairs: list[tuple[nn.Module, tuple[Tensor, ...]]] = [
        (denoiser, inputs(denoiser)),
        (classifier(), (normal(4, 1, 8, 8),)),
    ]
    for network, given in pairs:
        exact = network(*given)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = network(*given)
        assert mixed.dtype == torch.bfloat16
        error = ((mixed.float() - exact).norm() / exact.norm()).item()
        assert 0 < error < 0.03
        last = {"memory_format": torch.channels_last}
        turned = network.to(**last)(*given)  # type: ignore[call-overload]
        torch.testing.assert_close(turned, exact, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_dropout_is_for_training_alone() -> None:
    network = unet(dropout=0.5)
    given = inputs(network)
    assert torch.equal(network(*given), network(*given))
    network.train()
    assert not torch.equal(network(*given), network(*given))


@torch.no_grad()
def test_logits_are_a_linear_map_of_the_features() -> None:
    network = classifier()
    x = normal(5, 1, 8, 8)
    features = network.features(x)
    assert features.shape == (5, 16)
    expected = features @ network.out.weight.T + network.out.bias
    torch.testing.assert_close(network(x), expected)


@pytest.mark.parametrize("channels", range(1, 130))
def test_every_number_of_channels_can_be_normalised(channels: int) -> None:
    groups = normalisation(channels).num_groups
    assert channels % groups == 0
    assert groups == 1 or channels // groups >= 4
    assert groups <= 32


def test_even_the_narrowest_network_can_be_built() -> None:
    network = unet(width=2, multipliers=(1,), attention=(), heads=1)
    assert network(*inputs(network)).shape == (4, 1, 8, 8)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"image_size": 0}, "must be >= 1"),
        ({"channels": 0}, "must be >= 1"),
        ({"width": 0}, "must be >= 1"),
        ({"blocks": 0}, "must be >= 1"),
        ({"heads": 0}, "must be >= 1"),
        ({"heads": -2}, "must be >= 1"),
        ({"patch": 0}, "must be >= 1"),
        ({"patch": 3}, "image_size 8 is not a multiple of patch 3"),
        ({"classes": 0}, "classes must be >= 1"),
        ({"classes": -5}, "classes must be >= 1"),
        ({"dropout": 1.5}, "dropout must lie in"),
        ({"dropout": -0.1}, "dropout must lie in"),
        ({"multipliers": ()}, "multipliers must be"),
        ({"multipliers": (1, 0)}, "multipliers must be"),
        ({"width": 9}, "width 9 must be even"),
        ({"heads": 3}, "divide into 3 heads"),
        ({"attention": (5,)}, "attention at [5] is never reached: this network works at [8, 4]"),
    ],
)
def test_an_impossible_shape_is_refused(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        unet(**changes)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [{"image_size": 0}, {"classes": 0}, {"widths": ()}, {"widths": (8, 0)}, {"dropout": 1}],
)
def test_an_impossible_classifier_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        classifier(**changes)


def test_bfloat16_is_chosen_where_it_is_native(monkeypatch: pytest.MonkeyPatch) -> None:
    for supported, expected in ((True, torch.bfloat16), (False, None)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda s=supported: s)
        assert fast_dtype("cpu") is expected
    assert fast_dtype("meta") is None


def test_weights_lie_channels_last_where_a_cpu_computes_in_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for native, expected in ((True, torch.contiguous_format), (False, torch.channels_last)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda n=native: n)
        assert fast_memory_format("cpu") is expected


def transformer(**changes: Any) -> Transformer:
    """A small transformer with no weight left at zero."""
    config: dict[str, Any] = {"image_size": 8, "channels": 1, "classes": 3, "width": 16}
    config |= {"stem": 4, "depth": 2} | changes
    return randomised(Transformer(TransformerConfig(**config)), 0)


def encoder(**changes: Any) -> Encoder:
    """A small encoder with no weight left at zero."""
    config: dict[str, Any] = {"image_size": 8, "channels": 1, "widths": (8, 16)}
    config |= {"projection": 12} | changes
    return randomised(Encoder(EncoderConfig(**config)), 0)


@pytest.mark.parametrize("build", [transformer, encoder])
def test_features_do_not_depend_on_the_batch(build: Callable[[], FeatureNetwork]) -> None:
    network, x = build().eval(), normal(6, 1, 8, 8)
    with torch.no_grad():
        together = network.features(x)
        torch.testing.assert_close(torch.cat([network.features(row[None]) for row in x]), together)
    assert together.shape == (6, 16)


def test_a_transformer_sees_where_things_are_and_all_of_the_image() -> None:
    network, x = transformer().eval(), normal(1, 1, 8, 8).requires_grad_()
    network(x)[0, 0].backward()
    assert x.grad is not None
    assert (x.grad != 0).all()
    with torch.no_grad():
        moved = network(x.detach().roll(4, dims=3))
        assert not torch.allclose(moved, network(x), rtol=1e-3)


def test_an_encoder_knows_no_classes_and_is_compared_beyond_its_features() -> None:
    network, x = encoder().eval(), normal(3, 1, 8, 8)
    assert network.logits(network.features(x)) is None
    assert network.config.classes is None
    assert network(x).shape == (3, 12)
    assert torch.equal(network(x), network.projector(network.features(x)))


@pytest.mark.parametrize(
    "changes",
    [{"patch": 3}, {"patch": 1}, {"width": 15}, {"depth": 0}, {"dropout": 1.0}, {"heads": 0}],
)
def test_an_impossible_transformer_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        transformer(**changes)


@pytest.mark.parametrize("changes", [{"patch": 3}, {"widths": ()}, {"projection": 0}])
def test_an_impossible_encoder_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        encoder(**changes)
