"""Whole ways from images to answers, as the documents show them, with tiny networks."""

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import Run
from emoji import SLICE, write_folder
from test_data_cifar import make_members, write_archive
from test_docs import ROOT, blocks

pytestmark = pytest.mark.usefixtures("no_pictures")
CLASSIFIER = ("--set", "network.widths=[8,16]", "--set", "batch_size=16", "--steps", 4)
UNET = ("network.width=8", "network.heads=2", "network.multipliers=[1,2]", "network.blocks=1")
DIFFUSION = (
    "--set",
    "compile=false",
    *(word for change in UNET for word in ("--set", change)),
    *("--set", "network.attention=[8]", "--set", "network.patch=2", "--set", "batch_size=8"),
    *("--steps", 4),
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place to work in, and an empty cache."""
    monkeypatch.setenv("UNDERONE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def succeeded(result: tuple[int, str, str]) -> str:
    status, out, error = result
    assert status == 0, error
    return out + error


def shown(page: str) -> list[list[str]]:
    """The commands of a page's first block, as words."""
    lines = blocks(ROOT / "docs" / page, "")[0].splitlines()
    return [shlex.split(line)[1:] for line in lines]


@pytest.mark.slow
def test_five_commands_lead_from_a_folder_of_pictures_to_the_guide(run: Run) -> None:
    write_folder(Path("pictures"))
    data, extractor, reference, diffusion, guide = shown("own-data.md")
    told = succeeded(run(*data))
    assert f"underone {shlex.join(diffusion)}" in told
    assert "test accuracy" in succeeded(run(*extractor, *CLASSIFIER))
    succeeded(run(*reference))
    succeeded(run(*diffusion, *DIFFUSION))
    assert "FID@images-classifier" in succeeded(run(*guide, "--minutes", 0.05))
    assert Path("guide/report.html").stat().st_size > 10_000
    config = json.loads(Path("runs/images/config.json").read_text())
    assert config["training"]["flip"]
    assert config["data"]["class_names"] == ["Animals & Nature", "Flags", "Food & Drink"]


def test_what_does_not_fit_says_which_set_makes_it_fit(run: Run) -> None:
    write_folder(Path("pictures"))
    succeeded(run("data", "pictures", "--size", 16, "--out", "mine"))
    train = ("train", "images", "--set", "data=mine", *DIFFUSION, "--set", "network.attention=[]")
    for change in ("network.image_size=16", "network.classes=3"):
        status, _, error = run(*train)
        assert (status, f"--set {change}" in error) == (2, True)
        train = (*train, "--set", change)
    succeeded(run(*train))
    status, _, error = run("train", "images", *DIFFUSION)
    assert (status, "no such folder of images: path/to/images" in error) == (2, True)


@pytest.mark.parametrize("size", [28, 33, 48])
def test_the_line_that_is_printed_trains(run: Run, size: int) -> None:
    write_folder(Path("pictures"))
    told = succeeded(run("data", "pictures", "--size", size, "--out", "2024"))
    line = told.partition("to train on it: ")[2].partition("\n")[0]
    assert "data=./2024" in line
    few = ("--steps", 1, "--set", "batch_size=2", "--set", "network.width=8")
    succeeded(run(*shlex.split(line)[1:], *few, "--set", "network.heads=1"))


def test_images_that_are_not_square_are_to_be_made_so(run: Run) -> None:
    folder = Path("pictures/a")
    folder.mkdir(parents=True)
    Image.new("L", (6, 5)).save(folder / "1.png")
    told = succeeded(run("data", "pictures"))
    assert "underone data pictures --size 5 --out NEW makes them so" in told
    assert "train images" not in told


def test_held_out_images_of_another_size_are_refused_at_once(run: Run) -> None:
    for split, size in (("train", 28), ("test", 32)):
        for name in ("a", "b"):
            folder = Path("mine") / split / name
            folder.mkdir(parents=True)
            Image.new("L", (size, size)).save(folder / "1.png")
    train = ("train", "fashion-mnist-cvae", "--set", "data=mine", "--set", "network.classes=2")
    status, _, error = run(*train, "--steps", 1)
    assert (status, "has (1, 32, 32)" in error) == (2, True)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("data pictures --out mine", "--out needs --size"),
        ("data pictures --size 8", "add --out FOLDER"),
        ("data fashion-mnist --size 8 --out mine", "prepares a folder of images by class"),
        ("data absent --size 8 --out mine", "prepares a folder of images by class"),
        ("data pictures --size 8 --out cifar10", "cifar10 is the name of a data set"),
        ("data noto-emoji --from absent.tgz", "no such file: absent.tgz"),
        ("data fashion-mnist --from pictures/x", "--from goes with cifar10 and noto-emoji"),
        ("data noto-emoji --from a.tgz --root .", "not both"),
        ("data pictures --out mine --size 8 --root .", "leave it out with --out"),
        ("data divided --out mine --size 8 --held-out 0.5", "divided into train and test already"),
        ("evaluate a.npz --reference fashion-mnist --root .", "--root is for memorisation and"),
    ],
)
def test_a_mistake_with_data_is_one_line(run: Run, line: str, told: str) -> None:
    for folder in ("pictures/a", "divided/train/a", "divided/test/a"):
        Path(folder).mkdir(parents=True)
    status, out, error = run(*shlex.split(line))
    assert (status, out) == (2, "")
    assert told in error
    assert error.count("\n") == 1
    assert not Path("mine").exists()


def test_a_reference_whose_extractor_is_gone_says_so(run: Run) -> None:
    write_folder(Path("pictures"))
    succeeded(run("data", "pictures", "--size", 32, "--out", "mine"))
    classes = ("--set", "data=mine", "--set", "network.classes=3")
    succeeded(run("train", "images-classifier", *classes, *CLASSIFIER))
    succeeded(run("reference", "build", "mine", "--extractor", "runs/images-classifier"))
    succeeded(run("train", "images", *classes, *DIFFUSION))
    Path("runs/images-classifier").rename("elsewhere")
    status, _, error = run("guide", "runs/images", "--reference", "mine.npz")
    assert status == 2
    assert "made with the extractor runs/images-classifier, which is not found here" in error
    samples = ("runs/images", "--steps", 1, "--count", 12, "--blocks", 1)
    against = ("--reference", "mine.npz", "--extractor", "elsewhere")
    succeeded(run("evaluate", *samples, *against))


def test_emoji_from_the_tarball_to_a_memorisation_report(run: Run) -> None:
    root = ("--root", SLICE)
    assert "Apache-2.0" in succeeded(run("data", "noto-emoji", *root))
    few = ("--set", "network.classes=4")
    succeeded(run("train", "noto-emoji-classifier", *root, *few, *CLASSIFIER))
    extractor = ("--extractor", "runs/noto-emoji-classifier")
    succeeded(run("reference", "build", "noto-emoji", *root, *extractor))
    flips = ("--set", "augmentation.flip=true")
    succeeded(run("train", "noto-emoji", *root, *few, *flips, *DIFFUSION))
    samples = ("samples.npz", "--reference", "noto-emoji.npz", *root, "--panel", "nearest.png")
    succeeded(run("sample", "runs/noto-emoji", "--steps", 1, "--count", 40, "--out", "samples.npz"))
    told = succeeded(run("evaluate", *samples, "--metrics", "fid,memorisation"))
    # Of 21 held-out images C_T can say nothing, and the command says so.
    assert "memorisation is left out" in told
    # The model was shown both.
    assert "features of 87 training images and of their mirror images" in told
    assert Path("nearest.png").exists()


@pytest.mark.slow
def test_cifar10_from_the_archive_to_a_study(run: Run, here: Path) -> None:
    # The format's own classes and files, with more records than its own test has.
    members = make_members()
    for number, name in enumerate(sorted(name for name in members if name.endswith(".bin"))):
        members[name] = _records(150 if name == "test_batch.bin" else 40, number)
    archive = write_archive(here / "cifar-10-binary.tar.gz", members)
    root = ("--root", archive)
    assert "3 x 32 x 32" in succeeded(run("data", "cifar10", *root))
    classifier = ("train", "cifar10-classifier", *root, *CLASSIFIER)
    assert "test accuracy" in succeeded(run(*classifier))
    build = ("reference", "build", "cifar10", "--extractor", "runs/cifar10-classifier", *root)
    succeeded(run(*build))
    for recipe in ("cifar10", "cifar10-small"):
        succeeded(run("train", recipe, *root, *DIFFUSION))
    sample = ("sample", "runs/cifar10", "--sampler", "ddim", "--steps", 2, "--count", 100)
    succeeded(run(*sample, "--out", "samples.npz"))
    measured = ("evaluate", "samples.npz", "--reference", "cifar10.npz", *root, "--json")
    status, out, error = run(*measured, "--metrics", "fid,fid-held-out,memorisation")
    assert status == 0, error
    # The recipe flips, and the samples say so: the mirror images are looked at too.
    assert "features of 200 training images and of their mirror images" in error
    found = json.loads(out)
    copying = {"memorised-share", "authentic-percent", "data-copying"}
    assert set(found["figures"]) == {"fid", "fid-held-out", *copying}
    assert set(found["copies"]) >= copying
    assert set(found["floor"]["figures"]) >= copying
    assert found["copies"]["memorised-share"]["value"] == 1
    assert found["figures"]["memorised-share"]["value"] < 0.1
    Path("study.toml").write_text(
        'title = "CIFAR-10"\nmodel = "runs/cifar10"\nreferences = ["cifar10.npz"]\nsamples = 20\n'
        '[[slices]]\nname = "ddim"\nsampler = "ddim"\nsteps = [2, 4]\n'
    )
    assert "2 cells" in succeeded(run("study", "study.toml", "--dry-run"))
    assert not Path("study").exists()
    cell = re.compile(r"^(?:runs/cifar10: )?(\S.*?) {2,}([\d,]+) +([\d,]+)(?: +[\d.]+)? *$", re.M)
    page = (Path(__file__).parent.parent / "docs" / "cifar10.md").read_text("utf-8")
    shown = page.partition("--dry-run` prints")[2].split("```")[1]
    assert cell.findall(succeeded(run("study", "cifar10", "--dry-run"))) == cell.findall(shown)
    shutil.rmtree("runs")


def _records(count: int, seed: int) -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (count, 3073), dtype=np.uint8)
    values[:, 0] = np.arange(count) % 10
    return values.tobytes()
