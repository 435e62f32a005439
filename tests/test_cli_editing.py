"""The commands that edit images, as a user meets them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import ModelFolder, Run
from underone.data import SampleSet, read_samples

SLICE = Path(__file__).parent / "data" / "fashion-mnist"
REAL = ("--images", "fashion-mnist", "--root", SLICE)


@pytest.fixture
def model(model_folder: ModelFolder) -> Path:
    return model_folder()


def size(columns: int, rows: int) -> tuple[int, int]:
    """That of a picture of 28 x 28 images, twice their size."""
    return 58 * columns + 2, 58 * rows + 2


def test_trajectory(run: Run, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "trajectory.png"
    status, _, error = run(
        "trajectory", model, "--steps", 4, "--frames", 5, "--count", 3, "--out", out
    )
    assert status == 0, error
    assert Image.open(out).size == size(5, 6)


def test_invert_and_decode(run: Run, model: Path, tmp_path: Path) -> None:
    options = (*REAL, "--steps", 5, "--count", 3)
    picture, npz = tmp_path / "inversion.png", tmp_path / "inversion.npz"
    status, out, error = run("invert", model, *options, "--out", picture)
    assert status == 0, error
    assert "within 2 grey levels" in out
    assert "standard deviation" in out
    assert Image.open(picture).size == size(3, 3)
    status, out, _ = run("invert", model, *options, "--out", npz, "--json")
    assert status == 0
    assert 0 <= json.loads(out)["returned"] <= 1
    with np.load(npz) as arrays:
        assert arrays["noise"].dtype == np.float32
        assert arrays["noise"].shape == (3, 1, 28, 28)
        decoded, labels = arrays["images"], arrays["labels"]
    again = tmp_path / "again.npz"
    status, _, error = run("decode", model, npz, "--out", again)
    assert status == 0, error
    samples = read_samples(again)
    assert samples.labels is not None
    assert np.array_equal(samples.images.numpy(), decoded)
    assert np.array_equal(samples.labels.numpy(), labels)
    assert samples.protocol["grid"] == "log-snr"
    with np.load(npz) as arrays:
        foreign = dict(arrays)
    protocol = json.loads(str(foreign["protocol"]))
    for name in ("sampler", "grid", "form"):
        foreign["protocol"] = np.array(json.dumps(protocol | {name: "stranger:Part"}))
        np.savez(tmp_path / "foreign.npz", **foreign)
        status, _, error = run("decode", model, tmp_path / "foreign.npz", "--out", again)
        assert (status, "names stranger:Part, which is code" in error) == (2, True), name
    listed = {"grid": "explicit,steps=900:600:300:100:20", "steps": 5}
    foreign["protocol"] = np.array(json.dumps(protocol | listed))
    np.savez(tmp_path / "listed.npz", **foreign)
    status, _, error = run("decode", model, tmp_path / "listed.npz", "--out", again)
    assert status == 0, error
    run("decode", model, npz, "--labels", (int(labels[0]) + 1) % 10, "--out", again)
    assert not np.array_equal(read_samples(again).images.numpy(), decoded)
    status, out, _ = run("decode", model, npz, "--out", tmp_path / "x.png", "--json")
    assert json.loads(out)["labels"] == "source"


def test_interpolate(run: Run, model: Path, tmp_path: Path) -> None:
    options = (*REAL, "--steps", 3, "--count", 4, "--frames", 5)
    for name in ("between.png", "between.npz"):
        status, _, error = run("interpolate", model, *options, "--out", tmp_path / name)
        assert status == 0, error
    assert Image.open(tmp_path / "between.png").size == size(5, 2)
    assert len(read_samples(tmp_path / "between.npz")) == 10


def test_vary(run: Run, model: Path, tmp_path: Path) -> None:
    options = (*REAL, "--steps", 4, "--count", 2, "--variations", 3)
    status, _, error = run("vary", model, *options, "--out", tmp_path / "v.png")
    assert status == 0, error
    assert "network evaluations of each: 2" in error
    assert Image.open(tmp_path / "v.png").size == size(4, 2)
    status, out, _ = run("vary", model, *options, "--out", tmp_path / "v", "--json")
    assert json.loads(out)["sampler"] == "ddpm-small"
    assert len(read_samples(tmp_path / "v")) == 6


def test_inpaint_by_box_and_by_mask(run: Run, model: Path, tmp_path: Path) -> None:
    options = (*REAL, "--steps", 2, "--count", 2, "--variations", 2)
    hole = np.zeros((28, 28), dtype=np.uint8)
    hole[3:9, 4:20] = 255
    Image.fromarray(hole).save(tmp_path / "mask.png")
    places = {"box": ("--box", "3:4:9:20"), "mask": ("--mask", tmp_path / "mask.png")}
    for name, place in places.items():
        out = tmp_path / f"{name}.npz"
        status, _, error = run("inpaint", model, *options, *place, "--out", out)
        assert status == 0, error
    box, mask = (read_samples(tmp_path / f"{name}.npz") for name in places)
    assert torch.equal(box.images, mask.images)
    kept = torch.from_numpy(hole == 0)
    assert torch.equal(box.images[0][:, kept], box.images[1][:, kept])
    assert not torch.equal(box.images[0], box.images[1])
    run("inpaint", model, *options, *places["box"], "--out", tmp_path / "i.png")
    picture = np.asarray(Image.open(tmp_path / "i.png"))
    assert picture.shape[::-1] == size(4, 2)
    assert (picture[2 + 2 * 3 : 2 + 2 * 9, 60 + 2 * 4 : 60 + 2 * 20] == 128).all()


def test_images_come_from_anywhere(run: Run, model: Path, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, 1, 28, 28), generator=generator, dtype=torch.uint8)
    samples = SampleSet(images, torch.arange(5))
    samples.save_npz(tmp_path / "s.npz")
    samples.save_png_folder(tmp_path / "s")
    one = tmp_path / "one.png"
    Image.fromarray(images[1, 0].numpy()).save(one)
    for split in ("train", "test"):
        for label in range(10):
            (tmp_path / "by-class" / split / f"c{label}").mkdir(parents=True)
            shade = np.full((28, 28), 10 * label, dtype=np.uint8)
            Image.fromarray(shade).save(tmp_path / "by-class" / split / f"c{label}" / "0.png")
    found = {}
    for name, extra in {"s.npz": (), "s": (), "one.png": ("--labels", 1), "by-class": ()}.items():
        out = tmp_path / f"out-{name}.npz"
        options = ("--steps", 2, "--variations", 1, "--box", "0:0:3:3", "--out", out, *extra)
        first = ("--first", 1) if name != "one.png" else ()
        status, _, error = run("inpaint", model, "--images", tmp_path / name, *options, *first)
        assert status == 0, error
        found[name] = read_samples(out)
    assert torch.equal(found["s.npz"].images, found["s"].images)
    assert len(found["s"]) == 4
    assert torch.equal(found["s"].images[0, :, 3:], images[1, :, 3:])
    assert torch.equal(found["one.png"].images[0, :, 3:], images[1, :, 3:])
    assert found["by-class"].labels is not None
    assert found["by-class"].labels.tolist() == [1, 2, 3, 4]


MISTAKES = [
    ("trajectory fashion-mnist --frames 30", "21 frames"),
    ("trajectory fashion-mnist --out t.npz", "end it in .png"),
    ("invert fashion-mnist", "--images"),
    ("invert fashion-mnist --images fashion-mnits", "did you mean 'fashion-mnist'"),
    ("invert fashion-mnist --images nothing.npz", "no such sample set"),
    ("invert fashion-mnist --images grey.png", "these have no labels"),
    ("invert fashion-mnist --images grey.png --root .", "--root goes with"),
    ("invert fashion-mnist --images grey.png --labels 10", "0..9"),
    ("invert fashion-mnist --images small.png --labels 1", "takes images of (1, 28, 28)"),
    ("invert fashion-mnist --images grey.png --first 1", "smaller --first"),
    ("invert fashion-mnist --images grey.png --out folder", ".png or .npz"),
    ("invert fashion-mnist --images grey.png --precision auto", "float32 only"),
    ("invert fashion-mnist --images grey.png --sampler ddpm-small", "draws noise"),
    ("invert fashion-mnist --images grey.png --threshold static", "--threshold none"),
    ("decode fashion-mnist nothing.npz", "no such noise"),
    ("decode fashion-mnist grey.png", "is not an .npz"),
    ("interpolate fashion-mnist --images grey.png --labels 1", "in pairs"),
    ("vary fashion-mnist --images grey.png --labels 1 --strength 0", "(0, 1]"),
    ("vary fashion-mnist --images grey.png --labels 1 --strength nan", "(0, 1]"),
    ("vary fashion-mnist --images grey.png --labels 1 --variations 0", "x>=1"),
    ("vary fashion-mnist --images grey.png --labels 1 --seed -1", "seeds"),
    ("inpaint fashion-mnist --images grey.png --labels 1", "--box TOP:LEFT:BOTTOM:RIGHT or"),
    ("inpaint fashion-mnist --images grey.png --box 1:2:3", "TOP:LEFT:BOTTOM:RIGHT"),
    ("inpaint fashion-mnist --images grey.png --box 0:0:29:3", "not a box in an image of 28 x 28"),
    ("inpaint fashion-mnist --images grey.png --labels 1 --mask small.png", "mask is 8 x 8"),
    ("inpaint fashion-mnist --images grey.png --labels 1 --mask black.png", "no hole to fill"),
    ("inpaint fashion-mnist --images grey.png --mask gone.png", "gone.png"),
]


@pytest.mark.parametrize(("command", "expected"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_one_line_and_status_2(
    run: Run, command: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, side, shade in (("grey", 28, 90), ("small", 8, 255), ("black", 28, 0)):
        Image.fromarray(np.full((side, side), shade, np.uint8)).save(tmp_path / f"{name}.png")
    before = sorted(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    status, out, error = run(*command.split())
    assert status == 2
    assert out == ""
    assert error.startswith("underone: ")
    assert error.count("\n") == 1
    assert expected in error
    assert sorted(tmp_path.iterdir()) == before  # nothing half-written
