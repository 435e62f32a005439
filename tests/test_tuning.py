"""Tuning a sampler: it comes nearer to the data, can be resumed, and is used for nothing else."""

import itertools
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from conftest import ModelFolder, Run
from helpers import refusal, tuned_by_hand
from test_architecture import ORDER, SOURCE, imported_rooms
from underone.checkpoint import DiffusionModel, load_checkpoint, load_config, save_config
from underone.data import Dataset, load_dataset
from underone.diffusion import NoiseStreams
from underone.errors import UserError
from underone.generation import TUNED, Draw, Setting, generate
from underone.tuned import Purpose, keep, tuned_path, tuned_sampler
from underone.tuning.descent import (
    descend,
    initial_state,
    selection_distance,
    validation_distance,
)
from underone.tuning.parameters import Parameters
from underone.tuning.task import BATCH
from underone.tuning.tune import draft_path, set_up

DATA = Path(__file__).parent / "data" / "fashion-mnist"


# Batches that a start is chosen by, and those that the descent is validated by.
SELECTION_BATCHES, VALIDATION_BATCHES = 1, 6


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the default or less: the models tuned here have few features."""
    for module in ("task", "descent", "tune"):
        monkeypatch.setattr(f"underone.tuning.{module}.BATCH", BATCH // 2)
    monkeypatch.setattr("underone.tuning.descent._QUEUE_BATCHES", 8)
    monkeypatch.setattr("underone.tuning.descent.SELECTION_BATCHES", SELECTION_BATCHES)
    monkeypatch.setattr("underone.tuning.descent.VALIDATION_BATCHES", VALIDATION_BATCHES)
    monkeypatch.setattr("underone.tuning.task._TEACHER_IMAGES", 16)


def trained_on(dataset: Dataset, folder: Path) -> None:
    """Let a model's config say that it was trained on `dataset`."""
    config = load_config(folder)
    data = config.data.model_copy(update={"sha256": dataset.sha256})
    save_config(folder, config.model_copy(update={"data": data}))


@pytest.fixture
def dataset() -> Dataset:
    found = load_dataset("fashion-mnist", "test", DATA)
    return replace(found, images=found.images[:300], labels=found.labels[:300])


@pytest.fixture
def model(model_folder: ModelFolder, dataset: Dataset) -> DiffusionModel:
    folder = model_folder("tunable")
    trained_on(dataset, folder)
    loaded = load_checkpoint(folder)
    assert isinstance(loaded, DiffusionModel)
    return loaded


SETTING = Setting("ddim", 2)


@pytest.mark.slow
def test_tuning_comes_nearer_to_the_data(model: DiffusionModel, dataset: Dataset) -> None:
    tuning = set_up(model, SETTING, dataset, minutes=1, seed=0)
    start = tuning.state.start
    for _ in itertools.islice(descend(tuning.task, tuning.state, budget=3600), 50):
        pass
    before, after = (
        validation_distance(tuning.task, each) for each in (start, tuning.state.parameters)
    )
    assert before == tuning.state.before
    assert after < before


@pytest.mark.slow
def test_it_is_stopped_found_again_and_used(model: DiffusionModel, dataset: Dataset) -> None:
    first = set_up(model, SETTING, dataset, minutes=0.05, seed=3)
    first.run(lambda: True, lambda progress: None)
    assert (first.state.iterations, first.done) == (1, False)
    second = set_up(model, SETTING, dataset, minutes=0.05, seed=3)
    assert second.state.iterations == 1
    assert second.state.seconds == first.state.seconds
    assert second.state.before == first.state.before
    for a, b in zip(
        second.state.parameters.tensors(), first.state.parameters.tensors(), strict=True
    ):
        assert torch.equal(a, b)
    second.run(lambda: False, lambda progress: None)
    assert second.done
    assert second.state.iterations > 1
    tuned = second.finish()
    assert not draft_path(model, tuned.purpose).exists()
    assert tuned_sampler(model, SETTING.purpose) == tuned
    chosen = Setting("tuned", 2)
    assert chosen.grid == "learned"
    samples = generate(model, chosen, Draw(4))
    assert samples.protocol["evaluations"] == {"model": 2.0}
    again = generate(model, chosen, Draw(4), batch_size=1)
    assert (samples.images.int() - again.images.int()).abs().max() <= 2
    assert "exists" in refusal(lambda: set_up(model, SETTING, dataset, minutes=1, seed=3))


@pytest.mark.slow
def test_several_numbers_of_steps_are_tuned_in_turn(
    model: DiffusionModel, run: Run, tmp_path: Path
) -> None:
    for path in DATA.iterdir():  # what the model was trained on, by its name
        shutil.copy(path, tmp_path / path.name.replace("t10k", "train"))
    images = load_dataset("fashion-mnist", "train", tmp_path)
    trained_on(images, model.folder)
    tune = ("tune", model.folder, "--root", tmp_path, "--minutes", 0.001, "--nfe", 2, "--nfe", 3)
    status, out, _ = run(*tune, "--json")
    assert status == 0
    assert [each["purpose"]["steps"] for each in json.loads(out)] == [2, 3]
    status, _, told = run(*tune, "--nfe", 2, "--nfe", 1)  # goes on where it was
    assert status == 0
    assert told.count("is tuned already") == 2
    assert "1-steps.json: distance" in told
    status, _, told = run(*tune[:-2])
    assert (status, "exists: remove it to tune anew" in told) == (2, True)
    status, _, told = run(*tune, "--nfe", 4, "--nfe", 100_000)
    assert status == 2
    assert not tuned_path(model, Purpose(steps=4)).exists()


@pytest.mark.slow
def test_it_begins_with_the_best_start_and_never_ends_with_worse(
    model: DiffusionModel, dataset: Dataset
) -> None:
    tuning = set_up(model, SETTING, dataset, minutes=1, seed=4)
    task, state = tuning.task, tuning.state
    judgements = [selection_distance(task, start) for start in task.classical_starts()]
    assert len(judgements) == 15
    assert selection_distance(task, state.start) == min(judgements) < max(judgements)
    state.average, state.averaged = Parameters(*(3 + each for each in state.start.tensors())), 1
    tuned = tuning.finish()
    assert tuned.learning.distance_after == tuned.learning.distance_before
    assert torch.equal(tuned.sampler.etas, state.start.sampler().etas)


@pytest.mark.slow
def test_it_may_begin_where_another_number_of_steps_ended(
    model: DiffusionModel, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Judging all starts takes long, and is done once below.
    monkeypatch.setattr("underone.tuning.tune.initial_state", lambda task: None)

    def starts() -> list[Parameters]:
        return set_up(model, SETTING, dataset, minutes=1, seed=4).task.learned_starts()

    for steps, count in ((4, 0), (3, 1), (1, 1)):  # of one step there is too little to spread
        keep(model, tuned_by_hand(model, Purpose(steps=steps)))
        assert len(starts()) == count
    task = set_up(model, SETTING, dataset, minutes=1, seed=4).task
    (start,) = task.learned_starts()
    assert len(start.path(model.config.schedule)) == 3
    best = min(task.classical_starts(), key=lambda each: selection_distance(task, each))
    state = initial_state(task)
    nearer = selection_distance(task, start) < selection_distance(task, best)
    assert state.learned == nearer
    assert torch.equal(state.start.gaps, start.gaps if nearer else best.gaps)
    keep(
        model,
        tuned_by_hand(model, Purpose(steps=3)).model_copy(update={"model_sha256": "of another"}),
    )
    assert starts() == []


def test_it_is_used_for_nothing_else_than_what_it_was_tuned_for(model: DiffusionModel) -> None:
    keep(model, tuned_by_hand(model, Purpose(steps=3)))
    Setting("tuned", 3).check(model)
    for other in (
        Setting("tuned", 4),
        Setting("tuned", 3, guidance=1),
        Setting("tuned", 3, threshold="none"),
    ):
        text = refusal(lambda other=other: other.check(model))  # type: ignore[misc]
        assert "underone tune" in text
        assert "3-steps" in text
    changed = replace(model, sha256="0" * 64)
    assert "other weights" in refusal(lambda: Setting("tuned", 3).check(changed))
    assert "leave out --grid" in refusal(lambda: Setting("tuned", 3, "karras"))
    assert "unknown grid" in refusal(lambda: Setting("ddim", 3, "learned"))


def test_an_interval_without_an_end_is_refused_in_a_line() -> None:
    endless = Setting("tuned", 3, guidance=1.0, interval=(0.2, math.inf))
    with pytest.raises(UserError, match="finite end"):
        _ = endless.purpose


def test_a_purpose_has_nothing_in_it_that_changes_nothing() -> None:
    plain = Setting(TUNED, 3).purpose
    assert Setting(TUNED, 3, form="rescaled", interval=(0.2, 5)).purpose == plain
    forms = ("rescaled", "projected", "auto")
    purposes = [Setting(TUNED, 3, guidance=-1, form=form).purpose for form in forms]
    # Without labels all forms are one model; a weaker one that guides has them still.
    assert [purpose.form for purpose in purposes] == ["classifier-free", "classifier-free", "auto"]


def test_what_is_not_tuned_to_the_end_is_not_called_tuned(model: DiffusionModel) -> None:
    found = keep(model, tuned_by_hand(model, Purpose(steps=2)))
    found.with_name("5-steps.draft.json").write_text("{}")
    with pytest.raises(UserError, match=r"choose another sampler \(tuned are 2-steps\)"):
        tuned_sampler(model, Purpose(steps=3))


def test_every_purpose_has_a_file_of_its_own() -> None:
    purposes = [
        Purpose(steps=3),
        Purpose(steps=4),
        Purpose(steps=3, guidance=1),
        Purpose(steps=3, guidance=1.5),
        Purpose(steps=3, guidance=1, form="rescaled,phi=0.5"),
        Purpose(steps=3, guidance=1, form="rescaled,phi=0.7"),
        Purpose(steps=3, guidance=1, interval=(0.2, 3)),
        Purpose(steps=3, threshold="none"),
    ]
    names = {purpose.file_name for purpose in purposes}
    assert len(names) == len(purposes)
    assert all(name.isascii() and "/" not in name for name in names)
    assert Purpose(steps=3).file_name == "3-steps.json"


@pytest.mark.slow
def test_what_cannot_be_tuned_is_refused(model: DiffusionModel, dataset: Dataset) -> None:
    def with_(**changes: object) -> str:
        options = {"minutes": 1.0, "seed": 0} | changes
        return refusal(lambda: set_up(model, SETTING, dataset, **options))  # type: ignore[arg-type]

    for minutes in (0, -1, math.nan, math.inf):
        assert "minutes" in with_(minutes=minutes)
    assert "seed" in with_(seed=-1)
    other = replace(dataset, images=dataset.images.flip(0))
    assert "--root" in refusal(lambda: set_up(model, SETTING, other, minutes=1, seed=0))
    set_up(model, SETTING, dataset, minutes=1, seed=0).save()
    assert "seed" in with_(seed=1)


@pytest.mark.slow
def test_no_sample_set_is_drawn_with_the_noise_of_tuning(
    model: DiffusionModel, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("underone.tuning.tune.initial_state", lambda task: None)
    task = set_up(model, SETTING, dataset, minutes=1, seed=5).task
    mine = task.noise(7, 2)()
    assert torch.equal(mine, NoiseStreams([(2**63 + 5, 7), (2**63 + 5, 8)], model.shape)())
    assert "seeds" in refusal(lambda: Draw(1, seed=2**63))


def test_tuning_cannot_know_of_a_metric() -> None:
    for path in (SOURCE / "tuning").glob("*.py"):
        assert not imported_rooms(path, ORDER) & {"metrics", "zoo", "evaluation"}, path
