"""Folders that diffusers has written give the images that diffusers gives."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from torch import Tensor
from torch.nn import functional

from helpers import run
from pipelines import CLASSES, refusal, small_unet
from underone.checkpoint import DiffusionModel, load_tensors
from underone.cli import main
from underone.diffusion import (
    DDIM,
    GRIDS,
    ClassifierFree,
    Clipped,
    Cosine,
    Denoiser,
    LinearBeta,
    NoiseStreams,
    ScaledLinearBeta,
    nodes,
)
from underone.diffusion.schedule import DiscreteSchedule
from underone.errors import UserError
from underone.explore.jobs import draw_live, measure_live
from underone.explore.offer import Offer
from underone.explore.request import Request
from underone.generation import Draw, Setting, generate
from underone.interop import unet2d
from underone.interop.scheduler import read_scheduler
from underone.zoo import is_model, load_model

COUNT, STEPS = 4, 10
LABELS = torch.arange(COUNT) % CLASSES
CASES: dict[str, dict[str, Any]] = {
    "linear": {"prediction_type": "epsilon"},
    "cosine": {"prediction_type": "epsilon", "beta_schedule": "squaredcos_cap_v2"},
    "velocity": {"prediction_type": "v_prediction", "beta_schedule": "scaled_linear"},
    "few": {"prediction_type": "sample", "num_train_timesteps": 200},
}
each_case = pytest.mark.parametrize("case", CASES)


def trained(scheduler: Any, rows: int | None = CLASSES + 1) -> Any:
    """Their network after a few steps of their training on images brighter by class."""
    unet = small_unet(rows)
    optimizer = torch.optim.Adam(unet.parameters(), 1e-2)
    generator = torch.Generator().manual_seed(1)
    for _ in range(8):
        label = torch.randint(CLASSES, (16,), generator=generator)
        x0 = (label[:, None, None, None] / CLASSES - 0.5).expand(-1, 1, 8, 8)
        noise = torch.randn(x0.shape, generator=generator)
        steps = scheduler.config.num_train_timesteps
        timestep = torch.randint(steps, (16,), generator=generator)
        noisy = scheduler.add_noise(x0, noise, timestep)
        dropped = torch.rand(16, generator=generator) < 0.2
        shown = None if rows is None else label.masked_fill(dropped, rows - 1)
        targets = {"epsilon": noise, "sample": x0}
        targets["v_prediction"] = scheduler.get_velocity(x0, noise, timestep)
        target = targets[scheduler.config.prediction_type]
        loss = functional.mse_loss(unet(noisy, timestep, shown).sample, target)
        optimizer.zero_grad()
        torch.autograd.backward([loss])
        optimizer.step()
    return unet.eval()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A pipeline folder of each case, saved by diffusers itself."""
    root = tmp_path_factory.mktemp("pipelines")
    for name, settings in CASES.items():
        scheduler: Any = DDPMScheduler(**settings)
        pipeline: Any = DDPMPipeline(trained(scheduler), scheduler)
        pipeline.save_pretrained(root / name)
    return {name: root / name for name in CASES}


def noise() -> Tensor:
    return NoiseStreams([(0, index) for index in range(COUNT)], (1, 8, 8))()


def theirs(folder: Path, labels: Tensor | None, weight: float = 0.0, clip: bool = True) -> Tensor:
    """Their DDIM on trailing steps, guided as their pipelines guide.

    It clips x0, and the noise that x0 implies if use_clipped_model_output asks for that.
    """
    unet: Any = UNet2DModel.from_pretrained(folder / "unet")
    known: Any = DDPMScheduler.from_pretrained(folder / "scheduler")
    scheduler: Any = DDIMScheduler.from_config(
        known.config, timestep_spacing="trailing", clip_sample=clip
    )
    scheduler.set_timesteps(STEPS)
    x = noise()
    null = None if labels is None else torch.full_like(labels, CLASSES)
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            output = unet(x, timestep, labels).sample
            if weight:
                output = (1 + weight) * output - weight * unet(x, timestep, null).sample
            x = scheduler.step(output, timestep, x, use_clipped_model_output=clip).prev_sample
    return x


def ours(
    model: DiffusionModel, labels: Tensor | None, weight: float = 0.0, clip: bool = True
) -> Tensor:
    denoiser: Denoiser = model.denoiser()
    if weight:
        denoiser = ClassifierFree(denoiser, weight, CLASSES)
    path = nodes(GRIDS["trailing"], denoiser.schedule, STEPS)
    bounded = Clipped(denoiser) if clip else denoiser
    return run(bounded, DDIM(), path, noise(), noise, labels)[-1].x


@each_case
@pytest.mark.parametrize(("weight", "clip"), [(0.0, False), (1.5, True)])
def test_images_are_those_of_diffusers(
    folders: dict[str, Path], case: str, weight: float, clip: bool
) -> None:
    model = load_model(f"diffusers:{folders[case]},null={CLASSES}")
    assert (model.num_classes, model.shape) == (CLASSES, (1, 8, 8))
    mine, peers = ours(model, LABELS, weight, clip), theirs(folders[case], LABELS, weight, clip)
    # Without clipping x0 grows into thousands on the cosine schedule, so that 1e-4 is relative.
    torch.testing.assert_close(mine, peers, rtol=0 if clip else 1e-4, atol=1e-4)
    assert mine.std() > 0.1  # and neither is an empty canvas
    assert (mine - ours(model, LABELS.flip(0), weight, clip)).abs().max() > 1e-2  # labels matter


def test_an_unconditional_network_and_a_folder_without_a_pipeline(tmp_path: Path) -> None:
    scheduler: Any = DDIMScheduler()
    unet = trained(scheduler, rows=None)
    pipeline: Any = DDIMPipeline(unet, scheduler)
    pipeline.save_pretrained(tmp_path / "pipeline")
    unet.save_pretrained(tmp_path / "alone" / "network")
    scheduler.save_pretrained(tmp_path / "alone")
    expected = theirs(tmp_path / "pipeline", None)
    for folder in (tmp_path / "pipeline", tmp_path / "pipeline" / "unet"):
        model = load_model(f"diffusers:{folder}")
        assert model.num_classes is None
        torch.testing.assert_close(ours(model, None), expected, rtol=0, atol=1e-4)
    alone = load_model(f"diffusers:{tmp_path / 'alone' / 'network'}")
    assert alone.sha256 == model.sha256
    # The first pipelines of the Hub have all files in one folder.
    flat = tmp_path / "flat"
    shutil.copytree(tmp_path / "pipeline" / "unet", flat)
    for path in (
        tmp_path / "pipeline" / "model_index.json",
        tmp_path / "pipeline" / "scheduler" / "scheduler_config.json",
    ):
        shutil.copy(path, flat)
    assert load_model(f"diffusers:{flat}").sha256 == model.sha256
    shutil.rmtree(tmp_path / "pipeline" / "scheduler")
    assert "beside it" in refusal(tmp_path / "pipeline" / "unet")


def test_any_row_may_be_the_null_class(folders: dict[str, Path]) -> None:
    plain, last, first = (
        load_model(f"diffusers:{folders['linear']}{said}") for said in ("", ",null=3", ",null=0")
    )
    assert (plain.num_classes, last.num_classes, first.num_classes) == (4, 3, 3)
    assert [model.has_null_label for model in (plain, last, first)] == [False, True, True]
    torch.testing.assert_close(ours(first, LABELS), ours(plain, LABELS + 1))
    torch.testing.assert_close(
        ours(first, torch.full((COUNT,), 3)), ours(plain, torch.zeros(COUNT, dtype=torch.int64))
    )
    assert len({model.sha256 for model in (plain, last, first)}) == 3
    with pytest.raises(UserError, match=r"no null class that was named.*null=10"):
        Setting(guidance=1.0).check(plain)
    Setting(guidance=1.0).check(last)


def test_old_names_of_attention_are_read(folders: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    shutil.copytree(folders["linear"], tmp_path / "old")
    path = tmp_path / "old" / "unet" / unet2d.WEIGHTS
    renamed = {}
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for name, tensor in load_tensors(path).items():
        for now, then in names.items():
            name = name.replace(f".{now}.", f".{then}.")
        renamed[name] = tensor
    assert any("proj_attn" in name for name in renamed)
    save_file(renamed, path)
    old, new = (load_model(f"diffusers:{each}") for each in (tmp_path / "old", folders["linear"]))
    torch.testing.assert_close(ours(old, LABELS), ours(new, LABELS), rtol=0, atol=0)


def test_what_tuning_looks_at(folders: dict[str, Path]) -> None:
    model = load_model(f"diffusers:{folders['linear']}")
    network: Any = model.network
    first, last, middle = network.feature_maps(noise(), torch.full((COUNT,), 500.0), LABELS)
    assert [tuple(each.shape) for each in (first, last, middle)] == [
        (COUNT, 8, 8, 8), (COUNT, 16, 4, 4), (COUNT, 16, 4, 4)
    ]  # fmt: skip
    assert (last - middle).abs().max() > 1e-3
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, LinearBeta()),
        ({"num_train_timesteps": 300, "beta_end": 0.03}, LinearBeta(steps=300, beta_max=0.03)),
        ({"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
         ScaledLinearBeta(beta_min=0.00085, beta_max=0.012)),
        ({"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 200}, Cosine(steps=200)),
    ],
)  # fmt: skip
def test_schedules_are_those_of_diffusers(
    tmp_path: Path, settings: dict[str, Any], expected: DiscreteSchedule
) -> None:
    scheduler: Any = DDPMScheduler(**settings)
    scheduler.save_pretrained(tmp_path)
    schedule, _ = read_scheduler(tmp_path / "scheduler_config.json")
    assert schedule == expected
    steps = torch.arange(1, schedule.steps + 1, dtype=torch.float64)
    alpha, _ = schedule(steps / schedule.steps)
    torch.testing.assert_close((alpha**2).float(), scheduler.alphas_cumprod, rtol=2e-5, atol=1e-7)


# Everything that samples, measures or studies goes through one door.


def test_commands_take_it(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"diffusers:{folders['linear']},null={CLASSES}"
    assert is_model(name)
    command(["sample", name, "--steps", "2", "--count", "3", "--guidance", "1", "--json",
             "--out", str(tmp_path / "s.npz")])  # fmt: skip
    told = json.loads(capsys.readouterr().out)
    assert told["model"] == {
        "name": "linear", "sha256": load_model(name).sha256, "weights": "model"
    }  # fmt: skip
    assert told["revision"] is None
    command(["trajectory", name, "--steps", "12", "--out", str(tmp_path / "t.png")])
    assert (tmp_path / "t.png").exists()


def test_the_page_draws_it_live(folders: dict[str, Path]) -> None:
    name = f"diffusers:{folders['linear']},null={CLASSES}"
    offer = Offer.of([name])
    offered = offer.document()["models"][name]
    assert offered["guided"]
    assert offered["classes"] == [str(label) for label in range(CLASSES)]
    assert offered["reference"] is None
    request = Request(
        model=name,
        sampler="ddim",
        steps=2,
        grid="trailing",
        guidance=1,
        form="classifier-free",
        interval="",
        threshold="static",
        seed=0,
        labels="balanced",
        count=3,
    )
    said: list[dict[str, Any]] = []
    draw_live(offer, request, said.append)
    assert said[-1]["evaluations"] == {"model": 4}
    with pytest.raises(UserError, match="start underone explore with --reference"):
        measure_live(offer, request, said.append)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["guide"], "name what to measure against"),
        (["tune", "--nfe", "3"], ",data=cifar10"),
        (["sample", "--sampler", "ddpm-analytic"], "'unknown', as they were called"),
        (["sample", "--form", "auto", "--guidance", "1"], "no weak snapshot beside it"),
    ],
)
def test_what_needs_the_data_or_more_says_so(
    folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    name, *options = arguments
    with pytest.raises(SystemExit, match="2"):
        command([name, f"diffusers:{folders['linear']}", *options])
    assert message in one_line(capsys.readouterr().err)


def test_a_weaker_model_may_guide_it(folders: dict[str, Path]) -> None:
    model = load_model(f"diffusers:{folders['linear']}")
    weak = f"diffusers:{folders['linear']}"
    setting = Setting(steps=2, form=f"auto,by={weak}", guidance=1.0)
    samples = generate(model, setting, Draw(2))
    assert samples.protocol["evaluations"] == {"model": 2, "weak": 2}


def command(arguments: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["underone", *arguments])
        main()


def one_line(text: str) -> str:
    (line,) = (line for line in text.splitlines() if line.startswith("underone: "))
    return line
