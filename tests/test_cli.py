"""The commands as a user meets them: results, and one clear line for every mistake."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from conftest import ModelFolder, Run
from studies import PROTOCOL
from underone.cli import underone_command
from underone.data import SampleSet, load_dataset, write_arrays
from underone.metrics import Figure, Measurement

SLICE = Path(__file__).parent / "data" / "fashion-mnist"


def test_sample_and_evaluate(run: Run, model_folder: ModelFolder, tmp_path: Path) -> None:
    model = model_folder()
    npz = tmp_path / "samples.npz"
    status, out, _ = run(
        "sample", model, "--steps", 2, "--count", 30, "--guidance", 1, "--out", npz, "--json"
    )
    assert status == 0
    assert json.loads(out)["evaluations"] == {"model": 4}
    status, out, _ = run("evaluate", npz, "--reference", "fashion-mnist", "--json")
    assert status == 0
    measured = json.loads(out)
    assert measured["protocol"]["count"] == 30
    assert measured["subject"]["guidance"] == 1
    folder = tmp_path / "pictures"
    run("sample", model, "--steps", 2, "--count", 30, "--guidance", 1, "--out", folder)
    status, out, _ = run("evaluate", folder, "--reference", "fashion-mnist", "--json")
    assert json.loads(out)["figures"] == measured["figures"]  # on disk as in memory
    grid = tmp_path / "grid.png"
    assert run("sample", model, "--steps", 1, "--count", 7, "--out", grid)[0] == 0
    assert Image.open(grid).size == (7 * 58 + 2, 60)
    status, out, error = run("evaluate", npz, "--reference", "fashion-mnist")
    assert "FID@fashion-mnist-classifier" in out
    assert "draw more" in error
    files = tmp_path / "one.json", tmp_path / "two.json"
    for metrics, file in zip(("fid-held-out", "intra-fid"), files, strict=True):
        options = ("--metrics", metrics, "--json")
        status, out, error = run("evaluate", npz, "--reference", "fashion-mnist", *options)
        assert (status, error.count("draw more")) == (0, 1)
        assert "no floor is known" not in error  # where none was asked for
        file.write_text(out)
    status, _, error = run("compare", *files, "--json")
    assert status == 0
    assert "one.json: 30 samples are no more than the features have dimensions" in error
    assert "two.json: the smallest class has no more samples" in error


def test_a_reference_without_other_images_has_no_floor(run: Run, tmp_path: Path) -> None:
    bare, npz = tmp_path / "bare.npz", tmp_path / "samples.npz"
    write_arrays(bare, {"mu": np.zeros(256), "sigma": np.eye(256)})
    SampleSet(torch.zeros(300, 1, 28, 28, dtype=torch.uint8)).save_npz(npz)
    extractor = ("--extractor", "fashion-mnist-classifier")
    status, _, error = run("evaluate", npz, "--reference", bare, *extractor)
    assert status == 0
    assert "reference bare holds no other real images: no floor is known" in error
    assert "draw more" not in error


@pytest.mark.slow
def test_a_model_is_measured_as_its_samples_are_and_compared(
    run: Run, model_folder: ModelFolder, tmp_path: Path
) -> None:
    model, npz = model_folder(), tmp_path / "samples.npz"
    options = ("--steps", 2, "--count", 30, "--seed", 3)
    assert run("sample", model, *options, "--out", npz)[0] == 0
    files = {}
    metrics = "fid,fid-held-out,intra-fid,kid,inception-score,consistency"
    against = ("--reference", "fashion-mnist", "--metrics", metrics, "--json", "--blocks", 1)
    for name, subject in (
        ("files", (npz,)),
        ("live", (model, *options)),
        ("fewer", (model, "--steps", 2, "--count", 20)),
    ):
        status, out, _ = run("evaluate", *subject, *against)
        assert status == 0
        files[name] = tmp_path / f"{name}.json"
        files[name].write_text(out)
    read, live = (json.loads(files[name].read_text()) for name in ("files", "live"))
    assert live["figures"] == read["figures"]
    assert live["subject"] == read["subject"]
    status, out, _ = run("compare", files["files"], files["live"])
    assert status == 0
    assert "FID" in out
    assert "ddim" in out
    status, out, error = run("compare", files["live"], files["fewer"])
    assert (status, out) == (3, "")
    assert error == "underone: not comparable: count differs: 30, 20\n"
    status, out, error = run("compare", files["live"], files["fewer"], "--allow", "count", "--json")
    assert status == 0
    assert json.loads(out)["allowed_differences"] == {"count": ["30", "20"]}


@pytest.mark.slow
def test_classes_are_shown_whichever_were_drawn(run: Run, model_folder: ModelFolder) -> None:
    status, out, _ = run(
        "evaluate", model_folder(), "--reference", "fashion-mnist", "--labels", "3,5",
        "--count", 40, "--blocks", 1, "--steps", 1, "--metrics", "fid,consistency",
    )  # fmt: skip
    assert status == 0
    rows = [line.split()[0] for line in out.splitlines() if line.strip()]
    assert [row for row in rows if row in map(str, range(10))] == ["3", "5"]


def test_seed_blocks_are_of_other_samples_and_paired(
    run: Run, model_folder: ModelFolder, tmp_path: Path
) -> None:
    model, against = model_folder(), ("--reference", "fashion-mnist")
    files = []
    for name, steps in (("one", 1), ("two", 2)):
        options = ("--steps", steps, "--count", 10, "--blocks", 3, *against)
        status, out, error = run("evaluate", model, *options, "--json")
        assert status == 0
        assert "3 x 10 samples: about" in error
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text(out)
        figure = json.loads(out)["figures"]["fid"]
        assert len(set(figure["blocks"])) == 3
        assert figure["value"] == pytest.approx(sum(figure["blocks"]) / 3)
    # The second block by itself is what indices 10 to 19 are.
    second = ("--steps", 2, "--count", 10, "--first", 10, "--blocks", 1, *against)
    alone = json.loads(run("evaluate", model, *second, "--json")[1])
    assert alone["figures"]["fid"]["value"] == pytest.approx(figure["blocks"][1], rel=1e-5)
    status, out, _ = run("compare", *files)
    assert status == 0
    assert "one.json - two.json" in out
    status, out, _ = run("evaluate", model, "--steps", 1, "--count", 10, "--blocks", 3, *against)
    assert "minimum" in out
    assert "3 x 10 samples" in out
    npz = tmp_path / "samples.npz"
    run("sample", model, "--steps", 2, "--count", 30, "--out", npz)
    whole = json.loads(run("evaluate", npz, "--blocks", 3, "--json", *against)[1])
    assert whole["figures"]["fid"]["blocks"] == pytest.approx(figure["blocks"], rel=1e-5)
    status, _, error = run("evaluate", npz, "--blocks", 4, *against)
    assert (status, "do not divide into 4" in error) == (2, True)


def test_what_cannot_be_measured_is_told_and_why(run: Run, tmp_path: Path) -> None:
    against = ("--reference", "fashion-mnist")
    npz = tmp_path / "samples.npz"
    SampleSet(torch.zeros(4, 1, 28, 28, dtype=torch.uint8)).save_npz(npz)
    status, out, error = run("evaluate", npz, *against, "--metrics", "intra-fid")
    assert (status, out) == (2, "")
    assert "intra-fid is left out: it needs labels" in error
    assert "nothing could be measured" in error
    status, _, error = run("evaluate", npz, *against, "--blocks", 4)
    assert (status, "2 samples a block" in error) == (2, True)
    status, _, error = run("evaluate", "", *against)
    assert (status, "SAMPLES is empty" in error) == (2, True)


def test_samples_that_may_be_copies_are_told(run: Run, tmp_path: Path) -> None:
    _write_folder(tmp_path / "images")
    reference = tmp_path / "mine.npz"
    extractor = ("--extractor", "fashion-mnist-classifier")
    assert run("reference", "build", tmp_path / "images", *extractor, "--out", reference)[0] == 0
    for split, copied in (("train", 1), ("test", 0)):
        data, npz = load_dataset(str(tmp_path / "images"), split), tmp_path / f"{split}.npz"
        SampleSet(data.images, data.labels).save_npz(npz)
        status, _, error = run("evaluate", npz, "--reference", reference, "--json")
        assert (status, error.count("may be copies of training images")) == (0, copied)
        assert error.count("--metrics memorisation and --panel") == copied


def test_the_samples_nearest_to_training_images_are_drawn_beside_them(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNDERONE_CACHE", str(tmp_path / "cache"))
    _write_folder(tmp_path / "images")
    reference, panel = tmp_path / "mine.npz", tmp_path / "panel.png"
    extractor = ("--extractor", "fashion-mnist-classifier")
    assert run("reference", "build", tmp_path / "images", *extractor, "--out", reference)[0] == 0
    samples = next((tmp_path / "images" / "train").iterdir())
    for _ in range(2):  # the second time with the features that the first one has kept
        status, _, error = run(
            "evaluate",
            samples,
            "--reference",
            reference,
            "--panel",
            panel,
            "--root",
            tmp_path / "images",
        )
        assert status == 0, error
        assert Image.open(panel).size[0] == 6 * 58 + 2
        panel.unlink()
    assert list((tmp_path / "cache" / "features").iterdir())
    status, _, error = run("evaluate", samples, "--reference", reference, "--panel", "panel.gif")
    assert (status, "end it in .png" in error) == (2, True)


@pytest.mark.slow
def test_a_reference_of_ones_own_images(run: Run, tmp_path: Path) -> None:
    _write_folder(tmp_path / "images")
    out = tmp_path / "mine.npz"
    extractor = ("--extractor", "fashion-mnist-classifier")
    status, _, error = run("reference", "build", tmp_path / "images", *extractor, "--out", out)
    assert status == 0, error
    status, out_text, _ = run(
        "evaluate", "fashion-mnist", "--steps", 1, "--count", 10, "--reference", out, "--json"
    )
    assert status == 0
    assert json.loads(out_text)["protocol"]["reference"]["name"] == "mine"


def test_a_legacy_folder_samples_and_says_so(
    run: Run, model_folder: ModelFolder, tmp_path: Path
) -> None:
    legacy = model_folder("legacy", revision=1)
    out = tmp_path / "legacy.npz"
    status, _, error = run("sample", legacy, "--steps", 2, "--count", 2, "--out", out)
    assert status == 0
    assert "revision 1" in error
    _, _, error = run("sample", model_folder(), "--steps", 1, "--count", 1, "--out", out)
    assert "revision 1" not in error


def test_train_stop_and_resume(run: Run, tmp_path: Path) -> None:
    common = ["--root", SLICE, "--out", tmp_path / "run", "--set", "batch_size=8"]
    # The slice holds a test split alone, so as a folder of images it is given by class.
    folder = tmp_path / "images"
    _write_folder(folder)
    common[0:2] = ["--set", f'data="{folder}"']
    status, _, error = run("train", "tiny", "--steps", 6, *common)
    assert status == 0, error
    assert "6 steps" in error
    for name in ("config.json", "model.safetensors", "raw.safetensors", "log.jsonl", "loss.png"):
        assert (tmp_path / "run" / name).exists()
    assert Image.open(tmp_path / "run" / "preview.png").size[0] > 500
    status, _, error = run("train", "tiny", "--steps", 6, *common)
    assert status == 2
    assert "--resume" in error
    assert run("train", "tiny", "--resume", *common)[0] == 0
    out = tmp_path / "a.png"
    assert run("sample", tmp_path / "run", "--steps", 2, "--count", 10, "--out", out)[0] == 0


def _write_folder(folder: Path) -> None:
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in range(10):
            place = folder / split / f"class{label}"
            place.mkdir(parents=True)
            for index in range(3):
                pixels = generator.integers(0, 256, (28, 28), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{index}.png")


def test_data_and_models(run: Run, tmp_path: Path) -> None:
    _write_folder(tmp_path / "images")
    status, out, _ = run("data", tmp_path / "images", "--json")
    assert status == 0
    assert [split["images"] for split in json.loads(out)] == [30, 30]
    status, out, _ = run("models", "--json")
    assert status == 0
    assert set(json.loads(out)["models"]) >= {"fashion-mnist", "fashion-mnist-classifier"}
    assert "fashion-mnist-classifier" in run("models")[1]


def test_help_shows_defaults(run: Run) -> None:
    for command in ("guide", "train", "sample", "evaluate", "compare", "data", "models"):
        status, out, _ = run(command, "--help")
        assert status == 0
        assert "Usage: underone" in out
    assert "[default: ddim" in " ".join(run("sample", "--help")[1].split())


MISTAKES = [
    ("sample fashion-mnist --sampler ddmi", "did you mean 'ddim'"),
    ("sample fashion-mnist --steps 0", "1..1000"),
    ("sample fashion-mnist --steps 1001", "1..1000"),
    ("sample fashion-mnist --labels 10", "0..9"),
    ("sample fashion-mnist --guidance -2", ">= -1"),
    ("sample fashion-mnist --guidance nan", "finite"),
    ("sample fashion-mnist --count 0", "at least 1"),
    ("sample fashion-mnist --out x.jpg", ".png or .npz"),
    ("sample fashion-mnist --stepps 3", "--steps"),
    ("sample fashion-mnst", "did you mean 'fashion-mnist'"),
    ("sample ./nothing-here", "nothing-here"),
    ("sample fashion-mnist-classifier", "cannot be sampled"),
    ("sample fashion-mnist --out .png", ".png or .npz"),
    ("sample fashion-mnist --grid karras,rho=0.001", "rho must lie in"),
    ("sample fashion-mnist --grid log-snr,last=nan", "last step must lie in"),
    ("sample fashion-mnist --grid explicit,steps=500", "lists 1 steps, but 20"),
    ("sample fashion-mnist --sampler ddim,eta=0,eta=1", "given twice"),
    ("sample fashion-mnist --sampler ddpm-large,variance=small", "takes no options"),
    ("sample fashion-mnist --sampler ddpm-analytic,eta=1", "has no options"),
    ("sample fashion-mnist --sampler .mine:Mine", "is no module:Name"),
    ("conformance ddpm-analytic", "made for a model"),
    ("evaluate missing.npz --reference fashion-mnist", "missing.npz"),
    ("evaluate missing.npz", "--reference"),
    ("evaluate a.npz --reference fashion-mnist --metrics fdi", "did you mean 'fid'"),
    ("evaluate a.npz --reference fashion-mnist --count 9", "--count is for a model"),
    ("evaluate a.npz --reference fashion-mnist --blocks 0", "at least 1"),
    ("evaluate a.npz --reference fashion-mnist --judge fashion-mnist", "consistency alone"),
    ("evaluate a.npz --reference fashion-mnist --flips", "--flips is for memorisation"),
    ("distill fashion-mnist --nfe 2 --method consistency --form rescaled", "leave out --guidance"),
    ("sample fashion-mnist --labels random --first 100000000", "a smaller first"),
    ("compare one.json", "at least 2"),
    ("compare one.json two.json", "one.json"),
    ("reference build fashion-mnits --extractor fashion-mnist-classifier", "did you mean"),
    ("train fashion-mnits", "did you mean 'fashion-mnist'"),
    ("train tiny --set network.widht=3", "did you mean 'width'"),
    ("train tiny --steps 3 --max-minutes 1", "not both"),
    ("train tiny --device qpu", "qpu"),
    ("train tiny --device meta", "meta"),
    ("sample fashion-mnist --device qpu", "--device qpu cannot be used here"),
    ("evaluate fashion-mnist --reference fashion-mnist --device meta", "--device meta"),
    ("evaluate a.npz --reference fashion-mnist --device cpu", "--device is for a model"),
    ("guide --device meta", "--device meta"),
    ("study guide --device meta", "--device meta"),
    ("data cifar11", "did you mean 'cifar10'"),
    ("guide fashion-mnist --minutes 0", "above 0"),
    ("guide fashion-mnist --minutes nan", "finite"),
    ("guide fashion-mnist --seed -1", "seeds"),
    ("gide", "gide"),
]


@pytest.mark.parametrize(("command", "expected"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_one_line_and_status_2(
    run: Run, command: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, error = run(*command.split())
    assert status == 2
    assert out == ""
    assert error.startswith("underone: ")
    assert error.count("\n") == 1
    assert expected in error
    assert list(tmp_path.iterdir()) == []  # nothing half-written


def test_other_weights_of_a_folder_are_models_too(
    run: Run, model_folder: ModelFolder, tmp_path: Path
) -> None:
    folder = model_folder("with-raw")
    tensors = load_file(folder / "model.safetensors")
    save_file({name: -tensor for name, tensor in tensors.items()}, folder / "raw.safetensors")

    def measured(name: Path) -> dict[str, Any]:
        options = ("--steps", 1, "--count", 20, "--blocks", 1, "--json")
        status, out, error = run("evaluate", name, "--reference", "fashion-mnist", *options)
        assert status == 0, error
        found: dict[str, Any] = json.loads(out)
        return found

    average, same, raw = map(
        measured, (folder, folder / "model.safetensors", folder / "raw.safetensors")
    )
    assert [each["subject"]["model"]["weights"] for each in (average, same, raw)] == [
        "model", "model", "raw",
    ]  # fmt: skip
    assert average["figures"] == same["figures"]
    assert average["subject"]["model"]["sha256"] != raw["subject"]["model"]["sha256"]
    status, _, error = run("sample", folder / "weak.safetensors", "--out", tmp_path / "no.png")
    assert status == 2
    assert "no checkpoint folder" in error


def test_broken_checkpoints_are_told_apart(
    run: Run, model_folder: ModelFolder, tmp_path: Path
) -> None:
    good = model_folder("whole")
    weights = good / "model.safetensors"

    def refused(folder: Path, *expected: str) -> None:
        status, _, error = run("sample", folder, "--out", tmp_path / "never.png")
        assert status == 2
        assert error.count("\n") == 1
        for part in expected:
            assert part in error
        assert not (tmp_path / "never.png").exists()

    def broken(name: str) -> Path:
        return Path(shutil.copytree(good, tmp_path / name))

    bare = tmp_path / "bare.safetensors"
    shutil.copy(weights, bare)
    refused(bare, "bare state dict", "revision 2")
    folder = broken("no-config")
    (folder / "config.json").unlink()
    refused(folder, "bare state dict", "config.json")
    folder = broken("mixed")
    shutil.copy(model_folder("old", revision=1) / "model.safetensors", folder)
    refused(folder, "revision 1", "revision 2", "downsample.0.")
    folder = broken("truncated")
    (folder / "model.safetensors").write_bytes(weights.read_bytes()[:-1])
    refused(folder, "not a whole safetensors file")
    folder = broken("pickled")
    torch.save(load_file(weights), folder / "model.safetensors")
    refused(folder, "pickle")
    folder = broken("nan")
    tensors = load_file(weights)
    tensors["stem.weight"][0] = float("nan")
    save_file(tensors, folder / "model.safetensors")
    refused(folder, "stem.weight", "NaN")


MODULES = {
    "broken": ("def", "SyntaxError"),
    "leaving": ("import sys\nsys.exit(0)", "SystemExit"),
    "raising": ("raise KeyError('gone')", "KeyError"),
    "lacking": ("from os import no_such_name", "ImportError"),
    "stubborn": (
        "class Mine:\n    def __init__(self):\n        raise KeyError('no')",
        "cannot be made so",
    ),
    "foreign": ("Mine = print", "is not a sampler"),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_faulty_module_of_ones_own_is_one_line(
    run: Run, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, expected = MODULES[name]
    (tmp_path / f"mine_{name}.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    status, out, error = run("conformance", f"mine_{name}:Mine")
    assert (status, out) == (2, "")
    assert error.count("\n") == 1
    assert expected in error


def test_a_module_that_prints_does_not_spoil_json(
    run: Run, model_folder: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "talking.py").write_text(
        "from underone.diffusion import DDIM\nprint('hello')\nMine = DDIM"
    )
    monkeypatch.chdir(tmp_path)
    options = ("--sampler", "talking:Mine", "--steps", 1, "--count", 1, "--json")
    status, out, error = run("sample", model_folder(), *options)
    assert status == 0
    assert json.loads(out)["sampler"] == "talking:Mine"
    assert "hello" in error


def test_a_sampling_that_diverges_is_told(
    run: Run, model_folder: ModelFolder, tmp_path: Path
) -> None:
    options = ("--guidance", "1e300", "--steps", 2, "--count", 2, "--out", tmp_path / "x.png")
    status, _, error = run("sample", model_folder(), *options)
    assert status == 2
    assert "has diverged" in error.splitlines()[-1]
    assert not (tmp_path / "x.png").exists()


def test_places_that_cannot_be_written_are_told(
    run: Run, model_folder: ModelFolder, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.npz").mkdir()
    for out in (tmp_path / "file" / "x.png", tmp_path / "folder.npz"):
        status, _, error = run("sample", model_folder(), "--steps", 1, "--count", 1, "--out", out)
        assert status == 2
        assert error.count("\n") == 1
    _write_folder(tmp_path / "images")
    train = ("train", "tiny", "--steps", 1, "--set", f'data="{tmp_path / "images"}"')
    status, _, error = run(*train, "--out", tmp_path / "file" / "run")
    assert status == 2
    assert "file" in error.splitlines()[-1]


def test_a_folder_with_other_things_is_not_trained_into(run: Run, tmp_path: Path) -> None:
    _write_folder(tmp_path / "images")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("mine")
    train = ("train", "tiny", "--steps", 1, "--set", f'data="{tmp_path / "images"}"')
    status, _, error = run(*train, "--out", tmp_path / "mine")
    assert status == 2
    assert "is not empty" in error
    assert (tmp_path / "mine" / "README.md").read_text() == "mine"


def test_an_empty_data_folder_is_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    status, _, error = run("data", tmp_path / "empty")
    assert status == 2
    assert error.count("\n") == 1
    assert "empty" in error


def test_it_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "underone", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("underone, version")


def test_names_in_brackets_and_lists_are_printed_as_they_are(
    run: Run, model_folder: ModelFolder, tmp_path: Path
) -> None:
    """To rich "[ddim]" is a style and ":100:" a picture, unless it is told otherwise."""
    npz = tmp_path / "a.npz"
    model = model_folder()
    grid = "explicit,steps=1000:100:40"
    options = ("--steps", 3, "--count", 30, "--grid", grid)
    assert run("sample", model, *options, "--out", npz)[0] == 0
    files = []
    for name in ("run[ddim].json", "run[ddpm].json"):
        status, out, _ = run("evaluate", npz, "--reference", "fashion-mnist", "--json")
        assert (status, json.loads(out)["subject"]["grid"]) == (0, grid)
        files.append(tmp_path / name)
        files[-1].write_text(out)
    status, out, _ = run("compare", *files)
    assert status == 0
    assert all(file.name in out for file in files)


def write_measurement(path: Path, subject: dict[str, object], **changes: object) -> Path:
    """The file of a measurement as `evaluate --json` prints it."""
    measurement = Measurement(
        figures={"fid": Figure(value=2.0, error=0.1)},
        rank_deficient=False,
        floor=None,
        protocol=PROTOCOL,
        subject=subject,
        environment={},
    )
    path.write_text(measurement.model_copy(update=changes).model_dump_json())
    return path


def test_what_is_compared_is_shown_and_what_another_training_does_is_said(
    run: Run, tmp_path: Path
) -> None:
    def subject(sha256: str, threshold: str = "static") -> dict[str, object]:
        model = {"name": "mine", "sha256": sha256, "weights": "raw"}
        return {"model": model, "threshold": threshold, "precision": "bfloat16"}

    one = write_measurement(tmp_path / "one.json", subject("c" * 64))
    two = write_measurement(tmp_path / "two.json", subject("c" * 64, "dynamic"))
    status, out, error = run("compare", one, two)
    assert status == 0
    rows = {words[0]: words[1:] for line in out.splitlines() if (words := line.split())}
    assert rows["model"] == ["mine", "mine"]
    assert rows["weights"] == ["raw", "c" * 12] * 2
    assert rows["threshold"] == ["static", "dynamic"]
    assert rows["precision"] == ["bfloat16", "bfloat16"]
    assert rows["labels"] == ["balanced", "balanced"]
    assert rows["N"] == ["1,000", "1,000"]
    assert "seed" not in rows
    assert "different weights" not in error
    other = write_measurement(tmp_path / "other.json", subject("d" * 64))
    for arguments in ((one, other), (one, other, "--json")):
        assert run("compare", *arguments)[2].count("different weights") == 1
    unknown = write_measurement(tmp_path / "unknown.json", {"model": "from elsewhere"})
    status, out, error = run("compare", one, unknown)
    assert status == 0
    assert "from elsewhere" in out
    assert "different weights" not in error


@pytest.mark.parametrize("name", underone_command.commands)
def test_of_several_ranks_none_overwrites_what_another_writes(
    run: Run, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    status, out, error = run(name, "--help")
    if name in ("guide", "study"):
        assert (status, error) == (0, "")
    else:
        assert (status, out, error.count("\n")) == (2, "", 1)
        assert f"underone {name} is one process" in error
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert run(name, "--help")[0] == 0


def test_without_a_command_there_is_help(run: Run) -> None:
    status, _, error = run()
    assert status == 2
    assert "\n  sample " in error
