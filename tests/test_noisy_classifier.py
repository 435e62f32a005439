"""The classifier of noisy images: its network, what it minimises, how it is trained and used."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

import conftest
from helpers import refusal
from underone.checkpoint import (
    DataRecord,
    NoisyClassifier,
    NoisyClassifierCheckpointConfig,
    TrainingRecord,
    load_checkpoint,
    save_config,
    save_weights,
)
from underone.conformance.oracles import GaussianData
from underone.data import Dataset, load_dataset
from underone.diffusion import (
    ClassifierGuidance,
    Cosine,
    LinearBeta,
    NoiseStreams,
    Schedule,
    count_evaluations,
    node_at,
)
from underone.diffusion.node import expand
from underone.errors import UserError
from underone.networks import HalfUNet, NoisyClassifierConfig, UNet, UNetConfig
from underone.networks.precision import fast_dtype
from underone.shipped import find_checkpoint
from underone.training.begin import resume, start
from underone.training.calibration import calibrate
from underone.training.noisy_accuracy import TIMES, accuracy_at, noisy_accuracy
from underone.training.objective import NoisyClassification
from underone.training.recipe import Recipe, load_recipe
from underone.training.run import Run
from underone.zoo import load_extractor, load_model, ship

SLICE = Path(__file__).parent / "data" / "fashion-mnist"
CPU = torch.device("cpu")
SMALL: dict[str, Any] = {"image_size": 8, "channels": 1, "width": 8, "attention": (4,), "heads": 2}
SMALL_RECIPE = (
    "network.width=8",
    "network.heads=2",
    "batch_size=32",
    "log_every=5",
    "optimisation.learning_rate=0.005",
    "optimisation.warmup_steps=5",
)


def config(**changes: Any) -> NoisyClassifierConfig:
    return NoisyClassifierConfig(**SMALL | {"classes": 3} | changes)


def network(**changes: Any) -> HalfUNet:
    """A small classifier with no weight left at zero."""
    made = HalfUNet(config(**changes))
    generator = torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.1, generator=generator)
    return made.eval()


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint folder with random weights."""
    document = NoisyClassifierCheckpointConfig(
        network=config(),
        schedule=LinearBeta(),
        data=DataRecord(name="squares", sha256="0" * 64, class_names=("a", "b", "c")),
        training=TrainingRecord(
            recipe="none", steps=7, batch_size=2, images_seen=14, seconds=1, seed=3, torch="2"
        ),
    )
    save_config(tmp_path / "noisy", document)
    save_weights(tmp_path / "noisy", network().state_dict())
    return tmp_path / "noisy"


def loaded(folder: Path) -> NoisyClassifier:
    model = load_checkpoint(folder)
    assert isinstance(model, NoisyClassifier)
    return model


# The network.


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"channels": 3},
        {"image_size": 7},
        {"patch": 2, "attention": (2,)},
        {"blocks": 2, "multipliers": (1, 2, 2), "attention": (2,)},
        {"revision": 1},
    ],
)
@torch.no_grad()
def test_logits_of_every_row_are_its_own(changes: dict[str, Any]) -> None:
    made = network(**changes)
    x = normal(4, made.config.channels, made.config.image_size, made.config.image_size)
    times = torch.tensor([1.0, 40.0, 500.0, 1000.0])
    together = made(x, times)
    assert together.shape == (4, 3)
    alone = torch.cat([made(x[i : i + 1], times[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)
    changed = x.clone()
    changed[2] += 10
    other = made(changed, times)
    assert torch.equal(other[[0, 1, 3]], together[[0, 1, 3]])
    assert not torch.allclose(other[2], together[2])
    later = made(x, times + 300)
    assert (later - together).abs().amax(dim=1).min() > 1e-5


def test_it_is_the_contracting_half_of_the_unet_of_its_shape() -> None:
    whole = UNet(UNetConfig(**SMALL, classes=None))
    half = network()
    shared = {name: t for name, t in whole.state_dict().items() if name in half.state_dict()}
    assert {n.split(".")[0] for n in half.state_dict()} - {n.split(".")[0] for n in shared} == set()
    body = [name for name in half.state_dict() if not name.startswith("out")]
    assert all(shared[name].shape == half.state_dict()[name].shape for name in body)
    # With the same weights it computes what the U-Net has in its middle, bit for bit.
    half.load_state_dict({name: shared[name] for name in body}, strict=False)
    x, time = normal(2, 1, 8, 8), torch.tensor([3.0, 900.0])
    mine, theirs = (part.contract(x, part.embed(x, time, None))[0] for part in (half, whole))
    assert torch.equal(mine, theirs)


def test_a_fresh_one_finds_all_classes_equally_likely_and_learns() -> None:
    torch.manual_seed(0)
    made = HalfUNet(config())
    x, times, labels = normal(6, 1, 8, 8), torch.full((6,), 10.0), torch.arange(6) % 3
    assert not made(x, times).any()
    optimizer = torch.optim.Adam(made.parameters(), lr=0.01)
    for _ in range(60):
        loss = nn.functional.cross_entropy(made(x, times), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3 * math.log(3)
    assert all(p.grad is not None and p.grad.any() for p in made.parameters())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"classes": 0}, "classes must be >= 1, got 0"),
        ({"width": 0}, "must be >= 1"),
        ({"width": 9}, "width 9 must be even"),
        ({"patch": 3}, "not a multiple of patch 3"),
        ({"dropout": 1.0}, "dropout must lie in"),
        ({"multipliers": ()}, "multipliers must be"),
        ({"attention": (5,)}, "attention at [5] is never reached: this network works at [8, 4]"),
    ],
)
def test_an_impossible_shape_is_refused(changes: dict[str, Any], expected: str) -> None:
    assert expected in refusal(lambda: config(**changes))


# What it minimises.


class Answers(nn.Module):
    """A classifier with the same logits for every input."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return self.logits.expand(len(x), -1)


def test_without_a_look_at_x_the_least_loss_is_the_entropy_of_the_priors() -> None:
    prior = torch.tensor([0.5, 0.25, 0.25])
    labels = torch.tensor([0, 0, 1, 2])
    objective = NoisyClassification(LinearBeta(), 0.0)

    def loss(logits: Tensor, smoothing: float = 0.0) -> float:
        given = replace(objective, label_smoothing=smoothing)
        images = torch.zeros(4, 1, 2, 2)
        return given(Answers(logits), images, labels, torch.Generator()).item()

    entropy = -(prior * prior.log()).sum().item()
    assert loss(prior.log()) == pytest.approx(entropy, rel=1e-6)
    assert loss(torch.zeros(3)) == pytest.approx(math.log(3), rel=1e-6)
    # Cross-entropy against 0.9 of the label and 0.1 of all classes alike.
    uniform = -prior.log().mean().item()
    assert loss(prior.log(), 0.1) == pytest.approx(0.9 * entropy + 0.1 * uniform, rel=1e-6)


class Posterior(nn.Module):
    """The exact log p(c | x_t) of classes that are one image each, times `factor`."""

    def __init__(self, schedule: Schedule, images: Tensor, factor: float, late: float) -> None:
        super().__init__()
        self.schedule, self.images, self.factor, self.late = schedule, images, factor, late

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        assert condition.dtype == torch.float32
        node = node_at(self.schedule, (condition.double() / 1000 * self.late).clamp(max=1))
        alpha, sigma = expand(node.alpha, x[:, None]), expand(node.sigma, x[:, None])
        squares = ((x[:, None] - alpha * self.images) ** 2 / (2 * sigma**2)).flatten(2).sum(2)
        return -self.factor * squares


@pytest.mark.parametrize("schedule", [LinearBeta(), Cosine(), LinearBeta(steps=7)])
def test_the_posterior_under_the_right_noise_level_has_the_least_loss(schedule: Schedule) -> None:
    means = 0.4 * normal(3, 1, 2, 2, seed=1)
    labels = torch.arange(6000) % 3
    losses = {
        (factor, late): NoisyClassification(schedule, 0.0)(
            Posterior(schedule, means, factor, late),
            means[labels],
            labels,
            torch.Generator().manual_seed(0),
        ).item()
        for factor, late in ((1.0, 1.0), (0.85, 1.0), (1.15, 1.0), (1.0, 0.8), (1.0, 1.25))
    }
    assert min(losses, key=lambda key: losses[key]) == (1.0, 1.0)
    assert losses[1.0, 1.0] < math.log(3)


# What is loaded.


def test_a_folder_loads_as_what_it_is_and_nothing_else(folder: Path) -> None:
    model = loaded(folder)
    assert (model.shape, model.num_classes, model.schedule) == ((1, 8, 8), 3, LinearBeta())
    for load, expected in ((load_model, "cannot be sampled"), (load_extractor, "no features")):
        text = refusal(lambda load=load: load(str(folder)))  # type: ignore[misc]
        assert "a classifier of noisy images, to guide diffusion models" in text
        assert expected in text
    nothing = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    data = Dataset("none", "test", nothing, torch.zeros(1, dtype=torch.int64), ("a",))
    diffusion = find_checkpoint("fashion-mnist")
    assert "no classifier of noisy" in refusal(lambda: noisy_accuracy(diffusion, data))
    assert "nothing to calibrate" in refusal(lambda: calibrate(folder, data, None))
    assert "weak.safetensors" in refusal(lambda: load_checkpoint(folder, "weak"))


def test_features_that_are_all_alike_are_no_features(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(find_checkpoint("fashion-mnist-classifier"), tmp_path / "copy"))
    before = (folder / "config.json").read_bytes()
    alike = torch.zeros(4, 1, 28, 28, dtype=torch.uint8)
    for images in (alike, alike[:1]):
        data = Dataset("same", "train", images, torch.zeros(len(images), dtype=torch.int64), ("a",))
        with pytest.raises(UserError, match="the same features"):
            calibrate(folder, data, None)
    assert (folder / "config.json").read_bytes() == before


def test_the_schedule_is_part_of_its_identity(folder: Path) -> None:
    model = loaded(folder)
    save_config(folder, model.config.model_copy(update={"schedule": Cosine()}))
    assert loaded(folder).sha256 != model.sha256


@torch.no_grad()
def test_it_is_asked_with_the_time_in_thousandths(folder: Path) -> None:
    model, x = loaded(folder), normal(3, 1, 8, 8)
    times = torch.tensor([0.01, 0.25, 1.0], dtype=torch.float64)
    every = model(x, node_at(LinearBeta(), times))
    assert torch.equal(every, model.network(x, (1000 * times).float()))
    one = model(x, node_at(LinearBeta(), times[1]))
    assert torch.equal(one, model.network(x, torch.full((3,), 250.0)))
    mixed = model(x, node_at(LinearBeta(), times), autocast=torch.bfloat16)
    assert mixed.dtype == torch.float32
    assert 0 < (mixed - every).norm() / every.norm() < 0.05


@pytest.mark.parametrize("per_row", [False, True])
def test_its_gradient_guides(folder: Path, per_row: bool) -> None:
    model = loaded(folder)
    model.network.double()
    denoiser = GaussianData(LinearBeta(), 0.0, 0.5)
    times = torch.tensor([0.05, 0.3, 0.6], dtype=torch.float64)
    node = node_at(LinearBeta(), times if per_row else times[1])
    x, direction = normal(3, 1, 8, 8).double(), normal(3, 1, 8, 8, seed=1).double()
    labels = torch.tensor([2, 0, 1])

    def log_probability(x: Tensor) -> Tensor:
        return model(x, node).log_softmax(dim=1)[torch.arange(3), labels]

    with torch.inference_mode(), count_evaluations() as evaluations:
        guided = ClassifierGuidance(denoiser, model, 2.0)(x, node, labels)
        added = guided - denoiser(x, node, labels)
        small = 1e-5
        slope = (
            log_probability(x + small * direction) - log_probability(x - small * direction)
        ) / (2 * small)
    assert evaluations["classifier"] == 3
    expected = 2.0 * node.sigma**2 / node.alpha * slope
    assert expected.abs().min() > 1e-6
    along = (added * direction).flatten(1).sum(1)
    torch.testing.assert_close(along, expected, rtol=1e-4, atol=0)
    assert all(parameter.grad is None for parameter in model.network.parameters())


# How it is trained.


@pytest.fixture(scope="module")
def images() -> Dataset:
    """The first thousand real test images, to train on."""
    return replace(load_dataset("fashion-mnist", "test", SLICE), split="train")


def recipe(*changes: str) -> Recipe:
    return load_recipe("fashion-mnist-noisy-classifier", [*SMALL_RECIPE, *changes])


def advance(run: Run, until: int) -> list[float]:
    return [now.update.loss for now in run.advance(lambda: run.state.step >= until)]


def test_it_learns_what_noise_leaves_to_be_seen(tmp_path: Path, images: Dataset) -> None:
    folder, few = tmp_path / "run", first(images, 260)
    run = start(folder, "noisy", recipe(), images, CPU, steps=80)
    losses = advance(run, 80)
    assert losses[0] == pytest.approx(math.log(10), rel=1e-5)
    assert sum(losses[-20:]) < 0.9 * sum(losses[:20])
    scores = run.finish(few)
    assert list(scores) == [f"test_accuracy_at_{time:g}" for time in TIMES]
    assert scores["test_accuracy_at_0.1"] > 0.4
    assert scores["test_accuracy_at_0.1"] > scores["test_accuracy_at_0.5"] + 0.1
    assert abs(scores["test_accuracy_at_0.9"] - 0.1) < 0.1
    card = (folder / "README.md").read_text()
    assert f"| test accuracy at t = 0.1 | {scores['test_accuracy_at_0.1']:.2%} |" in card
    assert "A classifier of noisy images of fashion-mnist" in card
    assert loaded(folder).config.training.moving_average is None
    assert not (folder / "raw.safetensors").exists()


def first(data: Dataset, count: int) -> Dataset:
    return replace(data, images=data.images[:count], labels=data.labels[:count])


def test_accuracy_is_of_every_image_under_noise_of_its_own(tmp_path: Path, images: Dataset) -> None:
    run = start(tmp_path / "run", "noisy", recipe(), images, CPU, steps=20)
    advance(run, 20)
    run.save()
    model, some = loaded(tmp_path / "run"), first(images, 260)  # more than a batch
    node = node_at(model.schedule, torch.tensor(0.3, dtype=torch.float64))
    noise = NoiseStreams([(0, index) for index in range(260)], (1, 28, 28))()
    x = node.alpha * (some.images / 127.5 - 1) + node.sigma * noise
    with torch.no_grad():
        guessed = model(x, node, fast_dtype(CPU)).argmax(dim=1)
    right = int((guessed == some.labels).sum())
    assert 0 < right < 260
    assert accuracy_at(model, some, 0.3) == pytest.approx(right / 260, abs=1.5 / 260)
    assert accuracy_at(model, replace(some, labels=(some.labels + 1) % 10), 0.3) < right / 260


def test_resumed_it_is_bitwise_what_it_would_have_been(tmp_path: Path, images: Dataset) -> None:
    for name, stops in (("whole", [12]), ("pieces", [1, 7, 12])):
        run = start(tmp_path / name, "noisy", recipe(), images, CPU, steps=12)
        for stop in stops:
            advance(run, stop)
            run.save()
            run = resume(tmp_path / name, recipe(), images, CPU)
    for file in ("training/state", "model"):
        one, other = (
            load_file(tmp_path / name / f"{file}.safetensors") for name in ("whole", "pieces")
        )
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_classifier_of_other_noise_is_another_run(tmp_path: Path, images: Dataset) -> None:
    run = start(tmp_path / "run", "noisy", recipe(), images, CPU, steps=5)
    advance(run, 1)
    run.save()
    other = recipe("schedule.name=cosine")
    assert "another recipe" in refusal(lambda: resume(tmp_path / "run", other, images, CPU))
    wrong = recipe("network.classes=7")
    assert "7 classes" in refusal(lambda: start(tmp_path / "b", "b", wrong, images, CPU, steps=1))


# The commands.


def write_images(folder: Path, splits: tuple[str, ...]) -> None:
    real = load_dataset("fashion-mnist", "test", SLICE)
    for split, label in ((split, label) for split in splits for label in range(10)):
        (folder / split / f"{label}").mkdir(parents=True)
        for index, image in enumerate(real.images[real.labels == label][:3]):
            Image.fromarray(image[0].numpy()).save(folder / split / f"{label}" / f"{index}.png")


def test_the_command_trains_and_tells_accuracy_by_noise(run: conftest.Run, tmp_path: Path) -> None:
    write_images(tmp_path / "both", ("train", "test"))
    write_images(tmp_path / "one", (".",))  # by class, not by split: nothing is held out
    changes = [part for change in SMALL_RECIPE for part in ("--set", change)]

    def train(images: Path, *more: str) -> tuple[int, str, str]:
        data = ("--set", f'data="{images}"', "--out", tmp_path / f"run-{images.name}")
        return run("train", "fashion-mnist-noisy-classifier", *changes, *data, *more)

    status, out, error = train(tmp_path / "both", "--steps", "2", "--json")
    assert status == 0, error
    told = json.loads(out)
    assert [told[f"test_accuracy_at_{time:g}"] for time in TIMES]
    status, out, error = train(tmp_path / "both", "--resume")
    assert status == 0
    assert "test accuracy at 0.1" in out
    assert f"{told['test_accuracy_at_0.1']:.2%}" in out
    assert "done, 2 steps" in error
    assert "scaling its features" not in error
    status, out, error = train(tmp_path / "one", "--steps", "1")
    assert (status, out) == (0, "")
    assert "done, 1 steps" in error


def test_commands_for_other_models_say_what_it_is(run: conftest.Run, folder: Path) -> None:
    for arguments in (
        ("sample", folder),
        ("guide", folder),
        ("evaluate", folder, "--reference", "fashion-mnist"),
        ("evaluate", "x.npz", "--reference", "fashion-mnist", "--extractor", folder),
    ):
        status, out, error = run(*arguments)
        assert (status, out) == (2, "")
        assert "a classifier of noisy images, to guide diffusion models" in error
        assert error.count("\n") == 1


def test_shipping_rounds_its_weights_and_measures_those(
    tmp_path: Path, images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "both", ("train", "test"))
    data = str(tmp_path / "both")
    given = recipe(f'data="{data}"')
    run = start(tmp_path / "noisy", "noisy", given, load_dataset(data, "train"), CPU, steps=2)
    advance(run, 2)
    run.finish(None)
    monkeypatch.setattr(ship, "zoo_folder", lambda: tmp_path / "zoo")
    monkeypatch.chdir(tmp_path)  # where the data set is found by its name
    ship.ship(tmp_path / "noisy", samples=5000)
    shipped = load_file(tmp_path / "zoo" / "noisy" / "model.safetensors")
    assert {tensor.dtype for tensor in shipped.values()} == {torch.float16}
    assert loaded(tmp_path / "zoo" / "noisy").config == loaded(tmp_path / "noisy").config
    assert "test accuracy at t = 0.9" in (tmp_path / "zoo" / "noisy" / "README.md").read_text()
    assert not (tmp_path / "zoo" / "references").exists()
