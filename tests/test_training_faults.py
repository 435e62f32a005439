"""Training under faults: kills, stops anywhere, divergence, folders that do not fit."""

import json
import multiprocessing
import random
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from conftest import without_pictures
from small_runs import CPU, HORIZON, SLICE, advance, begin, log_of, small, whole_run
from underone.checkpoint import load_checkpoint, load_tensors
from underone.data import Dataset, load_dataset
from underone.errors import UserError
from underone.training import run as run_module
from underone.training.begin import resume, start
from underone.training.loop import DivergedError
from underone.training.recipe import Recipe, load_recipe
from underone.training.run import Run

pytestmark = pytest.mark.usefixtures("no_pictures")

SAVING_ALWAYS = "checkpoint_minutes=1e-9"
SAVING_OFTEN = "checkpoint_minutes=0.001"


def small_classifier() -> Recipe:
    changes = ["network.widths=[8]", "batch_size=8", "optimisation.warmup_steps=0", "log_every=5"]
    return load_recipe("fashion-mnist-classifier", changes)


@pytest.fixture(scope="module")
def images() -> Dataset:
    return load_dataset("fashion-mnist", "test", SLICE)


def saved_step(folder: Path) -> int:
    """The step of the state on disk, 0 where there is none yet."""
    path = folder / "training" / "state.safetensors"
    if not path.exists():
        return 0
    # "pt" would open the file a second time, and may find the next save there.
    with safe_open(path, framework="numpy") as file:
        return int(file.metadata()["step"])


def everything(folder: Path) -> dict[str, Tensor]:
    """Every tensor a run keeps: network, average, moments, and both sets of weights."""
    tensors = {}
    for name in ("training/state", "model", "raw"):
        for key, tensor in load_file(folder / f"{name}.safetensors").items():
            tensors[f"{name}/{key}"] = tensor
    return tensors


def check_same(one: Path, other: Path) -> None:
    first, second = everything(one), everything(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert log_of(one) == log_of(other)


def refusal_to_resume(folder: Path, recipe: Recipe, images: Dataset) -> str:
    with pytest.raises(UserError) as caught:
        resume(folder, recipe, images, CPU)
    text = str(caught.value)
    assert "\n" not in text
    assert str(folder) in text
    return text


# Kills and stops.


def go_on(folder: Path) -> None:
    """The process to kill: start or resume, and train to the end, saving every few updates."""
    torch.set_num_threads(1)  # as in the tests themselves, see conftest
    images = load_dataset("fashion-mnist", "test", SLICE)
    with without_pictures():
        if (folder / "training" / "plan.json").exists():
            run = resume(folder, small(SAVING_OFTEN), images, CPU)
        else:
            run = begin(folder, images, SAVING_OFTEN)
        for _ in run.advance(lambda: False):
            pass
        run.save()


def loads_or_can_be_mended(folder: Path) -> None:
    """A kill between the last two files of a save is told, and how to go on."""
    if not (folder / "config.json").exists():
        return
    try:
        load_checkpoint(folder)
    except UserError as error:
        assert "go on with --resume" in str(error)  # noqa: PT017 (most kills end in no error)


@pytest.mark.slow
def test_kill_9_at_any_moment_changes_nothing(tmp_path: Path, images: Dataset) -> None:
    folder = tmp_path / "run"
    chance = random.Random(0)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["underone.training.run"])
    kills = 0
    for _ in range(4):
        before, deadline = saved_step(folder), time.monotonic() + 120
        process = context.Process(target=go_on, args=(folder,))
        process.start()
        while saved_step(folder) <= before and process.is_alive():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.1))
        process.kill()
        process.join()
        kills += process.exitcode == -9
        loads_or_can_be_mended(folder)
    assert kills > 1
    last = resume(folder, small(SAVING_OFTEN), images, CPU)
    assert last.state.step == saved_step(folder)
    advance(last, HORIZON)
    last.save()
    check_same(folder, whole_run(tmp_path / "straight", images))
    assert [line["step"] for line in log_of(folder)] == list(range(5, HORIZON + 1, 5))


@pytest.mark.parametrize("autocast", [None, torch.bfloat16], ids=["float32", "bfloat16"])
def test_stopping_between_lines_of_the_log_loses_none_of_their_losses(
    tmp_path: Path, images: Dataset, monkeypatch: pytest.MonkeyPatch, autocast: torch.dtype | None
) -> None:
    monkeypatch.setattr(run_module, "fast_dtype", lambda device: autocast)
    whole = begin(tmp_path / "whole", images, steps=32)
    advance(whole, 32)
    whole.save()
    run = begin(tmp_path / "pieces", images, SAVING_ALWAYS, steps=32)
    for stop in (1, 13, 14, 20, 32):
        advance(run, stop)
        run.save()
        run = resume(tmp_path / "pieces", small(SAVING_ALWAYS), images, CPU)
        assert run.state.step == stop
    check_same(tmp_path / "pieces", tmp_path / "whole")
    assert [line["step"] for line in log_of(tmp_path / "whole")] == [5, 10, 15, 20, 25, 30, 32]


def test_a_classifier_goes_on_bitwise_too(tmp_path: Path, images: Dataset) -> None:
    for name, stops in (("whole", [12]), ("pieces", [7, 12])):
        run = start(tmp_path / name, "c", small_classifier(), images, CPU, steps=12)
        for stop in stops:
            advance(run, stop)
            run.save()
            run = resume(tmp_path / name, small_classifier(), images, CPU)
    for file in ("training/state", "model"):
        one, other = (
            load_file(tmp_path / name / f"{file}.safetensors") for name in ("whole", "pieces")
        )
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_run_killed_before_its_first_save_begins_again(tmp_path: Path, images: Dataset) -> None:
    folder = tmp_path / "run"
    advance(begin(folder, images), 12)
    assert len(log_of(folder)) == 2
    run = resume(folder, small(), images, CPU)
    assert run.state.step == 0
    assert log_of(folder) == []


def test_a_run_killed_before_its_plan_was_written_can_be_started(
    tmp_path: Path, images: Dataset
) -> None:
    (tmp_path / "run" / "training").mkdir(parents=True)
    assert begin(tmp_path / "run", images).state.step == 0


class KilledError(Exception):
    """Stands in for a kill at the moment that it is raised."""


def save_cut_short(run: Run, monkeypatch: pytest.MonkeyPatch, writer: str) -> None:
    """Save a run, and be killed where it would call `writer`."""

    def killed(*arguments: object, **options: object) -> None:
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(run_module, writer, killed)
        with pytest.raises(KilledError):
            run.save()


@pytest.mark.parametrize("writer", ["save_weights", "save_config"])
def test_a_kill_inside_the_first_save_leaves_no_model_and_the_data_known(
    tmp_path: Path, images: Dataset, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    folder = tmp_path / "run"
    run = begin(folder, images)
    advance(run, 2)
    save_cut_short(run, monkeypatch, writer)
    assert not (folder / "config.json").exists()
    other = replace(images, images=images.images.flip(3))
    assert "other data" in refusal_to_resume(folder, small(), other)
    assert resume(folder, small(), images, CPU).state.step == 2


def test_weights_and_config_of_different_steps_are_never_one_model(
    tmp_path: Path, images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    run = begin(folder, images)
    advance(run, 2)
    run.save()
    advance(run, 4)
    save_cut_short(run, monkeypatch, "save_weights")
    assert load_checkpoint(folder).config.training.steps == 2  # type: ignore[union-attr]
    save_cut_short(run, monkeypatch, "save_config")
    for weights in ("model", "raw"):
        with pytest.raises(UserError, match=r"weights of step 4, but its config\.json says 2"):
            load_checkpoint(folder, weights)
    again = resume(folder, small(), images, CPU)
    again.save()
    load_checkpoint(folder, "raw")
    assert load_checkpoint(folder).config.training.steps == 4  # type: ignore[union-attr]


def test_a_plan_from_before_it_named_its_data_goes_on(tmp_path: Path, images: Dataset) -> None:
    folder = tmp_path / "run"
    run = begin(folder, images)
    advance(run, 2)
    run.save()
    plan = folder / "training" / "plan.json"
    document = json.loads(plan.read_text())
    del document["data_sha256"]
    plan.write_text(json.dumps(document))
    assert resume(folder, small(), images, CPU).state.step == 2
    other = replace(images, images=images.images.flip(3))
    assert "other data" in refusal_to_resume(folder, small(), other)


# Divergence: nothing bad is ever saved.


def test_a_loss_that_is_not_a_number_stops_before_it_reaches_the_weights(
    tmp_path: Path, images: Dataset
) -> None:
    run = begin(tmp_path / "run", images)
    advance(run, 3)
    run.save()
    before = {name: t.clone() for name, t in run.state.network.state_dict().items()}
    poisoned = mock.patch(
        "underone.training.loop.augmented", lambda images, *rest: images * float("nan")
    )
    with poisoned, pytest.raises(DivergedError, match="step 4: loss nan"):
        advance(run, 10)
    after = run.state.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert run.state.step == 3
    again = resume(tmp_path / "run", small(), images, CPU)
    advance(again, 5)
    assert again.state.step == 5


def test_a_classifier_whose_statistics_were_poisoned_is_not_saved(
    tmp_path: Path, images: Dataset
) -> None:
    folder = tmp_path / "run"
    run = start(folder, "c", small_classifier(), images, CPU, steps=20)
    advance(run, 2)
    run.save()
    good = (folder / "model.safetensors").read_bytes()
    poisoned = mock.patch(
        "underone.training.loop.augmented", lambda images, *rest: images * float("nan")
    )
    with poisoned, pytest.raises(DivergedError):
        advance(run, 20)
    with pytest.raises(UserError, match="NaN"):  # batch normalisation has seen it
        run.save()
    assert (folder / "model.safetensors").read_bytes() == good
    assert resume(folder, small_classifier(), images, CPU).state.step == 2


def test_infinite_weights_do_not_replace_good_ones(tmp_path: Path, images: Dataset) -> None:
    folder = tmp_path / "run"
    run = begin(folder, images)
    advance(run, 2)
    run.save()
    good = everything(folder)
    with torch.no_grad():
        next(run.state.network.parameters()).fill_(float("inf"))
    with pytest.raises(UserError, match="infinite"):
        run.save()
    now = everything(folder)
    assert all(torch.equal(good[name], now[name]) for name in good)
    load_checkpoint(folder)


# What is not the same run is not gone on with.


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, images: Dataset) -> Path:
    """A run stopped and saved after two updates; its tests put back what they break."""
    folder = tmp_path_factory.mktemp("runs") / "stopped"
    run = begin(folder, images)
    advance(run, 2)
    run.save()
    return folder


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ("seed=1", "seed was 0, now 1"),
        ("optimisation.learning_rate=0.5", "optimisation.learning_rate was 0.005, now 0.5"),
        ("network.width=16", "network.width was 8, now 16"),
        ("schedule.name=cosine", "schedule.beta_min was 0.0001, now None"),
        ("prediction.name=velocity", "prediction.name was noise, now velocity"),
        ("batch_size=9", "batch_size was 8, now 9"),
    ],
)
def test_another_recipe_is_refused_by_the_first_difference(
    stopped: Path, images: Dataset, change: str, difference: str
) -> None:
    text = refusal_to_resume(stopped, small(change), images)
    assert f"another recipe ({difference})" in text


def test_other_images_of_the_same_shape_are_refused(stopped: Path, images: Dataset) -> None:
    other = replace(images, images=images.images.flip(3))
    assert "other data" in refusal_to_resume(stopped, small(), other)


def test_a_state_cut_anywhere_is_refused(stopped: Path, images: Dataset) -> None:
    path = stopped / "training" / "state.safetensors"
    content = path.read_bytes()
    for length in (0, 7, 9, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        assert "state.safetensors" in refusal_to_resume(stopped, small(), images)
    path.write_bytes(content)
    assert resume(stopped, small(), images, CPU).state.step == 2


def test_a_state_that_is_not_this_networks_is_refused(stopped: Path, images: Dataset) -> None:
    path = stopped / "training" / "state.safetensors"
    content, tensors = path.read_bytes(), load_tensors(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    moments = {name: tensor for name, tensor in tensors.items() if "exp_avg" not in name}
    reshaped = tensors | {"network.stem.bias": torch.zeros(1)}
    for given, notes, expected in (
        (moments, metadata, "exp_avg."),
        (reshaped, metadata, "network.stem.bias"),
        (tensors | {"extra": torch.zeros(1)}, metadata, "extra"),
        (load_tensors(stopped / "model.safetensors"), metadata, "does not fit"),
        (tensors, None, "does not say its step"),
    ):
        save_file(given, path, notes)
        assert expected in refusal_to_resume(stopped, small(), images)
    path.write_bytes(content)
    assert resume(stopped, small(), images, CPU).state.step == 2


def test_a_model_whose_state_is_gone_is_not_trained_over(stopped: Path, images: Dataset) -> None:
    path = stopped / "training" / "state.safetensors"
    content, weights = path.read_bytes(), (stopped / "model.safetensors").read_bytes()
    path.unlink()
    assert "state.safetensors is gone" in refusal_to_resume(stopped, small(), images)
    assert (stopped / "model.safetensors").read_bytes() == weights
    path.write_bytes(content)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"name": "x"}', '{"name": "x", "horizon": 1}'])
def test_a_broken_plan_is_refused(stopped: Path, images: Dataset, content: str) -> None:
    path = stopped / "training" / "plan.json"
    whole = path.read_text()
    path.write_text(content)
    assert "plan.json" in refusal_to_resume(stopped, small(), images)
    path.write_text(whole)


def test_a_run_is_never_started_over_a_model(stopped: Path, images: Dataset) -> None:
    with pytest.raises(UserError, match="already holds a model: add --resume"):
        begin(stopped, images)
    plan = (stopped / "training" / "plan.json").read_text()
    (stopped / "training" / "plan.json").unlink()
    with pytest.raises(UserError, match="already holds a model"):
        begin(stopped, images)
    assert "nothing to resume" in refusal_to_resume(stopped, small(), images)
    (stopped / "training" / "plan.json").write_text(plan)


def test_impossible_lengths_and_places_are_refused(tmp_path: Path, images: Dataset) -> None:
    for steps in (0, -3):
        with pytest.raises(UserError, match="at least 1 step"):
            begin(tmp_path / "run", images, steps=steps)
    for minutes in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="finite number of minutes"):
            start(tmp_path / "run", "tiny", small(), images, CPU, minutes=minutes)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        begin(tmp_path / "file", images)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
