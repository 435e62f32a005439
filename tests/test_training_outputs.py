"""What a run leaves behind: its horizon, its log, the weights that are kept, the pictures."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from small_runs import CPU, HORIZON, LOG, SLICE, log_of, small, whole_run
from underone.checkpoint import load_checkpoint, load_config
from underone.data import Dataset, load_dataset
from underone.diffusion import LinearBeta, Noise
from underone.networks import UNet
from underone.training import begin as begin_module
from underone.training.begin import resume, start
from underone.training.journal import append_log, draw_loss, read_log, truncate_log
from underone.training.learning_rate import learning_rate
from underone.training.objective import Denoising
from underone.training.preview import draw_preview

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture(scope="module")
def images() -> Dataset:
    return load_dataset("fashion-mnist", "test", SLICE)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, images: Dataset) -> Path:
    """The folder of a run that nothing ever happened to."""
    return whole_run(tmp_path_factory.mktemp("runs") / "straight", images)


def test_minutes_become_a_horizon_by_the_measured_time(
    tmp_path: Path, images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first update takes longer where the network is compiled in it.
    monkeypatch.setattr(begin_module, "_seconds_of_updates", lambda *given: (10.0, 0.25))
    assert start(tmp_path / "a", "a", small(), images, CPU, minutes=2).plan.horizon == 411
    assert start(tmp_path / "b", "b", small(), images, CPU, minutes=1e-9).plan.horizon == 1
    assert resume(tmp_path / "a", small(), images, CPU).plan.horizon == 411


def test_the_logged_learning_rate_is_that_of_the_step_and_the_horizon(straight: Path) -> None:
    lines = log_of(straight)
    settings = small().optimisation
    for line in lines:
        step = int(line["step"]) - 1  # the rate is the one of the update that made this step
        expected = learning_rate(step, settings.learning_rate, settings.warmup_steps, HORIZON)
        assert line["learning_rate"] == expected
    assert lines[-1]["learning_rate"] < 1e-3 * settings.learning_rate


def test_the_config_says_how_many_images_of_each_class_there_are(
    straight: Path, images: Dataset
) -> None:
    counts = load_config(straight).data.class_images
    assert counts == tuple(int((images.labels == label).sum()) for label in range(10))


def test_averaged_weights_are_the_model_and_raw_ones_are_kept(straight: Path) -> None:
    state = load_file(straight / "training" / "state.safetensors")
    for name, prefix in (("model", "average."), ("raw", "network.")):
        weights = load_file(straight / f"{name}.safetensors")
        kept = {key.removeprefix(prefix) for key in state if key.startswith(prefix)}
        assert weights.keys() == kept
        assert all(torch.equal(weights[key], state[prefix + key]) for key in weights)
    config = json.loads((straight / "config.json").read_text())
    assert (config["training"]["steps"], config["training"]["label_dropout"]) == (HORIZON, 0.1)


@torch.no_grad()
def test_the_average_is_no_noise_even_in_a_short_run(straight: Path, images: Dataset) -> None:
    objective = Denoising(LinearBeta(), Noise(), label_dropout=0.0, null_label=10)
    real = images.images[:256] / 127.5 - 1

    def loss(network: torch.nn.Module) -> float:
        same = torch.Generator().manual_seed(0)
        return objective(network.eval(), real, images.labels[:256], same).item()

    torch.manual_seed(0)
    fresh = loss(UNet(small().network))
    average, raw = (loss(load_checkpoint(straight, which).network) for which in ("model", "raw"))
    assert raw < 0.97 * fresh
    assert average < 0.97 * fresh
    assert average < 1.02 * raw


def test_the_preview_shows_raw_samples_above_averaged_ones(straight: Path, tmp_path: Path) -> None:
    raw, average = (load_checkpoint(straight, which).network for which in ("raw", "model"))
    pictures = []
    for index, pair in enumerate(((raw, average), (average, raw), (raw, raw))):
        draw_preview(*pair, small(), tmp_path / f"{index}.png")
        with Image.open(tmp_path / f"{index}.png") as picture:
            width, height = picture.size
            middle = height // 2
            halves = [(0, 2, width, middle - 1), (0, middle + 1, width, height - 2)]
            pictures.append([picture.crop(half).tobytes() for half in halves])
    (top, bottom), swapped, twice = pictures
    assert top != bottom
    assert swapped == [bottom, top]
    assert twice == [top, top]


def test_the_loss_is_drawn(straight: Path, tmp_path: Path) -> None:
    draw_loss(straight / LOG, tmp_path / "loss.png", "loss")
    with Image.open(tmp_path / "loss.png") as picture:
        assert min(picture.size) > 200
        colours = picture.convert("RGB").getcolors(maxcolors=10**6)
        assert colours is not None
        assert len(colours) > 20


def test_a_loss_that_falls_below_zero_is_drawn_to_the_end(tmp_path: Path) -> None:
    """A logarithmic axis would have no place for it."""
    inks = []
    for name, last in (("above", 0.5), ("below", -0.5)):
        for step, loss in enumerate((2.0, 1.0, last)):
            append_log(tmp_path / f"{name}.jsonl", {"step": step, "loss": loss})
        draw_loss(tmp_path / f"{name}.jsonl", tmp_path / f"{name}.png", "loss")
        with Image.open(tmp_path / f"{name}.png") as picture:
            pixels = np.array(picture.convert("RGB")).astype(int)
        blue = (pixels[..., 2] > pixels[..., 0] + 60).any(axis=0)
        inks.append(np.flatnonzero(blue).max() - np.flatnonzero(blue).min())
    assert inks[1] > 0.9 * inks[0]


def test_a_line_cut_off_by_a_kill_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / LOG
    truncate_log(path, 3)
    assert not path.exists()
    for step in (5, 10, 15, 20):
        append_log(path, {"step": step, "loss": 0.1 * step})
    whole = path.read_text()
    path.write_text(whole[:-4])
    assert [line["step"] for line in read_log(path)] == [5, 10, 15]
    truncate_log(path, 10)
    assert path.read_text() == whole[: len(path.read_text())]
    assert [line["step"] for line in read_log(path)] == [5, 10]
    append_log(path, {"step": 15, "loss": 0.1 * 15})
    assert path.read_text() == whole[: len(path.read_text())]
