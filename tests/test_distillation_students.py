"""Distilled students in their folders: trained, stopped and resumed, sampled, and refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from conftest import Run, without_pictures
from helpers import float64, generator
from underone.checkpoint import (
    DiffusionConfig,
    DiffusionModel,
    DistillationRecord,
    load_checkpoint,
    load_config,
    save_config,
    save_weights,
)
from underone.data import load_dataset
from underone.data.images import to_model_range
from underone.diffusion import Karras, LinearBeta, node_at
from underone.errors import UserError
from underone.generation import DISTILLED, Draw, Setting, generate, usual_setting
from underone.study.bench import Bench
from underone.study.cell import Cell
from underone.training.begin import resume, start
from underone.training.recipe import (
    ConsistencyTuning,
    DistillationRecipe,
    Trajectories,
    load_recipe,
)
from underone.training.run import Run as TrainingRun
from underone.training.teaching import distillation_recipe, objective_with_teacher

DATA = Path(__file__).parent / "data" / "fashion-mnist"
SCHEDULE = LinearBeta()
DEVIATION = 0.7
SMALL_BATCH = 16
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real images under the names of training images."""
    folder = tmp_path_factory.mktemp("root")
    for path in DATA.iterdir():
        if path.name.startswith("t10k"):
            shutil.copy(path, folder / path.name.replace("t10k", "train"))
            shutil.copy(path, folder / path.name)
    return folder


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command's students learn from fewer images per update: how well is not tested here."""

    def smaller(*given: Any) -> DistillationRecipe:
        return distillation_recipe(*given).model_copy(update={"batch_size": SMALL_BATCH})

    monkeypatch.setattr("underone.cli.distill.distillation_recipe", smaller)


@pytest.fixture(scope="module")
def trained(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher trained for a few updates, in the way consistency needs."""
    changes = (
        "prediction.name=preconditioned",
        f"prediction.data_deviation={DEVIATION}",
        f"batch_size={SMALL_BATCH}",
    )
    images = load_dataset("fashion-mnist", "train", root)
    folder = tmp_path_factory.mktemp("trained") / "teacher"
    run = start(folder, "tiny", load_recipe("tiny", changes), images, CPU, steps=4)
    with without_pictures():
        advance(run, 4)
        run.finish(None)
    return folder


@pytest.fixture
def teacher(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "teacher"))


def advance(run: TrainingRun, until: int) -> None:
    for _ in run.advance(lambda: run.state.step >= until):
        pass


def distilled(run: Run, teacher: Path, root: Path, out: Path, *options: object) -> str:
    status, _, told = run("distill", teacher, "--root", root, "--out", out, *options)
    assert status == 0, told
    return told


def record_of(folder: Path) -> DistillationRecord:
    config = load_config(folder)
    assert isinstance(config, DiffusionConfig)
    assert config.distillation is not None
    return config.distillation


def loaded(folder: Path) -> DiffusionModel:
    model = load_checkpoint(folder)
    assert isinstance(model, DiffusionModel)
    return model


@pytest.mark.slow
def test_a_student_is_sampled_by_its_own_steps(
    run: Run, teacher: Path, root: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "student"
    told = distilled(run, teacher, root, folder, "--nfe", 2, "--steps", 2)
    assert f"underone sample {folder}" in told
    record = record_of(folder)
    fine = Karras()(SCHEDULE, 8) * 1000
    assert record.paths == ((fine[0].item(), fine[4].item()),)
    assert (record.sampler, record.method) == ("ddim", "trajectories")
    assert record.teacher_sha256 == loaded(teacher).sha256
    out = tmp_path / "samples.npz"
    status, printed, _ = run("sample", folder, "--count", 4, "--out", out, "--json")
    assert status == 0
    said = json.loads(printed)
    assert (said["sampler"], said["steps"], said["grid"]) == (DISTILLED, 2, "learned")
    assert said["evaluations"] == {"model": 2.0}
    steps = ":".join(str(k) for k in record.paths[0])
    by_name = generate(loaded(folder), Setting("ddim", 2, f"explicit,steps={steps}"), Draw(4))
    again = generate(loaded(folder), usual_setting(loaded(folder)), Draw(4))
    assert torch.equal(by_name.images, again.images)
    assert (folder / "preview.png").exists()


def test_a_consistency_model_takes_one_step_or_two(
    run: Run, teacher: Path, root: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "student"
    options = ("--nfe", 2, "--steps", 2, "--method", "consistency")
    distilled(run, teacher, root, folder, *options)
    (first, second), alone = record_of(folder).paths
    assert (first, alone) == (1000, (1000,))
    node = node_at(SCHEDULE, float64(second / 1000))
    assert node.noise_ratio.item() == pytest.approx(0.821 * 2 * DEVIATION, rel=1e-6)
    model = loaded(folder)
    assert usual_setting(model) == Setting(DISTILLED, 2)
    for steps in (1, 2):
        samples = generate(model, Setting(DISTILLED, steps), Draw(3))
        assert samples.protocol["evaluations"] == {"model": float(steps)}
    with pytest.raises(UserError, match="distilled to 2 or 1 steps, not 3"):
        generate(model, Setting(DISTILLED, 3), Draw(3))


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(Trajectories(2), marks=pytest.mark.slow),
        ConsistencyTuning(2),
        pytest.param(Trajectories(2, likeness=1), marks=pytest.mark.slow),
    ],
    ids=["trajectories", "consistency", "likeness"],
)
def test_a_run_that_was_stopped_goes_on_bitwise(
    teacher: Path, root: Path, tmp_path: Path, method: Trajectories | ConsistencyTuning
) -> None:
    recipe = distillation_recipe(str(teacher), method, "fashion-mnist")
    recipe = recipe.model_copy(update={"batch_size": SMALL_BATCH})
    images = load_dataset("fashion-mnist", "train", root)
    whole = start(tmp_path / "whole", "student", recipe, images, CPU, steps=4)
    first = start(tmp_path / "stopped", "student", recipe, images, CPU, steps=4)
    with without_pictures():
        advance(whole, 4)
        whole.save()
        advance(first, 2)
        first.save()
        second = resume(first.folder, recipe, images, CPU)
        assert second.state.step == 2
        advance(second, 4)
        second.save()
    for name in ("training/state", "model", "raw"):
        one, other = (load_file(run.folder / f"{name}.safetensors") for run in (whole, second))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), name


@pytest.mark.slow
def test_guidance_is_in_the_student_and_asked_for_no_more(
    run: Run, teacher: Path, root: Path, tmp_path: Path
) -> None:
    strangers = loaded(teacher).network.state_dict()
    for name, tensor in strangers.items():  # to whom classes mean something
        strangers[name] = 0.1 * torch.randn(tensor.shape, generator=generator())
    save_weights(teacher, strangers)
    folder = tmp_path / "guided"
    distilled(run, teacher, root, folder, "--nfe", 1, "--steps", 2, "--guidance", 3)
    plain = tmp_path / "plain"
    distilled(run, teacher, root, plain, "--nfe", 1, "--steps", 2)
    assert record_of(folder).guidance == 3
    assert loaded(folder).sha256 != loaded(plain).sha256
    status, _, told = run("sample", folder, "--guidance", 1, "--out", tmp_path / "x.npz")
    assert (status, "was distilled" in told) == (2, True)
    status, _, told = run("export", folder, "--to", "diffusers", "--out", tmp_path / "there")
    assert (status, "export its teacher" in told) == (2, True)


@pytest.mark.slow
def test_another_student_is_another_cell(
    run: Run, teacher: Path, root: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "student"
    distilled(run, teacher, root, folder, "--nfe", 1, "--steps", 1)
    before = loaded(folder)
    config = before.config
    assert isinstance(config, DiffusionConfig)
    assert config.distillation is not None
    other = config.distillation.model_copy(update={"paths": ((900.0,),)})
    after = replace(before, config=config.model_copy(update={"distillation": other}))
    cell = Cell("student", Setting(DISTILLED, 1), Draw(4))
    one, two = (cell.identity(Bench({"student": model}, ())) for model in (before, after))
    assert one != two


def refused(run: Run, *arguments: object) -> str:
    status, _, told = run(*arguments)
    assert status == 2, told
    assert told.count("\n") == 1
    return told


def test_what_cannot_be_distilled_is_refused(
    run: Run,
    teacher: Path,
    root: Path,
    tmp_path: Path,
    model_folder: Callable[..., Path],
) -> None:
    out, few = tmp_path / "out", ("--nfe", 2, "--steps", 1)

    def told(model: object, *options: object) -> str:
        return refused(run, "distill", model, "--root", root, "--out", out, *few, *options)

    by_noise = model_folder()
    assert "preconditioned prediction" in told(by_noise, "--method", "consistency")
    assert "1 or 2 evaluations" in told(teacher, "--method", "consistency", "--nfe", 3)
    assert "--guidance, --form, --grid" in told(teacher, "--method", "consistency", "--guidance", 1)
    assert "--likeness" in told(teacher, "--method", "consistency", "--likeness", 1)
    assert "likeness must be finite and at least 0" in told(teacher, "--likeness", -1)
    assert "classifier" in told("fashion-mnist-classifier")
    assert "other data" in told(by_noise)
    assert "unknown grid" in told(teacher, "--grid", "nowhere")
    assert "choose at most --nfe 250" in told(teacher, "--nfe", 400)
    assert not out.exists()
    student = tmp_path / "student"
    distilled(run, teacher, root, student, *few)
    assert "is distilled itself" in told(student)
    assert "already holds a model" in refused(
        run, "distill", teacher, "--root", root, "--out", student, *few
    )


def test_a_teacher_that_has_changed_is_refused(
    run: Run, teacher: Path, root: Path, tmp_path: Path
) -> None:
    arguments = ("distill", teacher, "--root", root, "--out", tmp_path / "student", "--nfe", 1)
    assert run(*arguments, "--steps", 1)[0] == 0
    tensors = loaded(teacher).network.state_dict()
    save_weights(teacher, {name: 1.01 * tensor for name, tensor in tensors.items()})
    assert "another recipe (teacher_sha256" in refused(run, *arguments, "--resume")


def test_only_students_are_sampled_as_students(small_model: DiffusionModel) -> None:
    with pytest.raises(UserError, match="underone distill"):
        generate(small_model, Setting(DISTILLED, 2), Draw(1))
    with pytest.raises(UserError, match="leave out --grid karras"):
        Setting(DISTILLED, 2, "karras")


def test_a_students_paths_lead_down(teacher: Path, tmp_path: Path) -> None:
    config = load_config(teacher)
    record = {
        "teacher": "x",
        "teacher_sha256": "0",
        "method": "trajectories",
        "sampler": "ddim",
        "paths": [[10.0, 20.0]],
    }
    folder = tmp_path / "broken"
    save_config(folder, config)
    document = json.loads((folder / "config.json").read_text()) | {"distillation": record}
    (folder / "config.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match="from noisy to clean"):
        load_config(folder)


def test_nearly_equal_estimates_are_compared_in_float32(teacher: Path, root: Path) -> None:
    """Most of their difference would be lost to rounding in bfloat16."""
    recipe = distillation_recipe(str(teacher), ConsistencyTuning(2), "fashion-mnist")
    objective = objective_with_teacher(recipe, torch.device("cpu"))
    images = load_dataset("fashion-mnist", "train", root).images[:8]
    batch = to_model_range(images), torch.arange(8) % 10
    network = loaded(teacher).network
    plain = objective(network, *batch, generator())
    with torch.autocast("cpu", dtype=torch.bfloat16):  # as the loop does
        rounded = objective(network, *batch, generator())
    assert torch.equal(plain, rounded)
