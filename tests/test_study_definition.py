"""Studies as they are written: axes, mistakes, and what a model cannot do."""

from dataclasses import replace
from pathlib import Path

import pytest

from conftest import ModelFolder
from studies import SLICES, plan_of, small_study
from underone.checkpoint import DiffusionModel
from underone.config import parse
from underone.errors import UserError
from underone.generation import Setting
from underone.study.bench import Bench, open_bench
from underone.study.definition import Study, for_model, load_study, shipped_studies
from underone.zoo import load_model


def test_axes_multiply_and_one_value_is_a_list_of_one() -> None:
    study = parse(
        Study,
        {
            "slices": [
                {
                    "name": "a",
                    "sampler": ["ddim", "unipc"],
                    "steps": [5, 10],
                    "guidance": 1,
                    "interval": [0.2, 5],
                },
                {"name": "b", "interval": [[0.2, 5], "everywhere"], "guidance": [0.5, 1]},
            ]
        },
        "study",
    )
    first, second = (list(each.settings()) for each in study.slices)
    assert first == [
        Setting(sampler, steps, guidance=1, interval=(0.2, 5))
        for sampler in ("ddim", "unipc")
        for steps in (5, 10)
    ]
    assert {(s.guidance, s.interval) for s in second} == {
        (0.5, (0.2, 5)), (0.5, None), (1.0, (0.2, 5)), (1.0, None),
    }  # fmt: skip


def test_where_an_axis_changes_nothing_there_is_one_setting() -> None:
    several = {
        "name": "a",
        "guidance": [-1, 0, 1],
        "form": ["classifier-free", "rescaled"],
        "interval": ["everywhere", [0.2, 5]],
    }
    (found,) = parse(Study, {"slices": [several]}, "study").slices
    settings = set(found.settings())
    assert {s.guidance: sum(o.guidance == s.guidance for o in settings) for s in settings} == {
        -1: 1, 0: 1, 1: 4,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("slices = [{name = 'a', stepz = 5}]", "did you mean 'steps'"),
        ("slices = [{name = 'a', sampler = 'dimm'}]", "did you mean 'ddim'"),
        ("slices = [{name = 'a', guidance = 'high'}]", "guidance"),
        ("slices = [{name = 'a', steps = 0}]", "at least 1"),
        ("slices = [{name = 'a'}, {name = 'a'}]", "two slices"),
        ("slices = [{name = 'a', interval = [5, 0.2]}]", "low < high"),
        ("slices = []", "slices"),
        ("metrics = 'kid'\nslices = [{name = 'a'}]", "fid"),
        ("metrics = 'fidd'\nslices = [{name = 'a'}]", "did you mean 'fid'"),
        ("labels = 'random'\nslices = [{name = 'a', screened = 9}]", "other than random"),
        ("seed = -1\nslices = [{name = 'a'}]", "seed"),
        ("slices = [{name = 'a'", "TOML"),
    ],
)
def test_a_mistake_in_a_study_is_one_line(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(text)
    with pytest.raises(UserError, match="study") as refused:
        load_study(str(path))
    assert told in str(refused.value)


def test_what_a_model_cannot_do_is_refused_before_the_first_cell(
    study: Study, bench: Bench, folder_of_model: Path
) -> None:
    for changes, told in (
        ({"sampler": "ddim", "steps": 2000}, "steps must lie in 1..10"),
        ({"sampler": "ddpm-analytic", "steps": 2, "guidance": 1}, "w = 0 only"),
        ({"guidance": -2, "steps": 2}, ">= -1"),
        ({"sampler": "tuned", "steps": 2}, "underone tune"),
    ):
        bad = small_study(folder_of_model, slices=[*SLICES, {"name": "bad", **changes}])
        with pytest.raises(UserError, match='slice "bad"') as refused:
            plan_of(bad, bench)
        assert told in str(refused.value)
    with pytest.raises(UserError, match="no checkpoint folder"):
        open_bench(small_study(folder_of_model / "missing"))
    with pytest.raises(UserError, match="unknown study"):
        load_study("fashion")


def test_every_shipped_study_is_sound() -> None:
    assert "guide" in shipped_studies()
    for name in shipped_studies():
        assert load_study(name).slices


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (None, "balanced"),
        ((60,) * 9 + (70,), "balanced"),
        ((60,) * 9 + (80,), "proportional"),
        ((0,) + (60,) * 9, "proportional"),
    ],
)
def test_a_guide_has_as_many_of_each_class_as_uneven_data(
    small_model: DiffusionModel, images: tuple[int, ...] | None, labels: str
) -> None:
    data = small_model.config.data.model_copy(update={"class_images": images})
    model = replace(small_model, config=small_model.config.model_copy(update={"data": data}))
    assert for_model(load_study("guide"), "small", model, ()).labels == labels


def test_a_guide_asks_nothing_that_its_model_cannot_do(model_folder: ModelFolder) -> None:
    bench = open_bench(small_study(model_folder("unguided", label_dropout=0.0, steps=10)))
    (name,) = bench.models
    adapted = for_model(load_study("guide"), name, load_model(name), ())
    for each in adapted.slices:
        assert all(setting.guidance == 0 for setting in each.settings())
        assert all(setting.steps <= 10 for setting in each.settings())
    plan_of(adapted, bench)
