"""Running studies: stopped at any moment and resumed, without taking foreign cells for theirs."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import ModelFolder
from helpers import tuned_by_hand
from studies import SLICES, plan_of, small_study, timeless
from underone.checkpoint import save_weights
from underone.data import Dataset, SampleSet, load_dataset
from underone.errors import UserError
from underone.generation import Draw, Setting
from underone.modules import name_code
from underone.networks.precision import fast_dtype
from underone.study.analysis import analysed
from underone.study.answers import answers, standings
from underone.study.bench import Bench, open_bench
from underone.study.cell import Cell, CellResult, Divergence, Outcome, run_cell
from underone.study.contest import paired
from underone.study.definition import Study
from underone.study.engine import LocalEngine
from underone.study.fit import planned_cells
from underone.study.folder import Folder
from underone.study.report import write_report
from underone.study.run import StudyRun, new_plan, open_folder, open_run
from underone.tuned import Purpose, keep
from underone.zoo import load_model


def test_a_study_runs_its_cells_and_then_its_contenders(done: StudyRun, bench: Bench) -> None:
    base = planned_cells(done.plan, bench)
    assert set(base) <= set(done.known)
    assert done.due() == []
    extra = [cell for cell in done.known if cell not in set(base)]
    assert extra
    assert {cell.draw.first for cell in extra} == {20, 40}
    for cell, found in done.known.items():
        branches = 1 if cell.setting.guidance in (0, -1) else 2
        assert found.evaluations == {"model": branches * cell.setting.steps}
        assert found.measurement.protocol.count == 20
        assert {"fid", "precision", "recall"} <= set(found.measurement.figures)
        assert found.floor is not None
        assert 0 < found.floor.fid < found.fid
        assert done.folder.picture_path(found.id).exists()
    assert len(standings(done)) == 6
    assert len(answers(done)) == 4


def test_screening_finds_the_finalists(folder_of_model: Path, bench: Bench, tmp_path: Path) -> None:
    slices = [{**SLICES[0], "screened": 5, "finalists": 2}]
    run, _ = open_run(tmp_path / "s", small_study(folder_of_model, slices=slices), bench)
    assert {cell.draw.count for cell in run.due()} == {5}
    for _ in run.advance(LocalEngine(bench, 1), lambda cell, images: None):
        pass
    screened = sorted(
        (found for found in run.known.values() if found.draw.count == 5), key=lambda r: r.fid
    )
    drawn = [found for found in run.known.values() if found.draw.count == 20]
    assert len(screened) == 4
    assert {found.setting for found in drawn} == {found.setting for found in screened[:2]}
    # Of other seeds than they were screened on.
    assert {found.draw.first for found in drawn} == {0}
    assert min(found.draw.first for found in screened) >= 2**32


@pytest.mark.slow
def test_a_setting_that_diverges_is_left_out_and_the_rest_goes_on(
    folder_of_model: Path, tmp_path: Path
) -> None:
    wild = {"steps": 2, "guidance": 3e38, "threshold": "none"}
    wild |= {"name": "wild", "sampler": ["ddim", "rk45"]}
    screened = {"name": "screened", "sampler": ["ddim", "ddpm-small"], "steps": 4}
    screened |= {"screened": 10, "finalists": 1}
    study = small_study(folder_of_model, slices=[wild, *SLICES, screened | wild | screened])
    bench = open_bench(study)
    run, _ = open_run(tmp_path / "study", study, bench)
    told = list(run.advance(LocalEngine(bench, 1), lambda cell, images: None))
    diverged = [each.setting for each in told if isinstance(each, Divergence)]
    assert {setting.guidance for setting in diverged} == {3e38}
    assert {"ddim", "rk45"} <= {setting.sampler for setting in diverged}
    assert len(run.known) >= 6
    again, _ = open_run(run.folder.path, study, bench)
    assert again.due() == []
    assert again.diverged == run.diverged
    page = write_report(analysed(again)).read_text("utf-8")
    assert "diverged, and not measured" in page


def test_a_sampler_of_ones_own_that_is_changed_makes_other_cells(
    folder_of_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    code = "from underone.diffusion import DDIM\n\nMine = DDIM\n"
    (tmp_path / "mine_to_change.py").write_text(code)
    slices = [{"name": "mine", "sampler": ["mine_to_change:Mine", "ddim"], "steps": 2}]
    study = small_study(folder_of_model, slices=slices)
    bench = open_bench(study)
    cells = [Cell(study.model, setting, Draw(20)) for setting in study.slices[0].settings()]
    before = [cell.identity(bench) for cell in cells]
    (tmp_path / "mine_to_change.py").write_text(code + "# in another way\n")
    # What draws is what was imported, whatever the file says by now.
    assert [cell.identity(bench) for cell in cells] == before
    del sys.modules["mine_to_change"]
    Setting("mine_to_change:Mine")
    after = [cell.identity(bench) for cell in cells]
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, True]


def test_a_folders_word_is_not_enough_to_run_code(
    folder_of_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "of_a_folder.py").write_text("from underone.diffusion import DDIM as Mine\n")
    slices = [{"name": "mine", "sampler": "of_a_folder:Mine", "steps": 2}]
    study = small_study(folder_of_model, slices=slices)
    bench = open_bench(study)
    folder = Folder(tmp_path / "study")
    folder.begin(plan_of(study, bench))
    assert open_folder(folder.path).plan.study == study
    # As somebody else finds it.
    monkeypatch.setattr("underone.modules._NAMED", set())
    del sys.modules["of_a_folder"]
    with pytest.raises(UserError, match=r"plan\.json names of_a_folder:Mine, which is code"):
        open_folder(folder.path)
    assert "of_a_folder" not in sys.modules
    name_code(["of_a_folder:Mine"])
    assert open_folder(folder.path).plan.study == study


def with_influence(result: CellResult, values: np.ndarray) -> CellResult:
    first, *rest = result.measurements
    figure = first.figures["fid"].model_copy(
        update={"influences": values.astype(np.float32).tobytes(), "error": 1.0}
    )
    first = first.model_copy(update={"figures": first.figures | {"fid": figure}})
    return result.model_copy(update={"measurements": (first, *rest)})


def test_samples_of_one_seed_are_compared_one_by_one(
    done: StudyRun, bench: Bench, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).normal(size=400)
    folder, kept = Folder(tmp_path / "study"), []
    for index, (cell, result) in enumerate(list(done.known.items())[:2]):
        kept.append(with_influence(result, noise + 0.1 * index * noise**2))
        folder.keep(Outcome(kept[-1], done.folder.picture_path(result.id).read_bytes()))
        assert "influences" not in folder.result_path(cell.identity(bench)).read_text()
    known = folder.known(bench)
    # What is read back is what was kept, to the last bit.
    assert list(known.values()) == sorted(kept, key=lambda result: result.id)
    figures = [result.measurement.figures["fid"] for result in kept]
    found = paired(figures[:1], figures[1:])
    assert found is not None
    error = (0.01 * (noise**4).sum() / (400 * 399)) ** 0.5
    assert found.interval.high - found.difference == pytest.approx(1.96 * error, rel=1e-3)
    # Where one of the two does not say, they are taken for independent.
    alone = figures[1].model_copy(update={"influences": None})
    wide = paired(figures[:1], [alone])
    assert wide is not None
    assert wide.interval.high - wide.difference == pytest.approx(1.96 * 2**0.5, rel=1e-3)
    folder.influences_path(kept[0].id).write_bytes(b"PK broken")
    with pytest.raises(UserError, match="is damaged: remove it"):
        folder.known(bench)


def test_a_cell_that_was_drawn_otherwise_is_not_kept(
    done: StudyRun, bench: Bench, tmp_path: Path
) -> None:
    class Elsewhere:
        """An engine whose workers have other files."""

        def run(self, cells: Sequence[Cell], on_images: object) -> Iterator[Outcome]:
            for cell in cells:
                result = done.known[cell].model_copy(update={"id": "0123456789abcdef"})
                yield Outcome(result, b"")

    run, _ = open_run(tmp_path / "study", done.plan.study, bench)
    with pytest.raises(UserError, match="has other files where it was drawn"):
        list(run.advance(Elsewhere(), lambda cell, images: None))
    assert not run.known
    assert not list(run.folder.cells_path.glob("*"))


def test_a_worker_in_another_precision_is_refused(
    done: StudyRun, bench: Bench, tmp_path: Path
) -> None:
    other = "bfloat16" if fast_dtype("cpu") is None else "float32"

    class Elsewhere:
        """An engine on a machine that is fast in another precision."""

        def run(self, cells: Sequence[Cell], on_images: object) -> Iterator[Outcome]:
            for cell in cells:
                outcome = run_cell(cell, bench)
                assert isinstance(outcome, Outcome)
                (first, *rest) = outcome.result.measurements
                subject = first.subject | {"precision": other}
                measurements = (first.model_copy(update={"subject": subject}), *rest)
                result = outcome.result.model_copy(update={"measurements": measurements})
                yield replace(outcome, result=result)

    run, _ = open_run(tmp_path / "mixed", done.plan.study, bench)
    next(run.advance(LocalEngine(bench, 1), lambda cell, images: None))
    with pytest.raises(UserError, match=f"a worker draws in {other}, but cells of"):
        list(run.advance(Elsewhere(), lambda cell, images: None))
    assert len(run.known) == 1


def test_a_rerun_does_only_what_is_missing(done: StudyRun, bench: Bench) -> None:
    again, continued = open_run(done.folder.path, done.plan.study, bench, minutes=99)
    assert continued
    assert again.plan == done.plan
    assert again.known == done.known
    lost = list(done.known.values())[3]
    path = done.folder.result_path(lost.id)
    whole = path.read_text()
    path.unlink()
    again, _ = open_run(done.folder.path, done.plan.study, bench)
    assert again.due() == [lost.cell]
    (redone,) = again.advance(LocalEngine(bench, 1), lambda cell, images: None)
    assert timeless(json.loads(path.read_text())) == timeless(json.loads(whole))
    assert redone.cell == lost.cell


def test_foreign_and_damaged_files_are_named_and_nothing_is_overwritten(
    done: StudyRun, bench: Bench, study: Study, tmp_path: Path, model_folder: ModelFolder
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        open_run(tmp_path, study, bench)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(UserError, match="differ in most_blocks"):
        open_run(done.folder.path, study, bench)
    other = open_bench(small_study(model_folder("ten-others", steps=10, label_dropout=0.2)))
    with pytest.raises(UserError, match="other models"):
        open_run(done.folder.path, done.plan.study, other)
    path = done.folder.result_path(next(iter(done.known.values())).id)
    whole = path.read_text()
    for damaged, told in ((whole[: len(whole) // 2], "JSON"), ("{}", "id"), ("", "JSON")):
        path.write_text(damaged)
        try:
            with pytest.raises(UserError, match=path.name) as refused:
                open_run(done.folder.path, done.plan.study, bench)
            assert told in str(refused.value)
        finally:
            path.write_text(whole)
    # What a kill may leave of a file that was being written.
    unfinished = done.folder.cells_path / ".0123456789abcdef.json.x1y2.json"
    unfinished.write_text("{")
    try:
        again, _ = open_run(done.folder.path, done.plan.study, bench)
        assert again.known.keys() == done.known.keys()
    finally:
        unfinished.unlink()
    foreign = done.folder.cells_path / "0123456789abcdef.json"
    foreign.write_text(whole)
    try:
        with pytest.raises(UserError, match="not a cell of this study"):
            open_run(done.folder.path, done.plan.study, bench)
    finally:
        foreign.unlink()


def test_a_sampler_that_is_tuned_anew_makes_other_cells(model_folder: ModelFolder) -> None:
    folder = model_folder("tuned")
    slices = [{"name": "tuned", "sampler": ["tuned", "ddim"], "steps": 3}]
    model = load_model(str(folder))
    first = tuned_by_hand(model, Purpose(steps=3))
    keep(model, first)
    study = small_study(folder, slices=slices)
    bench = open_bench(study)
    draw = Draw(20)
    cells = [Cell(study.model, setting, draw) for setting in study.slices[0].settings()]

    def identities() -> list[str]:
        return [cell.identity(bench) for cell in cells]

    before = identities()
    retold = first.learning.model_copy(update={"minutes": 7.0})
    keep(model, first.model_copy(update={"learning": retold}))
    assert identities() == before
    keep(model, first.model_copy(update={"shifts": (0.1, 0.0, 0.0)}))
    after = identities()
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_a_guide_that_is_trained_anew_makes_other_cells(model_folder: ModelFolder) -> None:
    folder, guide = model_folder("guided"), model_folder("guide")
    slices = [{"name": "auto", "form": f"auto,by={guide}", "steps": 3, "guidance": [0, 1]}]
    study = small_study(folder, slices=slices)
    bench = open_bench(study)
    cells = [Cell(study.model, setting, Draw(20)) for setting in study.slices[0].settings()]
    before = [cell.identity(bench) for cell in cells]
    weights = load_model(str(guide)).network.state_dict()
    save_weights(guide, {name: value + 0.1 for name, value in weights.items()})
    after = [cell.identity(bench) for cell in cells]
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_memorisation_is_looked_for_among_the_training_images(
    folder_of_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = load_dataset("fashion-mnist", "test", Path(__file__).parent / "data" / "fashion-mnist")
    monkeypatch.setattr("underone.study.bench.training_images", lambda reference: images)
    bench = open_bench(small_study(folder_of_model, metrics=["fid", "memorisation"]))
    (found,) = bench.measured(SampleSet(images.images, images.labels))
    assert found.figures["memorised-share"].value > 0.9

    def missing(reference: object) -> Dataset:
        raise UserError("not at hand")

    monkeypatch.setattr("underone.study.bench.training_images", missing)
    study = small_study(folder_of_model, metrics="all")
    with pytest.raises(UserError, match="not at hand"):
        new_plan(study, open_bench(study))


@pytest.mark.slow
def test_a_budget_can_be_raised_and_nothing_that_is_known_is_lost(
    folder_of_model: Path, bench: Bench, tmp_path: Path
) -> None:
    folder, narrow = tmp_path / "s", small_study(folder_of_model, evaluations=200)
    run, _ = open_run(folder, narrow, bench)
    for _ in run.advance(LocalEngine(bench, 1), lambda cell, images: None):
        pass
    written = {path: path.read_bytes() for path in (folder / "cells").iterdir()}
    assert written
    wide, continued = open_run(folder, small_study(folder_of_model, evaluations=400), bench)
    assert continued
    assert wide.known == run.known
    assert len(wide.plan.left_out) < len(run.plan.left_out)
    assert wide.due()
    assert not set(wide.due()) & set(run.known)
    assert all(path.read_bytes() == content for path, content in written.items())
    # What was raised is kept: the same command goes on, and the old one does not take it back.
    again, _ = open_run(folder, small_study(folder_of_model, evaluations=400), bench)
    assert again.plan == wide.plan
    for other in (200, 300):
        with pytest.raises(UserError, match=r"another budget \(400 evaluations\)"):
            open_run(folder, small_study(folder_of_model, evaluations=other), bench)
    unlimited, _ = open_run(folder, small_study(folder_of_model), bench)
    assert unlimited.plan.left_out == ()


def test_a_study_goes_on_in_the_precision_that_it_was_begun_in(
    done: StudyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    done.check_precision()
    then = {each.measurement.subject["precision"] for each in done.known.values()}
    (other,) = {"bfloat16", "float32"} - then
    dtype = torch.bfloat16 if other == "bfloat16" else None
    monkeypatch.setattr("underone.generation.setting.fast_dtype", lambda device: dtype)
    with pytest.raises(UserError, match=f"begun where models draw in {then.pop()}"):
        done.check_precision()


@pytest.mark.slow
def test_a_budget_of_minutes_is_followed_whatever_the_evaluations(
    folder_of_model: Path, bench: Bench, tmp_path: Path
) -> None:
    study = small_study(folder_of_model, evaluations=5000)
    open_run(tmp_path / "s", study, bench, minutes=1)
    with pytest.raises(UserError, match=r"another budget \(\d+\.\d minutes, "):
        open_run(tmp_path / "s", small_study(folder_of_model, evaluations=9000), bench)
