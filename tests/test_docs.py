"""What README and docs show can be done."""

import dataclasses
import importlib
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor
from torch.nn.functional import avg_pool2d

from shown_commands import assert_understood
from underone.checkpoint import DiffusionModel
from underone.conformance import conformance
from underone.data import SampleSet, load_dataset
from underone.diffusion import GRIDS, SAMPLERS, Explicit, LinearBeta
from underone.generation import ANALYTIC, DECODER, DISTILLED, TUNED
from underone.metrics import METRICS
from underone.named import sampler_named
from underone.study.analysis import analysed
from underone.study.definition import load_study
from underone.study.report import write_markdown
from underone.study.run import open_folder
from underone.training.recipe import DiffusionRecipe, load_recipe, shipped_recipes

ROOT = Path(__file__).parent.parent
CARDS = sorted((ROOT / "src" / "underone" / "zoo").glob("*/README.md"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *CARDS]


def blocks(page: Path, language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
    return [str(block) for block in found]


def commands() -> list[str]:
    lines = [line for page in PAGES for block in blocks(page, "") for line in block.splitlines()]
    return [line for line in lines if line.startswith("underone ")]


def measured(name: str) -> dict[str, Any]:
    """What a benchmark has measured."""
    found: dict[str, Any] = json.loads((ROOT / "benchmarks" / f"{name}.json").read_text("utf-8"))
    return found


def test_there_are_commands_to_check() -> None:
    assert len(commands()) >= 11


@pytest.mark.parametrize("line", commands())
def test_every_command_shown_is_understood(line: str) -> None:
    assert_understood(line)


def anchor_of(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_linked_is_there(page: Path) -> None:
    for link, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", page.read_text("utf-8")):
        there = page.parent / link if link else page
        assert there.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", there.read_text("utf-8"), re.M)
            assert anchor in map(anchor_of, headings), f"{link}#{anchor}"


def test_the_readme_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = blocks(ROOT / "README.md", "python")
    assert "count=1000" in example
    exec(example.replace("count=1000", "count=20"), {})  # noqa: S102
    assert "where real images score" in capsys.readouterr().out


def test_the_figures_of_the_readme_are_measured() -> None:
    cells = measured("tuned")["cells"]
    ddim = cells["ddim, 20 steps | 20 | 5000 of seed 600"]["fashion-mnist"]
    tuned = cells["tuned, 5 steps | 5 | 5000 of seed 600"]["fashion-mnist"]
    text = " ".join((ROOT / "README.md").read_text("utf-8").split())
    assert f"those of DDIM in 20 steps have {ddim:.2f}" in text
    assert f"sampler in 5 steps {tuned:.2f}" in text
    goals = measured("goals")["goals"]
    best, ten = (goals[title]["measured"] for title in ("the best model", "10 evaluations"))
    fids = [each["figures"]["fid@fashion-mnist"] for each in (best, ten)]
    assert [(each["setting"]["sampler"], each["setting"]["steps"]) for each in (best, ten)] == [
        ("sa-solver", 20),
        ("sa-solver", 10),
    ]
    assert f"in 20 steps have FID {fids[0]['value']:.2f}" in text
    assert f"in 10 steps {fids[1]['value']:.2f}, where as many real" in text
    assert f"images have {fids[0]['real']:.2f} (" in text
    run = measured("speedrun")
    unguided, guided = run["minutes_to_fid_below_1"]
    minutes = run["minutes_to_fid_below_1"][guided]
    assert f"takes {minutes:.0f} minutes of two cores, at guidance 0.25 in 10 steps" in text
    assert f"15 minutes reach {run['curve'][-1]['scores'][unguided]['fid']:.2f}" in text


def test_every_make_target_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    named = {t for page in PAGES for t in re.findall(r"`make ([a-z]+)", page.read_text("utf-8"))}
    assert named >= {"guide", "test"}
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_the_page_of_benchmarks_is_what_they_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setattr(importlib.import_module("nfe_quality"), "load_model", None)
    script = importlib.import_module("page")
    assert script.page() == script.PAGE.read_text("utf-8")


def test_the_benchmarks_that_were_not_run_yet_can_be(
    monkeypatch: pytest.MonkeyPatch, small_model: DiffusionModel
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    series = importlib.import_module("growth").series(small_model)
    assert all(evaluations > 0 for points in series.values() for _, evaluations in points.values())
    for recipe, changes in importlib.import_module("training_ladder").RUNGS.values():
        assert isinstance(load_recipe(recipe, changes), DiffusionRecipe)
    peers = importlib.import_module("diffusers_quality")
    for kind in peers.SCHEDULERS:
        peers.Theirs(kind, 5).scheduler().set_timesteps(5)


def test_the_table_of_tuned_samplers_is_the_measured_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    script = importlib.import_module("tuned")
    monkeypatch.setattr(script, "load_model", None)  # nothing is measured here
    page = (ROOT / "docs" / "tuning.md").read_text("utf-8")
    assert script.table(script.known()) in page


def test_the_table_of_recipes_is_the_measured_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    script = importlib.import_module("training_ladder")
    assert script.table(script.known()) in (ROOT / "docs" / "training.md").read_text("utf-8")


def test_the_table_of_guidance_is_the_measured_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    script = importlib.import_module("guidance")
    results = measured("guidance")
    assert script.table(results) in (ROOT / "docs" / "guidance.md").read_text("utf-8")


def test_the_tables_of_inversion_and_likelihood_are_the_measured_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    inversion, likelihood = map(importlib.import_module, ("inversion", "likelihood"))
    returned, bits = measured("inversion"), measured("likelihood")
    assert inversion.table(returned) in (ROOT / "docs" / "editing.md").read_text("utf-8")
    page = (ROOT / "docs" / "likelihood.md").read_text("utf-8")
    for table in likelihood.tables(bits):
        assert table in page
    some, all_of_them = (
        bits["bits"][" ".join(each)]["value"] for each in likelihood.SHARES.values()
    )
    assert f"100 steps give {some:.3f} and all give {all_of_them:.3f}" in page


def test_the_table_of_planted_faults_is_the_measured_one_and_each_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    script = importlib.import_module("planted_faults")
    results = measured("planted_faults")
    assert script.table(results) in (ROOT / "docs" / "metrics.md").read_text("utf-8")
    for fault, columns in script.EXPECTED.items():
        for column in columns:
            assert script.seen(results, fault, column), (fault, column)


@pytest.mark.slow
def test_the_costs_of_recipes_are_those_computed_and_the_speed_that_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    script = importlib.import_module("recipe_costs")
    results = measured("recipe_costs")
    for name in script.RECIPES:
        assert script.arithmetic(name) == results["recipes"][name], name
    page = (ROOT / "docs" / "cifar10.md").read_text("utf-8")
    for part in (script.table, script.hours, script.speed):
        assert part(results) in page, part
    ours, small = (results["recipes"][name] for name in ("cifar10", "cifar10-small"))
    assert ours["parameters"] / 35.7e6 == pytest.approx(1, abs=0.05)
    assert round(ours["parameters"] / small["parameters"]) == 8
    assert round(ours["forward_flops"] / small["forward_flops"]) == 24
    assert ours["updates"] / small["updates"] == 40
    minutes = {
        name: results["recipes"][name]["whole_training_flops"] / 80e9 / 60
        for name in ("noto-emoji", "noto-emoji-classifier")
    }
    assert minutes["noto-emoji"] == pytest.approx(60, rel=0.1)
    assert minutes["noto-emoji-classifier"] == pytest.approx(10, rel=0.1)
    study = load_study("cifar10")
    settings = {setting for each in study.slices for setting in each.settings()}
    assert f"{len(settings)} settings" in page
    work = study.evaluations * ours["forward_flops"]
    assert f"{work / 1e15:.0f} PFLOP: {work / 20e12 / 3600:.1f} hours at" in " ".join(page.split())
    assert f"{work / 50e12 / 3600:.1f} at 50" in page
    # Recipes for any images take what these take.
    for kind in ("", "-classifier"):
        emoji, own = load_recipe(f"noto-emoji{kind}"), load_recipe(f"images{kind}")
        same = {"data": emoji.data, "augmentation": emoji.augmentation}
        network = dataclasses.replace(own.network, classes=9)  # type: ignore[arg-type]
        assert own.model_copy(update=same | {"network": network}) == emoji


def test_the_metrics_are_those_of_the_table() -> None:
    assert list(rows(ROOT / "docs" / "metrics.md", "`--metrics` | figures | what it is")) == [
        *METRICS
    ]


def test_the_claims_about_metrics_are_the_measured_ones() -> None:
    claims = {name: measured(name)["claim"] for name in ("fid", "precision_recall")}
    assert claims["fid"]["least_times_faster_reference_kept"] >= 3
    assert claims["fid"]["as_accurate_as_any_peer"]
    assert claims["precision_recall"]["times_faster_than_prdc"] > 1
    assert claims["precision_recall"]["megabytes"] < 2000
    assert claims["precision_recall"]["as_float64"]
    assert claims["precision_recall"]["as_prdc"]


def rows(page: Path, header: str) -> dict[str, list[str]]:
    """A table's rows by the name in their first column."""
    table = page.read_text("utf-8").split(f"| {header} |", 1)[1].split("\n\n", 1)[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {row[0].strip("`"): row[1:] for row in cells[2:]}


def test_the_samplers_are_those_of_the_table_with_their_claims() -> None:
    table = rows(ROOT / "docs" / "samplers.md", "name | options | order")
    made = [TUNED, DECODER, DISTILLED]
    assert list(table) == [*list(SAMPLERS)[:2], ANALYTIC, *list(SAMPLERS)[2:], *made]
    for name, sampler in SAMPLERS.items():
        options, order, evaluations, _ = table[name]
        assert order == ("" if sampler.global_order is None else str(sampler.global_order)), name
        fields = {field.name for field in dataclasses.fields(sampler)}  # type: ignore[arg-type]
        named = {option for option in options.split(", ") if option}
        assert named == fields - ({"variance"} if name.startswith("ddpm") else set()), name
        for steps in (2, 7):
            said = evaluations.replace("N", f"*{steps}").lstrip("*")
            if evaluations == "as needed":
                assert sampler.evaluations(steps) is None
            else:
                assert eval(said) == sampler.evaluations(steps), name  # noqa: S307


def test_the_grids_are_those_of_the_table() -> None:
    table = rows(ROOT / "docs" / "samplers.md", "name | options | formula")
    assert set(table) == {*GRIDS, "explicit"}
    for name, grid in {**GRIDS, "explicit": Explicit((1,))}.items():
        fields = {field.name for field in dataclasses.fields(grid)} - {"name"}  # type: ignore[arg-type]
        assert {option for option in table[name][0].split(", ") if option} == fields, name


def test_the_frameworks_are_those_of_the_recipes() -> None:
    page = ROOT / "docs" / "frameworks.md"
    table = rows(page, "what it is called | schedule | prediction | its own sampler | recipe")
    models = [row for row in table.values() if row[-1] != "any"]
    for schedule, prediction, samplers, name in models:
        recipe = load_recipe(name.strip("`"))
        assert isinstance(recipe, DiffusionRecipe)
        assert (f"`{recipe.schedule.name}`", f"`{recipe.prediction.name}`") == (
            schedule,
            prediction,
        )
        assert set(re.findall(r"`([a-z0-9-]+)`", samplers)) <= set(SAMPLERS)
    of_page = {name.strip("`") for *_, name in models}
    assert of_page == {
        name
        for name in shipped_recipes()
        if name.startswith("fashion-mnist") and isinstance(load_recipe(name), DiffusionRecipe)
    }


def test_every_recipe_that_is_trained_exists() -> None:
    named = {shlex.split(line)[2] for line in commands() if line.startswith("underone train ")}
    assert {name for name in named if not name.endswith(".toml")} <= {*shipped_recipes(), "RECIPE"}


def test_any_callable_is_sampled_as_its_page_shows() -> None:
    (example,) = blocks(ROOT / "docs" / "other-models.md", "python")
    assert len([line for line in example.splitlines() if line]) <= 5

    def my_noise(x: Tensor, step: Tensor) -> Tensor:
        """E[z | x_t] of data N(0, 1/4): sigma x_t / (alpha^2 / 4 + sigma^2)."""
        alpha, sigma = (part[:, None, None, None] for part in LinearBeta()(step.double() / 1000))
        return (sigma * x / (alpha**2 / 4 + sigma**2)).to(x.dtype)

    found: dict[str, Any] = {"my_noise": my_noise}
    exec(example, found)  # noqa: S102
    assert found["batch"].x.shape == (8, 1, 8, 8)
    # 512 numbers of deviation 1/2, within three standard errors and DDIM's error at 20 steps.
    assert found["batch"].x.std().item() == pytest.approx(0.5, abs=0.07)


def test_a_function_of_ones_own_measures_as_its_page_shows(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (example,) = blocks(ROOT / "docs" / "metrics.md", "python")
    real = load_dataset("fashion-mnist", "test", ROOT / "tests" / "data" / "fashion-mnist")

    def my_features(images: Tensor) -> Tensor:
        return avg_pool2d(images.float() / 255, 7).flatten(1)

    found = {"my_features": my_features, "train": real, "test": real}
    samples = SampleSet(real.images[:100].flip(3), real.labels[:100])
    exec(example, found | {"samples": samples})  # noqa: S102
    printed = capsys.readouterr().out
    assert "'fid': Figure(value=" in printed
    assert "'kid': Figure(value=" in printed


@pytest.mark.slow
def test_the_worked_example_of_a_sampler_conforms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (example,) = blocks(ROOT / "docs" / "samplers.md", "python")
    (tmp_path / "my_samplers.py").write_text(example)
    monkeypatch.chdir(tmp_path)
    findings = list(conformance(sampler_named("my_samplers:Midpoint")))
    assert [finding for finding in findings if not finding.holds] == []
    assert findings[0].check == "order of convergence, even and uneven"
    assert findings[0].claimed == "2"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("study", "other", "name"),
    [("fashion-mnist", "noto-emoji", "guide.md"), ("noto-emoji", "fashion-mnist", "noto-emoji.md")],
)
def test_a_page_is_what_its_study_says(
    study: str, other: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    page = Path("docs") / name
    command = f"underone report studies/{study} --beside studies/{other} --markdown docs/{name}"
    run, beside = (analysed(open_folder(Path("studies") / each)) for each in (study, other))
    written = write_markdown(run, tmp_path / name, command, [beside])
    assert written.read_text("utf-8") == page.read_text("utf-8")
    figures = [path.name for path in written.with_suffix("").iterdir()]
    assert sorted(figures) == sorted(path.name for path in page.with_suffix("").iterdir())


@pytest.mark.skipif(
    not (ROOT / "studies" / "baselines" / "cells").exists(), reason="it was not measured"
)
def test_the_baselines_are_told_as_they_were_measured() -> None:
    """Their models are not shipped, so that the page cannot be written anew."""
    page = (ROOT / "docs" / "baselines-measured.md").read_text("utf-8")
    files = sorted((ROOT / "studies" / "baselines" / "cells").glob("*.json"))
    assert len(files) == 10
    for file in files:
        cell = json.loads(file.read_text("utf-8"))
        figures = cell["measurements"][0]["figures"]
        assert f"{figures['fid']['value']:.3f}" in page, file.name
        assert f"{figures['recall']['value']:.3f}" in page, file.name
