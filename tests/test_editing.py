"""A model's edits: there and back, variations keyed like samples, what cannot be done."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import ModelFolder
from helpers import strict_json
from underone.checkpoint import DiffusionModel, load_checkpoint
from underone.data import SampleSet, load_dataset, read_arrays, to_uint8, write_arrays
from underone.diffusion import SAMPLERS, Clipped, NoiseStreams, Trailing, nodes
from underone.editing import (
    Inpainting,
    Inverted,
    Variation,
    check_invertible,
    classes_of,
    decode,
    encode,
    interpolate,
    read_inverted,
    redraw,
    share_returned,
    trajectories,
)
from underone.errors import UserError
from underone.generation import ANALYTIC, Draw, Setting, generate
from underone.zoo import load_model

SLICE = Path(__file__).parent / "data" / "fashion-mnist"
THERE_AND_BACK = Setting("dpm-solver-2m", 6, "log-snr", threshold="none")
FAST = Setting("ddpm-small", 4)
LABELS = torch.tensor([0, 1, 2])


@pytest.fixture(scope="module")
def photographs() -> SampleSet:
    """Three real images of FashionMNIST."""
    dataset = load_dataset("fashion-mnist", "test", SLICE)
    return SampleSet(dataset.images[:3], dataset.labels[:3])


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_the_shipped_model_returns_real_images(photographs: SampleSet, weight: float) -> None:
    model = load_model("fashion-mnist")
    setting = Setting("dpm-solver-2m", 30, "log-snr", weight, "none")
    noise = encode(model, setting, photographs.images, photographs.labels)
    decoded = decode(model, setting, noise, photographs.labels)
    assert share_returned(photographs.images, decoded) > 0.95
    assert 0.8 < noise.std() < 1.1
    assert noise.mean().abs() < 0.1


def test_edits_do_not_depend_on_the_batch(
    small_model: DiffusionModel, photographs: SampleSet
) -> None:
    images = photographs.images
    heard: list[int] = []
    whole = encode(small_model, THERE_AND_BACK, images, LABELS, on_images=heard.append)
    alone = encode(small_model, THERE_AND_BACK, images, LABELS, batch_size=2)
    assert heard == [3]
    assert torch.allclose(whole, alone, atol=1e-3)
    draw = Draw(3, seed=7, first=5)
    few = redraw(small_model, FAST, Variation(), images, LABELS, draw, precision="float32")
    many = redraw(
        small_model,
        FAST,
        Variation(),
        images,
        LABELS,
        draw,
        variations=2,
        batch_size=4,
        precision="float32",
    )
    assert many.seeds is not None
    assert many.seeds.tolist() == [[7, 5], [8, 5], [7, 6], [8, 6], [7, 7], [8, 7]]
    assert many.labels is not None
    assert many.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert (many.images[0::2].int() - few.images.int()).abs().max() <= 1
    assert (many.images[1::2] != few.images).float().mean() > 0.5
    assert many.protocol["evaluations"] == {"model": 2}  # half of four steps
    assert many.protocol["strength"] == 0.5


def test_decoding_is_sampling_from_that_noise(small_model: DiffusionModel) -> None:
    draw = Draw(3, labels="0,1,2")
    samples = generate(small_model, THERE_AND_BACK, draw, precision="float32")
    noise = NoiseStreams(draw.keys, small_model.shape)()
    decoded = decode(small_model, THERE_AND_BACK, noise, LABELS)
    assert (decoded.int() - samples.images.int()).abs().max() <= 1


def test_full_strength_is_a_fresh_sample(
    small_model: DiffusionModel, photographs: SampleSet
) -> None:
    draw = Draw(3, labels="0,1,2")
    fresh = generate(small_model, FAST, draw, precision="float32")
    # At T the schedule keeps 0.6 % of the image, which a mid-grey one makes nothing.
    grey = torch.full_like(photographs.images, 127)
    varied = redraw(small_model, FAST, Variation(1.0), grey, LABELS, draw, precision="float32")
    assert share_returned(fresh.images, varied.images, levels=1) > 0.99
    nearly = redraw(
        small_model, Setting("ddim", 1000), Variation(0.001), photographs.images, LABELS, draw
    )
    assert share_returned(photographs.images, nearly.images, levels=12) > 0.95


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "rk45"])
def test_known_pixels_are_kept_by_every_sampler(
    small_model: DiffusionModel, photographs: SampleSet, name: str
) -> None:
    hole = torch.zeros(28, 28, dtype=torch.bool)
    hole[5:12, 9:20] = True
    sampler = f"{name},inner=3" if name == "annealed-langevin" else name
    setting = Setting(sampler, 2, threshold="dynamic", guidance=1.0)
    filled = redraw(small_model, setting, Inpainting(hole), photographs.images, LABELS, Draw(3))
    assert torch.equal(filled.images[:, :, ~hole], photographs.images[:, :, ~hole])
    assert not torch.equal(filled.images, photographs.images)
    assert filled.protocol["filled"] == 77


def test_known_pixels_are_kept_by_a_sampler_that_does_not_end_on_x0(
    small_model: DiffusionModel,
    photographs: SampleSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "bright_end.py").write_text(
        "from underone.diffusion import DDIM\n"
        "class Bright(DDIM):\n"
        "    def finish(self, x, at):\n"
        "        x, here = super().finish(x, at)\n"
        "        return x + 0.1, here\n"
    )
    monkeypatch.chdir(tmp_path)
    hole, setting = torch.zeros(28, 28, dtype=torch.bool), Setting("bright_end:Bright", 2)
    hole[:14] = True
    filled = redraw(small_model, setting, Inpainting(hole), photographs.images, LABELS, Draw(3))
    assert torch.equal(filled.images[:, :, ~hole], photographs.images[:, :, ~hole])


def test_the_ends_of_an_interpolation_are_the_images_decoded(
    small_model: DiffusionModel, photographs: SampleSet
) -> None:
    images, labels = photographs.images[[0, 1, 2, 0]], torch.tensor([4, 5, 6, 6])
    heard: list[int] = []
    between = interpolate(
        small_model, THERE_AND_BACK, images, labels, 3, batch_size=3, on_images=heard.append
    )
    assert between.shape == (2, 3, 1, 28, 28)
    assert sum(heard) == 4 + 2 * 3
    noise = encode(small_model, THERE_AND_BACK, images, labels)
    ends = decode(small_model, THERE_AND_BACK, noise, labels)
    found = between[:, [0, -1]].flatten(0, 1)
    assert share_returned(ends, found, levels=1) > 0.99
    for count, frames, expected in ((3, 3, "in pairs"), (4, 1, "at least 2 frames")):
        with pytest.raises(UserError, match=expected):
            interpolate(small_model, THERE_AND_BACK, images[:count], None, frames)


def test_stills_are_of_the_samples(small_model: DiffusionModel) -> None:
    draw = Draw(3, seed=2)
    stills = trajectories(small_model, FAST, draw, 3, precision="float32", batch_size=2)
    samples = generate(small_model, FAST, draw, precision="float32").images
    assert stills.x.shape == stills.x0.shape == (3, 3, 1, 28, 28)
    assert share_returned(samples, stills.x[:, -1], levels=1) == 1
    assert torch.equal(stills.x[:, -1], stills.x0[:, -1])
    path = nodes(Trailing(), small_model.config.schedule, 4)
    pure = NoiseStreams(draw.keys, small_model.shape)
    x = path[0].sigma * pure()
    x0 = Clipped(small_model.denoiser())(x, path[0], torch.tensor([0, 1, 2]))
    assert share_returned(to_uint8(x), stills.x[:, 0], levels=1) == 1
    assert share_returned(to_uint8(x0), stills.x0[:, 0], levels=1) > 0.99
    for frames in (1, 6):
        with pytest.raises(UserError, match="2 to 5 frames"):
            trajectories(small_model, FAST, draw, frames)


def test_an_inversion_survives_the_disk(tmp_path: Path, small_model: DiffusionModel) -> None:
    noise, images = torch.randn(2, 1, 28, 28), torch.zeros(2, 1, 28, 28, dtype=torch.uint8)
    setting = Setting("unipc", 9, "karras", 0.5, "none", interval=(0.2, 5.0))
    protocol = json.loads(json.dumps(generate(small_model, setting, Draw(1)).protocol))
    inverted = Inverted(noise, images, torch.tensor([3, 4]), protocol)
    inverted.save(tmp_path / "noise.npz")
    again = read_inverted(tmp_path / "noise.npz")
    assert torch.equal(again.noise, noise)
    assert torch.equal(again.images, images)
    assert again.labels is not None
    assert again.labels.tolist() == [3, 4]
    assert again.setting == setting
    beyond = replace(setting, interval=(0.2, float("inf")))
    endless = replace(inverted, protocol=generate(small_model, beyond, Draw(1)).protocol)
    assert endless.setting == beyond
    endless.save(tmp_path / "endless.npz")
    assert read_inverted(tmp_path / "endless.npz").setting == beyond
    kept = read_arrays(tmp_path / "endless.npz", lambda names: names, "noise", "noise")
    strict_json(str(kept["protocol"]))
    # As it was written before.
    write_arrays(
        tmp_path / "older.npz", {**kept, "protocol": np.array(json.dumps(endless.protocol))}
    )
    assert read_inverted(tmp_path / "older.npz").setting == beyond
    assert (inverted.picture.float().mean() - 127.5).abs() < 5
    arrays = read_arrays(tmp_path / "noise.npz", lambda names: names, "noise", "noise")
    spoilt = {
        "holds no noise:": {name: a for name, a in arrays.items() if name != "noise"},
        "noise must be float32": {**arrays, "noise": arrays["noise"].astype(np.float64)},
        "not finite": {**arrays, "noise": arrays["noise"] * np.float32("inf")},
        "labels must be int64": {**arrays, "labels": arrays["labels"][:1]},
        "its protocol": {**arrays, "protocol": np.array('{"steps": "many"}')},
        "holds no noise of images": {**arrays, "protocol": np.array("[1]")},
        "unknown sampler": {**arrays, "protocol": np.array('{"sampler": "ddmi"}')},
    }
    for expected, content in spoilt.items():
        write_arrays(tmp_path / "spoilt.npz", content)
        with pytest.raises(UserError, match=expected):
            read_inverted(tmp_path / "spoilt.npz")


def test_what_cannot_be_inverted_is_told(small_model: DiffusionModel) -> None:
    for setting, expected in (
        (Setting("ddim", 5), "static threshold .* no way back"),
        (Setting("ddpm-small", 5, threshold="none"), "draws noise"),
        (Setting("ddim", 0, threshold="none"), "steps must lie in"),
        (Setting("tuned", 4, threshold="none"), "tuned"),
    ):
        with pytest.raises(UserError, match=expected):
            check_invertible(small_model, setting)


def test_what_cannot_be_redrawn_is_told(
    small_model: DiffusionModel, photographs: SampleSet
) -> None:
    images, draw = photographs.images, Draw(3)
    hole = torch.ones(28, 28, dtype=torch.bool)
    for setting, edit, variations, expected in (
        (FAST, Variation(0.0), 1, r"in \(0, 1\]"),
        (FAST, Variation(), 0, "variations must be at least 1"),
        (FAST, Inpainting(hole[:8]), 1, "the mask is 8 x 28"),
        (FAST, Inpainting(~hole), 1, "no hole to fill"),
        (Setting(ANALYTIC, 4), Inpainting(hole), 1, "use ddpm-small"),
    ):
        with pytest.raises(UserError, match=expected):
            redraw(small_model, setting, edit, images, LABELS, draw, variations=variations)
    with pytest.raises(UserError, match=r"takes images of \(1, 28, 28\)"):
        redraw(small_model, FAST, Variation(), images.repeat(1, 3, 1, 1), LABELS, draw)


def test_each_image_has_its_own_class_or_the_one_asked_for(
    small_model: DiffusionModel, model_folder: ModelFolder
) -> None:
    images = torch.zeros(3, 1, 28, 28, dtype=torch.uint8)
    labelled, unlabelled = SampleSet(images, torch.tensor([7, 8, 9])), SampleSet(images)
    own, asked = Draw(3, labels="source"), Draw(3, labels="2,3")

    def labels(source: SampleSet, draw: Draw, guidance: float = 0.0) -> list[int] | None:
        found = classes_of(small_model, Setting(guidance=guidance), source, draw)
        return None if found is None else found.tolist()

    assert labels(labelled, own) == [7, 8, 9]
    assert labels(labelled, asked) == labels(unlabelled, asked) == [2, 3, 2]
    assert labels(unlabelled, own, guidance=-1) is None
    with pytest.raises(UserError, match="these have no labels"):
        labels(unlabelled, own)
    with pytest.raises(UserError, match="label 10, which is not a class"):
        labels(SampleSet(images, torch.tensor([0, 1, 10])), own)
    undropped = load_checkpoint(model_folder("undropped", label_dropout=0.0))
    assert isinstance(undropped, DiffusionModel)
    with pytest.raises(UserError, match="without label dropout"):
        encode(undropped, Setting("ddim", 3, guidance=1, threshold="none"), images, LABELS)
