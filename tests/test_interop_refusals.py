"""What diffusers folders hold that is not supported, or is damaged, is refused in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

from pipelines import refusal, small_unet
from underone.diffusion import Data, Noise
from underone.errors import UserError
from underone.interop import unet2d
from underone.zoo import load_model


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline folder saved by diffusers itself."""
    folder = tmp_path_factory.mktemp("pipelines") / "linear"
    scheduler: Any = DDPMScheduler()
    pipeline: Any = DDPMPipeline(small_unet(), scheduler)
    pipeline.save_pretrained(folder)
    return folder


def changed(path: Path, **values: Any) -> None:
    document = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in document.items() if value != "gone"}))


INDEX, UNET, SCHEDULER = "model_index.json", "unet/config.json", "scheduler/scheduler_config.json"
Damage = Callable[[Path], object]


def change(file: str, **values: Any) -> Damage:
    return lambda folder: changed(folder / file, **values)


def write(file: str, content: bytes) -> Damage:
    return lambda folder: (folder / file).write_bytes(content)


def cut(file: str, size: int) -> Damage:
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:size])


def grown(folder: Path) -> None:
    with (folder / WEIGHTS).open("r+b") as file:
        file.truncate(2**40)  # sparse: it takes no space


def as_pickle(folder: Path) -> None:
    (folder / WEIGHTS).rename((folder / WEIGHTS).with_suffix(".bin"))


WEIGHTS = f"unet/{unet2d.WEIGHTS}"
DAMAGES: dict[str, tuple[Damage, str]] = {
    "latent": (change(INDEX, vqvae=["diffusers", "VQModel"]), "vqvae is not supported"),
    "text": (change(INDEX, _class_name="StableDiffusionPipeline"), "StableDiffusionPipeline"),
    "own code": (change(INDEX, _class_name=["mine", "Mine"]), "the pipeline must be"),
    "no unet": (change(INDEX, unet="gone"), "unet must be diffusers' UNet2DModel, got None"),
    "traversal": (change(INDEX, unet=["../../evil", "UNet2DModel"]), "unet must be diffusers'"),
    "scheduler of a kind": (change(INDEX, scheduler=["diffusers", "PNDM"]), "scheduler must be"),
    "other scheduler": (change(SCHEDULER, _class_name="EulerDiscreteScheduler"), "EulerDiscrete"),
    "sigmoid": (change(SCHEDULER, beta_schedule="sigmoid"), "beta_schedule 'sigmoid'"),
    "own betas": (change(SCHEDULER, trained_betas=[0.1, 0.2]), "trained_betas"),
    "zero snr": (change(SCHEDULER, rescale_betas_zero_snr=True), "rescale_betas_zero_snr"),
    "thresholding": (change(SCHEDULER, thresholding=True), "thresholding"),
    "range": (change(SCHEDULER, clip_sample_range=3.0), "clip_sample_range 3"),
    "learned": (change(SCHEDULER, variance_type="learned_range"), "variance_type 'learned_range'"),
    "prediction": (change(SCHEDULER, prediction_type="flow"), "prediction_type 'flow'"),
    "many steps": (change(SCHEDULER, num_train_timesteps=10**12), "num_train_timesteps"),
    "text for a number": (change(SCHEDULER, beta_end="lots"), "beta_end"),
    "betas beyond 1": (change(SCHEDULER, beta_end=2.0), "beta_max < 1"),
    "other network": (change(UNET, _class_name="UNet2DConditionModel"), "UNet2DConditionModel"),
    "fourier": (change(UNET, time_embedding_type="fourier"), "time_embedding_type 'fourier'"),
    "class type": (change(UNET, class_embed_type="timestep"), "class_embed_type 'timestep'"),
    "channels": (change(UNET, in_channels=4, out_channels=4), "in_channels 4.*latent"),
    "output": (change(UNET, out_channels=2), "out_channels 2"),
    "no size": (change(UNET, sample_size="gone"), "sample_size: Field required"),
    "oblong": (change(UNET, sample_size=[8, 16]), "must be squares"),
    "block": (change(UNET, down_block_types=["Evil", "Evil"]), "built from this: ValueError"),
    "null type": (change(UNET, norm_num_groups="many"), "cannot be built from this"),
    "newer": (change(UNET, new_trick=True), "new_trick is not a setting"),
    "giant": (change(UNET, block_out_channels=[60000, 60000]), "does not fit its config.json"),
    "more than giant": (change(UNET, block_out_channels=[10**9, 8]), "block_out_channels.0"),
    "deep": (change(UNET, layers_per_block=10**9), "layers_per_block"),
    "other widths": (change(UNET, block_out_channels=[16, 16]), "first tensor that does not fit"),
    "broken json": (write(UNET, b"{"), "is not valid JSON"),
    "list": (write(SCHEDULER, b"[1]"), "must hold a JSON object, got a list"),
    "nested": (write(INDEX, b'{"a":' * 100_000), "is not valid JSON"),
    "binary": (write(UNET, b"\xff\xfe\x00"), "is not valid JSON"),
    "infinite": (write(SCHEDULER, b'{"_class_name": "DDPMScheduler", "beta_end": 1e999}'),
                 "beta_end"),
    "large json": (write(INDEX, b" " * (2**20 + 1)), "larger than any configuration"),
    "truncated": (cut(WEIGHTS, 1000), "not a whole safetensors file"),
    "empty": (cut(WEIGHTS, 0), "not a whole safetensors file"),
    "huge": (grown, "larger than the [0-9,]+ numbers"),
    "pickle": (write(WEIGHTS, b"\x80\x04abc"), "pickle.*never opened"),
    "bin alone": (as_pickle, "is a pickle.*save_pretrained"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "no weights at"),
    "variant": (
        lambda folder: (folder / WEIGHTS).rename(folder / "unet" / "w.fp16.safetensors"),
        "there is w.fp16.safetensors, another variant",
    ),
    "sharded": (
        lambda folder: (folder / WEIGHTS).rename(folder / f"{WEIGHTS}.index.json"), "sharded"
    ),
    "no scheduler": (lambda folder: (folder / SCHEDULER).unlink(), "no file at"),
    "no config": (lambda folder: (folder / UNET).unlink(), "no file at"),
    "no index": (lambda folder: (folder / INDEX).unlink(), "neither model_index.json nor"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_unsupported_or_damaged_is_refused_by_name(
    linear: Path, tmp_path: Path, name: str
) -> None:
    damage, message = DAMAGES[name]
    folder = tmp_path / "model"
    shutil.copytree(linear, folder)
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        load_model(f"diffusers:{folder}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("null=9", "num_class_embeds is 4"),
        ("null=-1", "null is the number of a class"),
        ("null=", "give null once"),
        ("null=1,null=2", "give null once"),
        ("nul=1", "did you mean 'null'"),
    ],
)
def test_what_is_said_must_mean_something(linear: Path, said: str, message: str) -> None:
    assert message in refusal(f"{linear},{said}")


def test_an_old_scheduler_that_predicts_the_image(linear: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(linear, folder)
    changed(folder / SCHEDULER, prediction_type="gone", predict_epsilon=False)
    assert load_model(f"diffusers:{folder}").config.prediction == Data()
    changed(folder / SCHEDULER, predict_epsilon=True)
    assert load_model(f"diffusers:{folder}").config.prediction == Noise()


def test_a_network_that_cannot_run_is_refused(linear: Path, tmp_path: Path) -> None:
    """Of 28 pixels four levels make 4, and twice 4 is not the 7 they came from."""
    folder = tmp_path / "model"
    shutil.copytree(linear, folder)
    network: Any = UNet2DModel(
        sample_size=28,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownBlock2D",) * 4,
        up_block_types=("UpBlock2D",) * 4,
        norm_num_groups=4,
    )
    network.save_pretrained(folder / "unet")
    assert "this network cannot run on 28x28 images: RuntimeError" in refusal(folder)


def test_where_it_is_called_by_another_name(linear: Path) -> None:
    for path in (linear, linear / "unet"):
        with pytest.raises(UserError, match="name it diffusers:"):
            load_model(str(path))
    assert "no folder at" in refusal("nowhere")


def test_without_the_package_one_line_says_what_to_install(
    linear: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
    assert "pip install underone[diffusers]" in refusal(linear)
