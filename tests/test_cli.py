"""The commands as a user meets them."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from conftest import ModelFolder, Run
from folders import write_folder
from helpers import strict_json
from underone.cli.commands import COMMANDS

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


def test_an_interval_without_end_is_valid_json(
    run: Run, model_folder: ModelFolder, tmp_path: Path
) -> None:
    npz, guided = tmp_path / "samples.npz", ("--guidance", 1, "--interval", "0.2:inf")
    status, out, _ = run(
        "sample", model_folder(), "--steps", 2, "--count", 5, *guided, "--out", npz, "--json"
    )
    assert status == 0
    assert strict_json(out)["interval"] == [0.2, None]
    status, out, _ = run("evaluate", npz, "--reference", "fashion-mnist", "--json")
    assert status == 0
    assert strict_json(out)["subject"]["interval"] == [0.2, None]


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
    write_folder(folder)
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


def test_data_and_models(run: Run, tmp_path: Path) -> None:
    write_folder(tmp_path / "images")
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


def test_sampling_starts_without_what_reports_and_compilers_need(tmp_path: Path) -> None:
    """Torch is most of the start; charts and torch's compiler would double it."""
    words = ["sample", "fashion-mnist", "--steps", "1", "--count", "1", "--out", "one.png"]
    code = (
        f"import sys; sys.argv[1:] = {words}; from underone.cli import main; main(); "
        "print(sys.modules.keys() & {'altair', 'jinja2', 'torch._dynamo'})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "set()"


def test_the_list_of_commands_is_whole_and_a_misspelt_one_is_guessed(run: Run) -> None:
    status, out, _ = run("--help")
    listed = dict(re.findall(r"^  ([a-z]+)  +([A-Z].*)$", out, re.M))
    assert status == 0
    assert listed.keys() == COMMANDS.keys()
    assert all(summary.endswith(".") for summary in listed.values())  # none is cut short
    status, out, error = run("sampel")
    assert (status, out) == (2, "")
    assert error == "underone: unknown command 'sampel': did you mean 'sample'?\n"


@pytest.mark.parametrize("name", COMMANDS)
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
        assert f"underone {name} runs as one process" in error
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert run(name, "--help")[0] == 0
