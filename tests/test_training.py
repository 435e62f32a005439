"""Training: the objective, the average, and runs that stop and go on bitwise."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from conftest import Run as CommandRun
from conftest import without_pictures
from helpers import float64
from underone.checkpoint import FeatureModel, load_checkpoint
from underone.data import Dataset, load_dataset
from underone.diffusion import LinearBeta, Noise, node_at
from underone.errors import UserError
from underone.training.augment import augmented
from underone.training.average import profile_exponent, update_average
from underone.training.begin import resume, start
from underone.training.learning_rate import learning_rate
from underone.training.loop import DivergedError, updates
from underone.training.objective import Denoising
from underone.training.randomness import batch_indices
from underone.training.recipe import (
    Augmentation,
    EncoderRecipe,
    Recipe,
    load_recipe,
    shipped_recipes,
)
from underone.training.run import Run

SLICE = Path(__file__).parent / "data" / "fashion-mnist"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images() -> Dataset:
    """The first thousand real test images, to train on."""
    return replace(load_dataset("fashion-mnist", "test", SLICE), split="train")


def tiny(*changes: str) -> Recipe:
    return load_recipe("tiny", ["batch_size=16", *changes])


def begin(folder: Path, images: Dataset, recipe: Recipe, steps: int) -> Run:
    return start(folder, "tiny", recipe, images, CPU, steps=steps)


def advance(run: Run, until: int) -> None:
    for _ in run.advance(lambda: run.state.step >= until):
        pass


def logged(folder: Path) -> list[tuple[int, float]]:
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [(record["step"], record["loss"]) for record in map(json.loads, lines)]


PRECONDITIONED = (
    "optimisation.optimiser=muon",
    "optimisation.flat=0.4",
    "optimisation.decay=linear",
    "prediction.name=preconditioned",
    "levels.name=log-normal",
)


@pytest.mark.parametrize(
    ("changes", "updates"), [((), 200), (PRECONDITIONED, 40)], ids=["ddpm", "preconditioned"]
)
def test_updates_resumed_half_way_are_those_of_one_run_bitwise(
    tmp_path: Path, images: Dataset, changes: tuple[str, ...], updates: int
) -> None:
    recipe = tiny(*changes)
    straight = begin(tmp_path / "straight", images, recipe, updates)
    first = begin(tmp_path / "resumed", images, recipe, updates)
    with without_pictures():
        advance(straight, updates)
        straight.save()
        advance(first, updates // 2)
        first.save()
        second = resume(tmp_path / "resumed", recipe, images, CPU)
        assert second.state.step == updates // 2
        advance(second, updates)
        second.save()
    for name in ("training/state", "model", "raw"):
        one, other = (
            load_file(tmp_path / folder / f"{name}.safetensors")
            for folder in ("straight", "resumed")
        )
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert logged(tmp_path / "straight") == logged(tmp_path / "resumed")
    steps, losses = zip(*logged(tmp_path / "straight"), strict=True)
    assert list(steps) == list(range(10, updates + 1, 10))
    # And it learns: the loss on real images falls well below that of predicting nothing.
    assert updates < 200 or losses[-1] < 0.6 * losses[0]
    average, raw = (
        load_file(tmp_path / "straight" / f"{name}.safetensors") for name in ("model", "raw")
    )
    assert not torch.equal(average["stem.weight"], raw["stem.weight"])


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path: Path, images: Dataset) -> None:
    recipe = tiny("log_every=5")
    straight = begin(tmp_path / "straight", images, recipe, 40)
    advance(straight, 40)
    killed = begin(tmp_path / "killed", images, recipe, 40)
    advance(killed, 15)
    killed.save()
    advance(killed, 32)  # logged and lost
    again = resume(tmp_path / "killed", recipe, images, CPU)
    assert again.state.step == 15
    advance(again, 40)
    assert logged(tmp_path / "killed") == logged(tmp_path / "straight")


@pytest.mark.slow
@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_run_goes_on(
    run: CommandRun, tmp_path: Path, which: signal.Signals
) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "underone", "train", "tiny", "--out", str(folder)]
    _write_images(tmp_path / "images")
    command += ["--set", f'data="{tmp_path / "images"}"', "--set", "log_every=1"]
    process = subprocess.Popen(
        [*command, "--steps", "100000"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    log = folder / "log.jsonl"
    for _ in range(1200):
        if log.exists() and log.read_text().count("\n") > 3:
            break
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.05)
    os.kill(process.pid, which)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + which
    assert "--resume goes on" in error
    assert load_file(folder / "model.safetensors")
    step, _ = logged(folder)[-1]
    status, _, told = run(*command[3:], "--resume", "--max-minutes", "0.005")
    assert status == 0
    assert f"step {step} of 100000" in told


def _write_images(folder: Path) -> None:
    from PIL import Image

    real = load_dataset("fashion-mnist", "test", SLICE)
    for label in range(10):
        (folder / f"{label}").mkdir(parents=True)
        chosen = real.images[real.labels == label][:4]
        for index, image in enumerate(chosen):
            Image.fromarray(image[0].numpy()).save(folder / f"{label}" / f"{index}.png")


def test_divergence_stops_with_the_last_good_checkpoint(tmp_path: Path, images: Dataset) -> None:
    recipe = tiny("optimisation.learning_rate=1e4", "optimisation.warmup_steps=0")
    run = begin(tmp_path / "run", images, recipe, 200)
    run.save()
    with pytest.raises(DivergedError, match="diverged at step"):
        advance(run, 200)
    saved = load_file(tmp_path / "run" / "model.safetensors")
    assert all(tensor.isfinite().all() for tensor in saved.values())
    load_checkpoint(tmp_path / "run")


def test_a_loss_about_0_may_rise_a_little(tmp_path: Path, images: Dataset) -> None:
    """As of a student, which begins trained, or whose likeness is by chance below 0."""
    losses = iter([-0.02, 0.5, -0.3, 1.5])

    def objective(
        network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Tensor:
        value = torch.cat([parameter.flatten() for parameter in network.parameters()]).sum()
        return value - value.detach() + next(losses)

    state = begin(tmp_path / "run", images, tiny(), 10).state
    found = updates(state, tiny(), objective, images, 10, None)
    assert [next(found).loss for _ in range(3)] == pytest.approx([-0.02, 0.5, -0.3])
    with pytest.raises(DivergedError, match=r"diverged at step 4: loss 1\.5"):
        next(found)


def test_what_cannot_be_started_or_resumed_is_told(tmp_path: Path, images: Dataset) -> None:
    recipe, folder = tiny(), tmp_path / "run"
    with pytest.raises(UserError, match="nothing to resume"):
        resume(folder, recipe, images, CPU)
    run = begin(folder, images, recipe, 10)
    advance(run, 2)
    run.save()
    with pytest.raises(UserError, match="--resume"):
        begin(folder, images, recipe, 10)
    with pytest.raises(UserError, match=r"seed was 0, now 1"):
        resume(folder, tiny("seed=1"), images, CPU)
    state = folder / "training" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"state\.safetensors"):
        resume(folder, recipe, images, CPU)
    with pytest.raises(UserError, match="network takes images of"):
        begin(tmp_path / "b", images, tiny("network.image_size=32", "network.attention=[8]"), 1)
    with pytest.raises(UserError, match="5 classes"):
        begin(tmp_path / "c", images, tiny("network.classes=5"), 1)
    assert not (tmp_path / "b").exists()


def test_the_horizon_is_fixed_once(tmp_path: Path, images: Dataset) -> None:
    recipe = tiny()
    assert begin(tmp_path / "steps", images, recipe, 37).plan.horizon == 37
    default = start(tmp_path / "recipe", "tiny", recipe, images, CPU)
    assert default.plan.horizon == recipe.steps
    timed = start(tmp_path / "minutes", "tiny", recipe, images, CPU, minutes=0.5)
    assert timed.plan.horizon > 10
    assert timed.state.step == 0
    again = resume(tmp_path / "minutes", recipe, images, CPU)
    assert again.plan == timed.plan
    # Measuring the speed left the run itself untouched.
    fresh = begin(tmp_path / "fresh", images, recipe, 5)
    for one, other in zip(
        timed.state.network.parameters(), fresh.state.network.parameters(), strict=True
    ):
        assert torch.equal(one, other)


def test_speed_is_measured_at_the_rates_of_the_run(tmp_path: Path, images: Dataset) -> None:
    """At its peak this one diverges at once; warmed up to as slowly as in the run it is small."""
    recipe = tiny("optimisation.learning_rate=1e6", "optimisation.warmup_steps=1000000000")
    begun = recipe.model_copy(update={"steps": 10**10})
    assert start(tmp_path / "a", "tiny", begun, images, CPU, minutes=0.1).plan.horizon > 0


def test_a_classifier_learns_and_its_features_get_their_scale(
    tmp_path: Path, images: Dataset
) -> None:
    recipe = load_recipe(
        "fashion-mnist-classifier",
        ["network.widths=[8,16,32]", "batch_size=50", "optimisation.warmup_steps=10"],
    )
    run = start(tmp_path / "run", "classifier", recipe, images, CPU, steps=60)
    advance(run, 60)
    scores = run.finish(replace(images, split="test"))
    assert scores["test_accuracy"] > 0.5
    model = load_checkpoint(tmp_path / "run")
    assert isinstance(model, FeatureModel)
    features, _ = model.features_and_logits(images.images)
    scaled = features.double() * model.config.feature_scale
    assert scaled.var(dim=0).sum().item() == pytest.approx(64, rel=1e-6)
    assert f"{scores['test_accuracy']:.2%}" in (tmp_path / "run" / "README.md").read_text()


def test_an_encoder_learns_without_labels(tmp_path: Path, images: Dataset) -> None:
    shrunk = ["network.widths=[8,16]", "network.projection=16", "batch_size=50"]
    recipe = load_recipe("fashion-mnist-encoder", [*shrunk, "optimisation.warmup_steps=10"])
    folders = {"labelled": images, "mislabelled": replace(images, labels=1 + 0 * images.labels)}
    weights = {}
    for name, data in folders.items():
        run = start(tmp_path / name, "encoder", recipe, data, CPU, steps=40)
        losses = [progress.update.loss for progress in run.advance(lambda: False)]
        assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
        scores = run.finish(replace(data, split="test"))
        weights[name] = (tmp_path / name / "model.safetensors").read_bytes()
    assert weights["labelled"] == weights["mislabelled"]
    model = load_checkpoint(tmp_path / "labelled")
    assert isinstance(model, FeatureModel)
    features, logits = model.features_and_logits(images.images)
    assert logits is None
    assert features.shape == (len(images), 16)
    assert scores["test_accuracy"] == 1  # of one class only
    assert "trained without its labels" in (tmp_path / "labelled" / "README.md").read_text()


def test_every_epoch_visits_every_image_once() -> None:
    walk = torch.cat([batch_indices(10, 4, seed=0, step=step) for step in range(5)])
    assert walk.shape == (20,)
    for epoch in (walk[:10], walk[10:]):
        assert sorted(epoch.tolist()) == list(range(10))
    assert walk[:10].tolist() != walk[10:].tolist()


def test_the_learning_rate_warms_up_and_ends_at_zero() -> None:
    rates = [learning_rate(step, 1e-3, 10, 110) for step in range(110)]
    assert rates[:10] == pytest.approx([1e-4 * k for k in range(1, 11)])
    assert max(rates) == pytest.approx(1e-3)
    assert rates[60] == pytest.approx(5e-4)
    assert all(b < a for a, b in pairwise(rates[10:]))
    # A run that is shorter than the warm-up would end in it.
    short = [learning_rate(step, 1e-3, 100, 20) for step in range(20)]
    assert max(short) == pytest.approx(1e-3)
    assert short[-1] < 1e-4
    assert rates[-1] < 1e-6


def test_the_average_is_the_power_function_average() -> None:
    exponent = profile_exponent(0.1)
    assert (exponent + 1) / ((exponent + 2) ** 2 * (exponent + 3)) == pytest.approx(0.01)
    assert exponent == pytest.approx(6.94, abs=0.01)
    network, average = nn.Linear(1, 1, bias=False).double(), nn.Linear(1, 1, bias=False).double()
    values = [math.sin(step) for step in range(1, 2001)]
    for step, value in enumerate(values, start=1):
        nn.init.constant_(network.weight, value)
        update_average(average, network, step, exponent)
    # The integral of t^k over each update's share of the run.
    edges = (torch.arange(2001).double() / 2000) ** (exponent + 1)
    expected = (edges.diff() * float64(values)).sum()
    assert average.weight.item() == pytest.approx(expected.item(), rel=1e-9)


def test_buffers_are_copied_not_averaged() -> None:
    network, average = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    network(torch.randn(8, 2))
    update_average(average, network, 50, 6.94)
    assert torch.equal(average.running_mean, network.running_mean)  # type: ignore[arg-type]
    assert int(average.num_batches_tracked) == 1  # type: ignore[arg-type]


class Scaled(nn.Module):
    """Predicts `factor` times the best linear guess of the noise; remembers the labels it saw."""

    def __init__(self, deviation: float, factor: float = 1.0) -> None:
        super().__init__()
        self.deviation, self.factor = deviation, factor
        self.labels: list[int] = []

    def forward(self, x: Tensor, condition: Tensor, label: Tensor) -> Tensor:
        node = node_at(LinearBeta(), condition.double() / 1000)
        variance = node.alpha**2 * self.deviation**2 + node.sigma**2
        self.labels += label.tolist()
        return self.factor * (node.sigma / variance).to(x)[:, None, None, None] * x


def test_the_objective_is_minimal_at_the_conditional_mean() -> None:
    # For x0 ~ N(0, s^2) the best guess of z is sigma x / (alpha^2 s^2 + sigma^2), and its error
    # alpha^2 s^2 / (alpha^2 s^2 + sigma^2), here averaged over the steps.
    generator = torch.Generator().manual_seed(0)
    data = 0.5 * torch.randn(4000, 1, 4, 4, generator=generator)
    labels = torch.zeros(4000, dtype=torch.int64)
    objective = Denoising(LinearBeta(), Noise(), label_dropout=0.1, null_label=10)
    losses = {}
    for factor in (0.95, 1.0, 1.05):
        same = torch.Generator().manual_seed(1)
        losses[factor] = objective(Scaled(0.5, factor), data, labels, same).item()
    assert losses[1.0] == min(losses.values())
    alpha, sigma = LinearBeta()(torch.arange(1, 1001) / 1000)
    expected = (alpha**2 * 0.25 / (alpha**2 * 0.25 + sigma**2)).mean().item()
    assert losses[1.0] == pytest.approx(expected, rel=0.02)


def test_labels_are_dropped_as_often_as_asked() -> None:
    network = Scaled(1.0)
    objective = Denoising(LinearBeta(), Noise(), label_dropout=0.1, null_label=10)
    labels = torch.full((20_000,), 3)
    objective(network, torch.zeros(20_000, 1, 1, 1), labels, torch.Generator().manual_seed(0))
    dropped = network.labels.count(10)
    assert dropped + network.labels.count(3) == 20_000
    assert abs(dropped - 2000) < 4 * math.sqrt(20_000 * 0.1 * 0.9)


def test_augmentation_moves_and_mirrors_and_changes_no_pixel() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(400, 1, 6, 6, generator=generator)
    flipped = augmented(images, Augmentation(flip=True), generator)
    mirrored = (flipped == images.flip(3)).all(dim=(1, 2, 3))
    assert ((flipped == images).all(dim=(1, 2, 3)) | mirrored).all()
    assert 140 < mirrored.sum() < 260


@pytest.mark.parametrize("padding", ["black", "edge"])
def test_a_shift_brings_in_black_or_the_edge(padding: Literal["black", "edge"]) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(400, 1, 6, 6, generator=generator)
    shifted = augmented(images, Augmentation(shift=1, padding=padding), generator)
    padded = (
        nn.functional.pad(images, (1, 1, 1, 1), value=-1.0)
        if padding == "black"
        else torch.cat([images[:, :, :1], images, images[:, :, -1:]], dim=2)[..., [0, *range(6), 5]]
    )
    moves = [
        (shifted == padded[:, :, down : down + 6, right : right + 6]).all(dim=(1, 2, 3))
        for down in range(3)
        for right in range(3)
    ]
    counts = torch.stack(moves).sum(dim=1)
    assert counts.sum() == 400
    assert counts.min() > 15


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_fit_their_data(name: str) -> None:
    recipe = load_recipe(name)
    channels, size, classes = {
        "fashion-mnist": (1, 28, 10),
        "cifar10": (3, 32, 10),
        "noto-emoji": (3, 32, 9),
        "path/to/images": (3, 32, 10),
    }[recipe.data]
    assert (recipe.network.channels, recipe.network.image_size) == (channels, size)
    blind = isinstance(recipe, EncoderRecipe) or name.endswith("unconditional")
    assert recipe.network.classes == (None if blind else classes)
    assert recipe.network.revision == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("network.widht=3", "did you mean 'width'"),
        ("widht", "KEY=VALUE"),
        ("steps.more=3", "steps is a value"),
        ("steps=0", "steps"),
        ("schedule.name=cosin", "cosin"),
        ("label_dropout=1.5", "label_dropout"),
        ("network.patch=3", "multiple of patch"),
    ],
)
def test_impossible_changes_are_told(change: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe("tiny", [change])
