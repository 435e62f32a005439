"""One clear line for every mistake."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import ModelFolder, Run
from folders import write_folder

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
    ("sample fashion-mnist --sampler .mine:Mine", "is not a module:Name"),
    ("conformance ddpm-analytic", "made for a model"),
    ("evaluate missing.npz --reference fashion-mnist", "missing.npz"),
    ("evaluate missing.npz", "--reference"),
    ("evaluate a.npz --reference fashion-mnist --metrics fdi", "did you mean 'fid'"),
    ("evaluate a.npz --reference fashion-mnist --count 9", "--count is for samples of a model"),
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
    ("train tiny --resume --max-minutes nan", "finite number of minutes"),
    ("distill fashion-mnist --nfe 2 --resume --max-minutes inf", "finite number of minutes"),
    ("train tiny --device qpu", "qpu"),
    ("train tiny --device meta", "meta"),
    ("sample fashion-mnist --device qpu", "--device qpu cannot be used here"),
    ("evaluate fashion-mnist --reference fashion-mnist --device meta", "--device meta"),
    ("evaluate a.npz --reference fashion-mnist --device cpu", "--device is for samples of a model"),
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


def test_a_device_that_fails_without_a_word_is_one_line_too(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wordless(*sizes: int, **options: object) -> None:
        raise AssertionError

    monkeypatch.setattr(torch, "empty", wordless)
    status, _, error = run("sample", "fashion-mnist", "--device", "cpu")
    assert status == 2
    assert error.startswith("underone: --device cpu cannot be used here")
    assert error.count("\n") == 1


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
        "cannot be made with these options",
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
    write_folder(tmp_path / "images")
    train = ("train", "tiny", "--steps", 1, "--set", f'data="{tmp_path / "images"}"')
    status, _, error = run(*train, "--out", tmp_path / "file" / "run")
    assert status == 2
    assert "file" in error.splitlines()[-1]


def test_a_folder_with_other_things_is_not_trained_into(run: Run, tmp_path: Path) -> None:
    write_folder(tmp_path / "images")
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


def test_without_a_command_there_is_help(run: Run) -> None:
    status, _, error = run()
    assert status == 2
    assert "\n  sample " in error
