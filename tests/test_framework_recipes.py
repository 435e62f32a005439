"""Every kind of model goes the whole way by the ordinary commands: trained, resumed, measured."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from conftest import Run
from underone.checkpoint import DiffusionModel, load_checkpoint
from underone.data import load_dataset
from underone.diffusion import (
    Cosine,
    FlowVelocity,
    Geometric,
    LinearBeta,
    Noise,
    Prediction,
    Schedule,
    Score,
    Straight,
    Velocity,
)
from underone.errors import UserError
from underone.training.begin import start
from underone.training.recipe import DiffusionRecipe, load_recipe

pytestmark = pytest.mark.usefixtures("no_pictures")
SLICE = Path(__file__).parent / "data" / "fashion-mnist"

RECIPES: dict[str, tuple[type[Schedule], type[Prediction], int | None]] = {
    "fashion-mnist-score": (Geometric, Score, 10),
    "fashion-mnist-flow": (Straight, FlowVelocity, 10),
    "fashion-mnist-unconditional": (LinearBeta, Noise, None),
    "fashion-mnist-velocity": (LinearBeta, Velocity, 10),
    "fashion-mnist-cosine": (Cosine, Velocity, 10),
}
SHRUNK = ("network.width=8", "network.heads=2", "batch_size=8", "optimisation.warmup_steps=2")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 40 real images by class."""
    folder, real = (
        tmp_path_factory.mktemp("data") / "images",
        load_dataset("fashion-mnist", "test", SLICE),
    )
    for label in range(10):
        (folder / f"{label}").mkdir(parents=True)
        for index, image in enumerate(real.images[real.labels == label][:4]):
            Image.fromarray(image[0].numpy()).save(folder / f"{label}" / f"{index}.png")
    return folder


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_differs_from_the_plain_ddpm_where_it_says_so(name: str) -> None:
    plain, other = load_recipe("fashion-mnist"), load_recipe(name)
    assert isinstance(plain, DiffusionRecipe)
    assert isinstance(other, DiffusionRecipe)
    schedule, prediction, classes = RECIPES[name]
    assert (type(other.schedule), type(other.prediction)) == (schedule, prediction)
    assert other.network.classes == classes
    assert other.network.time == (prediction is not Score)
    assert (other.network.widths, other.network.blocks) == (
        plain.network.widths,
        plain.network.blocks,
    )
    assert (other.steps, other.batch_size) == (plain.steps, plain.batch_size)
    assert other.optimisation == plain.optimisation
    assert other.label_dropout == (0.1 if classes else 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_resumes_bitwise_samples_and_is_measured(
    name: str, run: Run, images: Path, tmp_path: Path
) -> None:
    changes = (*SHRUNK, f'data="{images}"')
    options = [part for change in changes for part in ("--set", change)]
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    status, _, error = run("train", name, "--steps", 4, "--out", straight, *options)
    assert status == 0, error
    recipe = load_recipe(name, changes)
    begun = start(
        resumed, name, recipe, load_dataset(str(images), "train"), torch.device("cpu"), steps=4
    )
    for _ in begun.advance(lambda: begun.state.step >= 2):
        pass
    begun.save()
    assert run("train", name, "--resume", "--out", resumed, *options)[0] == 0
    for file in ("model", "raw", "training/state"):
        one, other = (load_file(f / f"{file}.safetensors") for f in (straight, resumed))
        assert all(torch.equal(one[key], other[key]) for key in one)

    model, classes = load_checkpoint(straight), RECIPES[name][2]
    assert isinstance(model, DiffusionModel)
    drawn = tmp_path / "samples.npz"
    sampler = "ncsnv2" if name == "fashion-mnist-score" else "heun"
    status, _, error = run(
        "sample", straight, "--sampler", sampler, "--steps", 3, "--count", 4, "--out", drawn
    )
    assert status == 0, error
    assert ("labels" in np.load(drawn)) == (classes is not None)
    if classes is not None:
        guided = ("--guidance", 1, "--steps", 2, "--count", 2)
        assert run("sample", straight, *guided, "--out", tmp_path / "guided.png")[0] == 0
    status, out, error = run(
        *("evaluate", straight, "--reference", "fashion-mnist", "--blocks", 1),
        *("--steps", 2, "--count", 20, "--metrics", "fid", "--json"),
    )
    assert status == 0, error
    assert json.loads(out)["protocol"]["labels"] == ("none" if classes is None else "balanced")


@pytest.mark.slow
def test_an_unconditional_model_is_studied(run: Run, images: Path, tmp_path: Path) -> None:
    model, options = tmp_path / "model", []
    for change in (*SHRUNK, f'data="{images}"'):
        options += ["--set", change]
    command = ("train", "fashion-mnist-unconditional", "--steps", 1, "--out", model, *options)
    assert run(*command)[0] == 0
    config = json.loads((model / "config.json").read_text())
    config["data"]["name"] = "fashion-mnist"  # the slice of it that it was trained on
    (model / "config.json").write_text(json.dumps(config))
    study = tmp_path / "study.toml"
    study.write_text(
        f'model = "{model}"\nsamples = 20\nmetrics = ["fid", "intra-fid", "consistency"]\n'
        '[[slices]]\nname = "steps"\nsteps = [1, 2]\n'
    )
    out = tmp_path / "out"
    status, _, error = run("study", study, "--out", out)
    assert status == 0, error
    results = [json.loads(path.read_text()) for path in (out / "cells").glob("*.json")]
    assert len(results) == 2
    for result in results:
        (measurement,) = result["measurements"]
        assert measurement["protocol"]["labels"] == "none"
        assert "intra-fid" not in measurement["figures"]
    status, _, error = run("recommend", out, "--nfe", 2)
    assert status == 0, error


def refusal(name: str, *changes: str) -> str:
    with pytest.raises(UserError) as caught:
        load_recipe(name, changes)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("schedule", "prediction", "told"),
    [
        ("geometric", "velocity", "predict noise or data"),
        ("straight", "velocity", "or flow-velocity in the straight one"),
        ("linear-beta", "flow-velocity", "the linear-beta schedule is not straight"),
        ("geometric", "flow-velocity", "the geometric schedule is not straight"),
        ("geometric", "score", "set network.time = false"),
    ],
)
def test_what_does_not_fit_together_is_refused_when_it_is_read(
    schedule: str, prediction: str, told: str
) -> None:
    text = refusal("tiny", f"schedule.name={schedule}", f"prediction.name={prediction}")
    assert told in text


@pytest.mark.parametrize(
    "changes",
    [
        ("schedule.name=geometric",),
        ("schedule.name=straight",),
        ("schedule.name=straight", "prediction.name=data"),
        ("prediction.name=score", "network.time=false"),
    ],
)
def test_other_predictions_belong_to_no_schedule(changes: tuple[str, ...]) -> None:
    assert isinstance(load_recipe("tiny", changes), DiffusionRecipe)


def test_the_levels_of_a_data_set_are_printed_as_a_schedule(
    run: Run, images: Path, tmp_path: Path
) -> None:
    status, out, _ = run("data", images, "--levels")
    assert status == 0
    own = tmp_path / "own.toml"
    own.write_text(
        'kind = "diffusion"\ndata = "x"\nsteps = 1\n[prediction]\nname = "score"\n[network]\n'
        "image_size = 28\nchannels = 1\nattention = []\ntime = false\n[schedule]\n" + out
    )
    recipe = load_recipe(str(own))
    assert isinstance(recipe, DiffusionRecipe)
    status, out, _ = run("data", images, "--levels", "--json")
    assert json.loads(out) == recipe.model_dump()["schedule"]
    real = load_dataset(str(images), "train").images.flatten(1).double() / 127.5
    assert json.loads(out)["sigma_max"] == pytest.approx(
        torch.cdist(real, real).max().item(), rel=1e-5
    )
