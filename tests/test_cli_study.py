"""What `underone study` says before and while it runs."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from conftest import ModelFolder, Run
from studies import small_study
from underone.cli.study_progress import Bar
from underone.study.bench import open_bench
from underone.study.engine import LocalEngine
from underone.study.run import open_run


@pytest.fixture
def file(model_folder: ModelFolder, tmp_path: Path) -> Path:
    path = tmp_path / "study.toml"
    path.write_text(
        f'model = "{model_folder("ten-steps", steps=10)}"\nsamples = 20\nmetrics = ["fid"]\n'
        '[[slices]]\nname = "steps"\nsampler = ["ddim", "ddpm-small"]\nsteps = [1, 4]\n'
    )
    return path


def test_a_dry_run_says_what_each_cell_costs_and_writes_nothing(run: Run, file: Path) -> None:
    out = file.parent / "out"
    status, told, error = run("study", file, "--out", out, "--dry-run", "--json")
    assert status == 0, error
    document = json.loads(told)
    assert [cell["evaluations"] for cell in document["cells"]] == [20, 80, 20, 80]
    assert all(cell["seconds"] > 0 for cell in document["cells"])
    assert document["cells"][1]["setting"]["steps"] == 4
    assert document["plan"]["study"]["samples"] == 20
    assert not out.exists()


def test_what_a_budget_leaves_out_is_named_in_a_dry_run_and_in_the_report(
    run: Run, file: Path
) -> None:
    budget = ("study", file, "--out", file.parent / "out", "--evaluations", 130)
    status, told, error = run(*budget, "--dry-run")
    assert status == 0, error
    assert told.count("left out by the budget: ") == 1
    assert "ddpm-small, 4 steps" in told.partition("left out by the budget: ")[2]
    status, _, error = run(*budget)
    assert status == 0, error
    assert "settings left out by the budget, which the report names: 1" in error
    report = (file.parent / "out" / "report.html").read_text("utf-8")
    assert "ddpm-small, 4 steps" in report.partition("left out by the budget")[2]


def test_a_dry_run_looks_at_the_folder_it_would_use(run: Run, file: Path) -> None:
    foreign = file.parent / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    status, _, error = run("study", file, "--out", foreign, "--dry-run")
    assert status == 2
    assert "is not empty and holds no study" in error
    assert run("study", file, "--out", file.parent / "out")[0] == 0
    file.write_text(file.read_text().replace("samples = 20", "samples = 30"))
    status, _, error = run("study", file, "--out", file.parent / "out", "--dry-run")
    assert status == 2
    assert "out" in error


def test_progress_shows_cells_images_and_time_left_in_a_narrow_terminal(
    model_folder: ModelFolder, tmp_path: Path
) -> None:
    study = small_study(model_folder("ten-steps", steps=10))
    bench = open_bench(study)
    run, _ = open_run(tmp_path / "study", study, bench)
    bar = Bar(run)
    cells = len(run.due())

    def shown() -> str:
        console = Console(file=io.StringIO(), width=80)
        console.print(bar.progress.get_renderable())
        assert isinstance(console.file, io.StringIO)
        return " ".join(console.file.getvalue().split())

    assert f"0/{cells} cells, 0/{20 * cells} images" in shown()
    first = run.due()[0]
    bar.drawn(first, 15)
    assert f"0/{cells} cells, 15/{20 * cells} images" in shown()
    next(run.advance(LocalEngine(bench, 1), lambda cell, images: None))
    bar.recount()
    assert f"1/{cells} cells, 20/{20 * cells} images" in shown()
    assert "left" in shown()
    list(run.advance(LocalEngine(bench, 1), lambda cell, images: None))
    bar.recount()
    assert f"{cells}/{cells} cells, {20 * cells}/{20 * cells} images" in shown()
