"""An exported folder gives in diffusers the images that it gives here, and none is half-written."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline

from conftest import ModelFolder
from underone.checkpoint import (
    AnyPrediction,
    AnySchedule,
    DiffusionModel,
    load_checkpoint,
)
from underone.cli import main
from underone.data import to_uint8
from underone.diffusion import (
    Cosine,
    Data,
    LinearBeta,
    Noise,
    Preconditioned,
    ScaledLinearBeta,
    Straight,
    Velocity,
    sample,
)
from underone.errors import UserError
from underone.generation import Draw, Setting, denoiser_for, generate, grid_for, sampler_for
from underone.interop.export import export_to_diffusers
from underone.interop.scheduler import read_scheduler, scheduler_document
from underone.zoo import load_model

SETTING = Setting("ddim", 10, "trailing")


@pytest.fixture(autouse=True)
def modules_cache(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where diffusers copies the modules it is trusted to run."""
    cache = str(tmp_path_factory.mktemp("modules"))
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", cache)


def theirs(folder: Path, count: int, **options: Any) -> Any:
    pipeline: Any = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(count, num_inference_steps=10, output_type="pt", **options).images


def ours(model: DiffusionModel, setting: Setting, count: int, seed: int = 0) -> torch.Tensor:
    (batch,) = sample(
        denoiser_for(model, setting, "float32"),
        sampler_for(model, setting),
        grid_for(model, setting),
        setting.steps,
        shape=model.shape,
        keys=Draw(count, seed=seed).keys,
        labels=Draw(count).class_labels(10),
    )
    return batch.x


def changed(model: DiffusionModel, schedule: AnySchedule, prediction: AnyPrediction) -> Any:
    change = {"schedule": schedule, "prediction": prediction}
    return replace(model, config=model.config.model_copy(update=change))


@pytest.mark.parametrize(
    ("schedule", "prediction", "weight"),
    [
        (LinearBeta(), Noise(), 0.0),
        (LinearBeta(steps=500, beta_max=0.03), Noise(), 1.5),
        (Cosine(), Velocity(), -1.0),
        (Cosine(offset=0.02), Data(), 0.0),
        (ScaledLinearBeta(), Velocity(), 0.5),
        (LinearBeta(steps=500), Preconditioned(0.7), 0.5),
    ],
)
def test_diffusers_gives_the_same_images(
    small_model: DiffusionModel,
    tmp_path: Path,
    schedule: AnySchedule,
    prediction: AnyPrediction,
    weight: float,
) -> None:
    model = changed(small_model, schedule, prediction)
    export_to_diffusers(model, tmp_path / "out")
    peers = theirs(tmp_path / "out", 6, guidance=weight, seed=3)
    mine = ours(model, replace(SETTING, guidance=weight), 6, seed=3)
    torch.testing.assert_close(2 * peers - 1, mine.clamp(-1, 1), rtol=0, atol=1e-4)
    assert mine.std() > 0.05  # and not an empty canvas


def test_a_flow_is_refused_and_nothing_is_written(
    small_model: DiffusionModel, tmp_path: Path
) -> None:
    model = changed(small_model, Straight(), Noise())
    with pytest.raises(UserError, match="has no straight schedule"):
        export_to_diffusers(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_shipped_model_gives_its_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "sys.argv", ["underone", "export", "fashion-mnist", "--to", "diffusers", "--out",
                     str(tmp_path / "out")]
    )  # fmt: skip
    main()
    peers = to_uint8(2 * theirs(tmp_path / "out", 4) - 1)
    model = load_model("fashion-mnist")
    mine = generate(model, SETTING, Draw(4), precision="float32").images
    difference = (peers.int() - mine.int()).abs()
    assert difference.max() <= 1
    assert (difference == 0).double().mean() > 0.999
    assert mine.float().std() > 50
    named = DiffusionPipeline.from_pretrained(
        tmp_path / "out",
        custom_pipeline=str(tmp_path / "out" / "underone_pipeline.py"),
        trust_remote_code=True,
    )
    assert type(named).__name__ == "UnderonePipeline"
    picture = named(class_labels=[9], num_inference_steps=2).images[0]
    assert picture.size == (28, 28)


def test_without_trust_diffusers_runs_nothing_of_it(
    small_model: DiffusionModel, tmp_path: Path
) -> None:
    export_to_diffusers(small_model, tmp_path / "out")
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        DiffusionPipeline.from_pretrained(tmp_path / "out")


def test_a_model_without_null_label_is_not_guided(
    model_folder: ModelFolder, tmp_path: Path
) -> None:
    model = load_checkpoint(model_folder(label_dropout=0.0))
    assert isinstance(model, DiffusionModel)
    export_to_diffusers(model, tmp_path / "out")
    with pytest.raises(ValueError, match="without a null class"):
        theirs(tmp_path / "out", 1, guidance=1.0)


@pytest.mark.parametrize("prediction", [Noise(), Data(), Velocity()])
@pytest.mark.parametrize(
    "schedule", [LinearBeta(steps=7, beta_max=0.5), ScaledLinearBeta(), Cosine(steps=9)]
)
def test_a_scheduler_is_read_as_it_was_written(
    tmp_path: Path, schedule: AnySchedule, prediction: AnyPrediction
) -> None:
    path = tmp_path / "scheduler_config.json"
    path.write_text(json.dumps(scheduler_document(schedule, prediction)))
    assert read_scheduler(path) == (schedule, prediction)


def test_nothing_is_overwritten_or_left_half_written(
    small_model: DiffusionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("kept")
    with pytest.raises(UserError, match="not an empty folder"):
        export_to_diffusers(small_model, tmp_path / "full")

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("underone.interop.export.save_file", full_disk)
    with pytest.raises(OSError, match="No space"):
        export_to_diffusers(small_model, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]


def test_what_is_theirs_already_and_what_is_ours_in_their_dress(
    small_model: DiffusionModel, tmp_path: Path
) -> None:
    export_to_diffusers(small_model, tmp_path / "out")
    with pytest.raises(UserError, match="the pipeline must be DDPMPipeline or DDIMPipeline"):
        load_model(f"diffusers:{tmp_path / 'out'}")
