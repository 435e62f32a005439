"""The conditional VAE: its training, and the commands that sample and measure it."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import conftest
from conftest import ModelFolder
from helpers import refusal
from studies import small_study
from underone.checkpoint import (
    DataRecord,
    TrainingRecord,
    VAECheckpointConfig,
    VAEModel,
    load_checkpoint,
    save_config,
    save_weights,
)
from underone.data import Dataset, load_dataset, read_samples, to_uint8
from underone.data.images import to_model_range
from underone.diffusion import NoiseStreams
from underone.errors import UserError
from underone.generation import DECODER, Draw, Setting, generate
from underone.networks import UNet, UNetConfig
from underone.study import costs
from underone.study.bench import open_bench
from underone.study.costs import Costs
from underone.study.definition import Study
from underone.study.fit import make_plan
from underone.study.plan import StudyPlan
from underone.training import run as run_module
from underone.training.begin import resume, start
from underone.training.held_out_bound import bound_of, held_out_bound
from underone.training.preview import draw_preview
from underone.training.recipe import Recipe, VAERecipe, load_recipe
from underone.training.run import Run
from underone.zoo import load_extractor, load_generative_model, load_model, ship
from vaes import SMALL, config, network

SLICE = Path(__file__).parent / "data" / "fashion-mnist"
CPU = torch.device("cpu")
SMALL_RECIPE = (
    "network.width=16",
    "network.multipliers=[1]",
    "network.attention=[]",
    "network.patch=7",
    "network.latent=16",
    "batch_size=32",
    "log_every=5",
    "optimisation.learning_rate=0.005",
    "optimisation.warmup_steps=5",
)


# How it is trained.


@pytest.fixture(scope="module")
def images() -> Dataset:
    """The first 800 images of the slice, to train on; the other 200 are held out."""
    return part(slice(None, 800))


def part(rows: slice) -> Dataset:
    every = load_dataset("fashion-mnist", "test", SLICE)
    return replace(every, images=every.images[rows], labels=every.labels[rows])


def recipe(*changes: str) -> VAERecipe:
    found = load_recipe("fashion-mnist-cvae", [*SMALL_RECIPE, *changes])
    assert isinstance(found, VAERecipe)
    return found


def advance(run: Run, until: int) -> list[float]:
    return [now.update.loss for now in run.advance(lambda: run.state.step >= until)]


def loaded(folder: Path) -> VAEModel:
    model = load_checkpoint(folder)
    assert isinstance(model, VAEModel)
    return model


def class_means(data: Dataset) -> Tensor:
    x = to_model_range(data.images)
    return torch.stack([x[data.labels == label].mean(0) for label in range(10)])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, images: Dataset) -> Path:
    """A small VAE trained for a few seconds, with what is told at the end of it."""
    folder = tmp_path_factory.mktemp("vae") / "small"
    run = start(folder, "cvae", recipe(), images, CPU, steps=150)
    advance(run, 150)
    with mock.patch.object(run_module, "draw_loss"):  # which is slow, and tested elsewhere
        scores = run.finish(part(slice(800, None)))
    (folder / "scores.json").write_text(json.dumps(scores))
    return folder


def test_it_learns_more_than_the_mean_of_each_class(trained: Path, images: Dataset) -> None:
    held_out, model = part(slice(800, None)), loaded(trained)
    x = to_model_range(held_out.images)
    of_means = (x - class_means(images)[held_out.labels]).square().mean().item()
    with torch.no_grad():
        mean, _ = model.network.encode(x, held_out.labels)
        of_model = (x - model.network.decode(mean, held_out.labels)).square().mean().item()
    assert of_model < 0.7 * of_means
    # The same in bits: a Gaussian about each class's mean, its variance the best there is for it.
    scores = json.loads((trained / "scores.json").read_text())
    bits_of_means = math.log2(2 * math.pi * math.e * of_means) / 2 + math.log2(255 / 2)
    assert 0 < scores["test_bits_of_divergence"] < scores["test_bits_per_dimension"]
    assert scores["test_bits_per_dimension"] < bits_of_means - 0.15


def test_its_samples_are_of_the_class_asked_for_and_differ(trained: Path, images: Dataset) -> None:
    samples = generate(loaded(trained), Setting(DECODER), Draw(100))
    x, means = to_model_range(samples.images), class_means(images)
    nearest = torch.cdist(x.flatten(1), means.flatten(1)).argmin(dim=1)
    assert samples.labels is not None
    assert (nearest == samples.labels).double().mean() > 0.5  # of real images it is 0.68
    of_a_class = x[samples.labels == 0]
    assert of_a_class.std(dim=0).mean() > 0.02


def test_what_was_trained_is_kept_and_told(trained: Path) -> None:
    model, card = loaded(trained), (trained / "README.md").read_text()
    scores = json.loads((trained / "scores.json").read_text())
    assert "A class-conditional variational autoencoder of fashion-mnist" in card
    bits = scores["test_bits_per_dimension"]
    assert f"| test bits per dimension | {bits:.4f} |" in card
    assert f"underone sample {trained} --count 100" in card
    assert model.config.training.moving_average == 0.1
    raw = load_file(trained / "raw.safetensors")
    average = load_file(trained / "model.safetensors")
    assert any(not torch.equal(raw[name], average[name]) for name in raw)
    assert (trained / "preview.png").exists()
    assert not (trained / "weak.safetensors").exists()


def test_the_bound_is_of_every_image_with_a_latent_of_its_own(trained: Path) -> None:
    model, some = loaded(trained), part(slice(300))  # more than a batch
    noise = NoiseStreams([(0, index) for index in range(300)], (16,))()
    with torch.no_grad():
        bound = model.network(to_model_range(some.images), some.labels, noise)
    found = bound_of(model, some)
    total = (bound.reconstruction + bound.kl).double().mean().item()
    per_dimension = 784 * math.log(2)
    assert found["bits_per_dimension"] == pytest.approx(
        total / per_dimension + math.log2(255 / 2), rel=1e-5
    )
    assert found["bits_of_divergence"] == pytest.approx(
        bound.kl.double().mean().item() / per_dimension, rel=1e-5
    )


def test_the_preview_is_of_raw_and_averaged_weights(tmp_path: Path) -> None:
    raw = network(image_size=28, attention=(7,), patch=2, classes=10, latent=16).train()
    average = network(image_size=28, attention=(7,), patch=2, classes=10, latent=16)
    assert average.out.bias is not None
    nn.init.constant_(average.out.bias, 0.6)
    given = recipe()
    with mock.patch("underone.training.preview.save_picture") as saved:
        draw_preview(raw, average, given, tmp_path / "preview.png")
    (picture, path), _ = saved.call_args
    assert path == tmp_path / "preview.png"
    top, bottom = np.split(np.asarray(picture, dtype=float), 2)
    assert bottom.mean() > top.mean() + 30
    assert raw.training


def test_resumed_it_is_bitwise_what_it_would_have_been(tmp_path: Path, images: Dataset) -> None:
    with mock.patch.multiple(run_module, draw_loss=mock.DEFAULT, draw_preview=mock.DEFAULT):
        for name, stops in (("whole", [12]), ("pieces", [1, 7, 12])):
            run = start(tmp_path / name, "cvae", recipe(), images, CPU, steps=12)
            for stop in stops:
                advance(run, stop)
                run.save()
                run = resume(tmp_path / name, recipe(), images, CPU)
    for file in ("training/state", "model", "raw"):
        one, other = (
            load_file(tmp_path / name / f"{file}.safetensors") for name in ("whole", "pieces")
        )
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    other_beta: Recipe = recipe("beta=2")
    told = refusal(lambda: resume(tmp_path / "whole", other_beta, images, CPU))
    assert "beta was 1.0, now 2.0" in told


# How it is sampled.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint folder with random weights."""
    document = VAECheckpointConfig(
        network=config(),
        data=DataRecord(name="squares", sha256="0" * 64, class_names=("a", "b", "c")),
        training=TrainingRecord(
            recipe="none", steps=7, batch_size=2, images_seen=14, seconds=1, seed=3, torch="2"
        ),
    )
    save_config(tmp_path / "vae", document)
    save_weights(tmp_path / "vae", network().state_dict())
    return tmp_path / "vae"


def test_samples_are_the_decoders_mean_of_latents_keyed_by_seed_and_index(folder: Path) -> None:
    model, setting = loaded(folder), Setting(DECODER)
    whole = generate(model, setting, Draw(11, seed=4, labels="2,0"), precision="float32")
    z = NoiseStreams([(4, index) for index in range(11)], (5,))()
    labels = torch.tensor([2, 0] * 6)[:11]
    with torch.no_grad():
        assert torch.equal(whole.images, to_uint8(model.network.decode(z, labels)))
    assert whole.images.float().std() > 1
    assert whole.labels is not None
    assert torch.equal(whole.labels, labels)
    for batch_size in (1, 4):
        draw = Draw(8, seed=4, first=3, labels="2,0")
        again = generate(model, setting, draw, batch_size=batch_size, precision="float32")
        assert (again.images.int() - whole.images[3:].int()).abs().max() <= 1


def test_what_was_drawn_is_recorded(folder: Path, tmp_path: Path) -> None:
    model = loaded(folder)
    generate(model, Setting(DECODER), Draw(4)).save_npz(tmp_path / "samples.npz")
    protocol = read_samples(tmp_path / "samples.npz").protocol
    assert protocol["model"] == {"name": "vae", "sha256": model.sha256, "weights": "model"}
    assert protocol["evaluations"] == {"model": 1}
    told = [protocol[name] for name in ("sampler", "steps", "grid", "guidance", "guided_by")]
    assert told == ["decoder", 1, "none", 0.0, None]
    assert protocol["labels"] == "balanced"
    assert Setting(DECODER).evaluations(model) == 1


def test_its_setting_needs_its_name_alone() -> None:
    assert Setting(DECODER) == Setting(DECODER, 1, "none")
    assert Setting(DECODER).options == {"sampler": "decoder"}
    assert Setting("ddim", 20, threshold="none").options == {"threshold": "none"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"steps": 5}, "leave out steps = 5"),
        ({"grid": "karras"}, "leave out grid = karras"),
        ({"guidance": 1.0}, "leave out guidance = 1.0"),
        ({"guidance": -1.0}, "leave out guidance = -1.0"),
        ({"interval": (0.2, 5.0)}, "leave out interval = (0.2, 5.0)"),
        ({"form": "rescaled"}, "leave out form = rescaled"),
        ({"threshold": "dynamic"}, "leave out threshold = dynamic"),
    ],
)
def test_what_a_decoder_has_not_cannot_be_chosen(changes: dict[str, Any], told: str) -> None:
    assert told in refusal(lambda: Setting(DECODER, **changes))


def test_model_and_sampler_must_fit(folder: Path, model_folder: ModelFolder) -> None:
    vae, diffusion = load_generative_model(str(folder)), load_model(str(model_folder()))
    told = refusal(lambda: generate(vae, Setting("ddim", 20), Draw(1)))
    assert "vae is a VAE" in told
    assert "use decoder in place of ddim" in told
    told = refusal(lambda: generate(diffusion, Setting(DECODER), Draw(1)))
    assert "decoder is the sampler of a VAE" in told
    assert "label 3 is not a class" in refusal(
        lambda: generate(vae, Setting(DECODER), Draw(1, labels="3"))
    )


def test_what_belongs_to_another_kind_is_refused(folder: Path, images: Dataset) -> None:
    assert "no path from noise to image" in refusal(lambda: load_model(str(folder)))
    assert "no features" in refusal(lambda: load_extractor(str(folder)))
    assert "no VAE" in refusal(
        lambda: held_out_bound(Path("src/underone/zoo/fashion-mnist"), images)
    )
    other = UNet(UNetConfig(**SMALL, classes=3))
    save_weights(folder, other.state_dict())
    assert "does not fit its config.json" in refusal(lambda: load_checkpoint(folder))


def test_shipping_rounds_its_weights_and_measures_those(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo = tmp_path / "zoo"
    monkeypatch.setattr(ship, "zoo_folder", lambda: zoo)
    monkeypatch.setattr(ship, "load_generative_model", lambda name: loaded(zoo / name))
    ship.ship(trained, samples=20)
    assert {t.dtype for t in load_file(zoo / "small" / "model.safetensors").values()} == {
        torch.float16
    }
    card = (zoo / "small" / "README.md").read_text()
    assert "| FID@fashion-mnist-classifier, decoder, 1 steps, w = 0 |" in card


# The commands.


def test_it_is_sampled_and_measured_by_the_same_commands(
    run: conftest.Run, trained: Path, tmp_path: Path
) -> None:
    file = tmp_path / "samples.npz"
    wanted = ("--count", "40", "--seed", "0", "--labels", "balanced")
    status, out, error = run("sample", trained, *wanted, "--out", file, "--json")
    assert status == 0, error
    assert json.loads(out)["sampler"] == "decoder"
    status, out, error = run("evaluate", file, "--reference", "fashion-mnist", "--json")
    assert status == 0, error
    of_file = json.loads(out)
    assert of_file["subject"]["evaluations"] == {"model": 1}
    by_model = ("--reference", "fashion-mnist", "--count", "40", "--blocks", "1", "--json")
    status, out, error = run("evaluate", trained, *by_model)
    assert status == 0, error
    assert json.loads(out)["figures"]["fid"] == of_file["figures"]["fid"]
    assert json.loads(out)["subject"]["grid"] == "none"
    assert run("sample", trained, "--sampler", "decoder", "--out", tmp_path / "a.png")[0] == 0


def test_a_study_holds_it_beside_a_diffusion_model(
    run: conftest.Run,
    trained: Path,
    model_folder: ModelFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What costs are is a matter of the machine, not of this test.
    monkeypatch.setattr(costs, "_TIMINGS", 1)
    monkeypatch.setattr(costs, "_MEASURED_IMAGES", 40)
    file, done = tmp_path / "study.toml", tmp_path / "study"
    slices = f"""
        samples = 20
        metrics = "fid"
        [[slices]]
        name = "diffusion"
        model = "{model_folder("ten-steps", steps=10)}"
        steps = 2
        [[slices]]
        name = "vae"
        model = "{trained}"
        sampler = "decoder"
    """
    file.write_text(slices)
    status, out, error = run("study", file, "--out", done, "--json")
    assert status == 0, error
    cells = {(Path(c["model"]).name, c["setting"]["sampler"]): c for c in json.loads(out)}
    assert len(json.loads(out)) == 2
    mine = cells["small", "decoder"]
    assert (mine["setting"]["steps"], mine["setting"]["grid"]) == (1, "none")
    assert mine["evaluations"] == {"model": 1}
    page = (done / "report.html").read_text()
    assert "decoder, 1 step" in page
    status, out, error = run("recommend", done, "--model", trained)
    assert status == 0, error
    assert f"underone sample {trained} --sampler decoder --count 100" in out


def test_a_study_is_refused_before_its_first_cell(trained: Path, model_folder: ModelFolder) -> None:
    diffusion = str(model_folder())
    for changes, told in (
        ({"model": str(trained)}, "use decoder in place of ddim"),
        ({"sampler": "decoder", "guidance": [0, 1]}, "leave out guidance = 1.0"),
        ({"sampler": ["ddim", "decoder"], "model": diffusion}, "is a diffusion model"),
    ):
        slices = [{"name": "bad", "model": str(trained), **changes}]
        with pytest.raises(UserError, match='slice "bad"') as refused:
            plan_of(small_study(Path(diffusion), slices=slices))
        assert told in str(refused.value)


def plan_of(study: Study) -> StudyPlan:
    return make_plan(study, open_bench(study), Costs(evaluation={}, image=1), 1)


NO_PATH = "sampled in one pass of its decoder, which has no path from noise to image"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("sample MODEL --guidance 1", "leave out guidance = 1.0"),
        ("sample MODEL --steps 5", "leave out steps = 5"),
        ("sample MODEL --grid karras", "leave out grid = karras"),
        ("sample MODEL --interval 0.2:5", "leave out interval"),
        ("sample MODEL --sampler ddim", "use decoder in place of ddim"),
        ("sample MODEL --sampler ddpm-analytic", "use decoder in place of ddpm-analytic"),
        ("sample fashion-mnist --sampler decoder", "decoder is the sampler of a VAE"),
        ("sample MODEL --sampler decoder,steps=1", "has no options"),
        ("evaluate MODEL --reference fashion-mnist --guidance 1", "leave out guidance = 1.0"),
        ("guide MODEL", NO_PATH),
        ("tune MODEL --nfe 4", NO_PATH),
        ("trajectory MODEL", NO_PATH),
        ("vary MODEL --images fashion-mnist", NO_PATH),
        ("inpaint MODEL --images fashion-mnist --box 8:8:20:20", NO_PATH),
        ("invert MODEL --images fashion-mnist", NO_PATH),
        ("interpolate MODEL --images fashion-mnist", NO_PATH),
        ("decode MODEL x.npz", NO_PATH),
        ("likelihood MODEL --data fashion-mnist", NO_PATH),
        ("sample fashion-mnist --guidance 1 --form auto,by=MODEL", "not a diffusion model"),
        ("invert fashion-mnist --images fashion-mnist --sampler decoder", "leave out steps = 50"),
        ("trajectory fashion-mnist --sampler decoder", "decoder is the sampler of a VAE"),
    ],
)
def test_what_means_nothing_to_it_is_one_line(
    run: conftest.Run,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, error = run(*arguments.replace("MODEL", str(trained)).split())
    assert (status, out) == (2, ""), error
    assert told in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
