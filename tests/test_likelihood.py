"""Likelihood of a whole model, and the command that measures it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from conftest import ModelFolder, Run
from helpers import float64
from underone.checkpoint import DiffusionConfig, DiffusionModel
from underone.data import Dataset, load_dataset, to_model_range
from underone.errors import UserError
from underone.likelihood import (
    Chain,
    Flow,
    Likelihood,
    Method,
    balanced_choice,
    likelihood,
    most_and_least_likely,
)
from underone.networks import UNet, UNetConfig

SLICE = Path(__file__).parent / "data" / "fashion-mnist"


# Of a whole model


@pytest.fixture(scope="module")
def test_images() -> Dataset:
    return load_dataset("fashion-mnist", "test", SLICE)


METHODS: dict[str, Method] = {"flow": Flow(steps=2, repetitions=2), "chain": Chain(4, 2)}
each_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())


def measured(
    model: DiffusionModel, data: Dataset, method: Method, rows: slice, batch_size: int = 20
) -> Likelihood:
    chosen = balanced_choice(data, 9)[rows]
    keys = [(0, index) for index in range(9)][rows]
    images, labels = data.images[chosen], data.labels[chosen]
    return likelihood(model, images, labels, method, keys=keys, batch_size=batch_size)


@each_method
def test_an_image_depends_on_its_key_alone(
    small_model: DiffusionModel, test_images: Dataset, method: Method
) -> None:
    whole = measured(small_model, test_images, method, slice(0, 9))
    assert whole.bits.shape == (9, 2)
    assert whole.bits.isfinite().all()
    assert (whole.bits[:, 0] != whole.bits[:, 1]).all()
    assert whole.evaluations == {"model": 8}  # 4 x 2 steps once, and 4 twice
    again = measured(small_model, test_images, method, slice(0, 9), batch_size=4)
    part = measured(small_model, test_images, method, slice(5, 9))
    assert torch.allclose(again.bits, whole.bits, rtol=1e-4)
    assert torch.allclose(part.bits, whole.bits[5:], rtol=1e-4)


@each_method
def test_labels_and_seeds_matter_and_batches_are_told(
    small_model: DiffusionModel, test_images: Dataset, method: Method
) -> None:
    images, told = test_images.images[:3], list[int]()
    labels = test_images.labels[:3]

    def bits(label: Tensor, seed: int) -> Tensor:
        keys = [(seed, index) for index in range(3)]
        return likelihood(
            small_model, images, label, method, keys=keys, batch_size=2, on_images=told.append
        ).of_images

    given = bits(labels, 0)
    assert (bits((labels + 1) % 10, 0) != given).all()
    assert (bits(labels, 1) != given).all()
    assert told == [2, 1] * 3


def test_an_unconditional_model_is_given_no_labels(
    small_model: DiffusionModel, test_images: Dataset
) -> None:
    shape = UNetConfig(image_size=28, channels=1, classes=None, width=8, heads=2, patch=4)
    config = small_model.config.model_copy(update={"network": shape})
    network = UNet(shape).eval().requires_grad_(False)
    model = replace(small_model, config=config, network=network)
    found = likelihood(
        model, test_images.images[:2], test_images.labels[:2], Flow(1), keys=[(0, 0), (0, 1)]
    )
    assert found.labels is None
    assert found.of_classes == {}
    assert found.bits.isfinite().all()


def test_a_large_guidance_or_clipping_never_enters(
    small_model: DiffusionModel, test_images: Dataset
) -> None:
    keys = [(0, 0)]
    images, labels = test_images.images[:1], test_images.labels[:1]
    found = likelihood(small_model, images, labels, Flow(2), keys=keys).bits
    plain = Flow(2).bits(small_model.denoiser(), to_model_range(images), labels, keys)
    assert torch.equal(found, plain)
    static, none = (
        likelihood(small_model, images, labels, Chain(4, threshold=threshold), keys=keys).bits
        for threshold in ("static", "none")
    )
    assert static < none  # this network's estimates lie far outside


def test_averages_and_their_errors() -> None:
    bits = float64([[1.0, 3.0], [4.0, 4.0], [6.0, 6.0]])
    found = Likelihood(Flow(repetitions=2), bits, torch.tensor([1, 0, 1]), {})
    assert found.of_images.tolist() == [2, 4, 6]
    assert found.mean.value == 4
    assert found.mean.error == pytest.approx(2 / 3**0.5)
    assert found.of_classes[0].error is None
    assert (found.of_classes[1].images, found.of_classes[1].value) == (2, 4)
    assert list(found.of_classes) == [0, 1]
    # Only the first image's estimates differ, with variance 2: 2 / 3 on average, over 3 x 2.
    assert found.estimator_error == pytest.approx((2 / 3 / 6) ** 0.5)
    assert Likelihood(Flow(), bits[:, :1], None, {}).estimator_error is None


def test_the_choice_of_images_is_balanced_and_one_order(test_images: Dataset) -> None:
    chosen = balanced_choice(test_images, 25)
    assert test_images.labels[chosen].tolist() == [index % 10 for index in range(25)]
    assert torch.equal(balanced_choice(test_images, 5, first=20), chosen[20:])
    assert len(set(chosen.tolist())) == 25


def test_the_most_and_the_least_likely() -> None:
    bits = float64([5, 1, 4, 2, 3, 0])
    assert most_and_least_likely(bits, 2).tolist() == [5, 1, 2, 0]
    assert most_and_least_likely(bits, 10).tolist() == [5, 1, 3, 4, 2, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images, labels: (images[..., :27], labels), "takes images of"),
        (lambda images, labels: (images, labels + 3), "knows classes"),
        (lambda images, labels: (images, None), "is conditional"),
    ],
)
def test_images_that_are_not_the_models_are_refused(
    small_model: DiffusionModel,
    test_images: Dataset,
    change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]],
    message: str,
) -> None:
    images, labels = change(test_images.images[:9], test_images.labels[:9])
    keys = [(0, index) for index in range(9)]
    with pytest.raises(UserError, match=message):
        likelihood(small_model, images, labels, Flow(1), keys=keys)


def test_a_network_that_diverges_is_told(small_model: DiffusionModel, test_images: Dataset) -> None:
    assert isinstance(small_model.config, DiffusionConfig)
    network = UNet(small_model.config.network)
    for parameter in network.parameters():
        torch.nn.init.constant_(parameter, 1e30)
    model = replace(small_model, network=network.requires_grad_(False))
    with pytest.raises(UserError, match="not finite"):
        likelihood(model, test_images.images[:1], test_images.labels[:1], Flow(1), keys=[(0, 0)])


# The command


@pytest.fixture
def run(run: Run, model_folder: ModelFolder) -> Run:
    """Runs `underone likelihood` on a small model: (exit status, stdout, stderr)."""
    folder = model_folder()

    def call(*arguments: object) -> tuple[int, str, str]:
        data = () if "--data" in arguments else ("--data", "fashion-mnist", "--root", SLICE)
        return run("likelihood", folder, *data, *arguments)

    return call


def test_the_command_prints_and_draws(run: Run, tmp_path: Path) -> None:
    picture = tmp_path / "new" / "likely.png"
    options = ("--count", 21, "--steps", 1, "--repetitions", 2, "--picture", picture)
    status, out, error = run(*options)
    assert status == 0
    assert "bits/dim" in out
    assert "Ankle boot" in out
    assert "w = 0, no clipping, float32; network evaluations of an image: 4" in out
    assert "2 repetitions" in out
    assert "most likely" in error
    assert Image.open(picture).size == (10 * 58 + 2, 2 * 58 + 2)


def test_the_command_prints_json(run: Run) -> None:
    status, out, _ = run("--count", 6, "--first", 2, "--steps", 3, "--bound", "--json")
    assert status == 0
    said = json.loads(out)
    assert (said["steps"], said["variance"], said["threshold"]) == (3, "large", "static")
    assert said["evaluations"] == {"model": 3}
    assert len(said["bits_of_images"]) == len(said["indices"]) == 6
    assert said["classes"].keys() == {
        "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker"
    }  # fmt: skip
    mean = sum(said["bits_of_images"]) / 6
    assert said["bits_per_dimension"]["value"] == pytest.approx(mean)
    _, out, _ = run("--count", 8, "--steps", 3, "--bound", "--json")
    assert json.loads(out)["bits_of_images"][2:] == pytest.approx(said["bits_of_images"], rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--count", 0), "count must be at least 1"),
        (("--count", 2000), "ask for fewer"),
        (("--steps", 0), "at least 1 step"),
        (("--first-step", 1000), "begin at a step in (0, 1000)"),
        (("--repetitions", 0), "at least 1 repetition"),
        (("--bound", "--steps", 1001), "2..1000 evaluations"),
        (("--bound", "--first-step", 1), "leave it out with --bound"),
        (("--variance", "small"), "give it with --bound"),
        (("--picture", "likely.jpg"), "end it in .png"),
        (("--data", "fashion"), "unknown data set"),
        (("--split", "held-out"), "held-out"),
    ],
)
def test_mistakes_are_one_line(run: Run, options: tuple[object, ...], message: str) -> None:
    status, out, error = run(*options)
    assert status == 2
    assert out == ""
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("classes", "side", "message"), [(2, 28, "knows 10 classes"), (10, 32, "takes images of")]
)
def test_other_data_are_refused_in_one_line(
    run: Run, tmp_path: Path, classes: int, side: int, message: str
) -> None:
    for label in range(classes):
        (tmp_path / f"class-{label}").mkdir()
        Image.new("L", (side, side)).save(tmp_path / f"class-{label}" / "0.png")
    status, out, error = run("--data", tmp_path, "--split", "train", "--count", 2)
    assert (status, out) == (2, "")
    assert message in error
    assert len(error.splitlines()) == 1
