"""The commands that evaluate sample sets and compare measurements."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import ModelFolder, Run
from folders import write_folder
from studies import PROTOCOL
from underone.data import SampleSet, load_dataset, write_arrays
from underone.metrics import Figure, Measurement


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
    write_folder(tmp_path / "images")
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
    write_folder(tmp_path / "images")
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
    write_folder(tmp_path / "images")
    out = tmp_path / "mine.npz"
    extractor = ("--extractor", "fashion-mnist-classifier")
    status, _, error = run("reference", "build", tmp_path / "images", *extractor, "--out", out)
    assert status == 0, error
    status, out_text, _ = run(
        "evaluate", "fashion-mnist", "--steps", 1, "--count", 10, "--reference", out, "--json"
    )
    assert status == 0
    assert json.loads(out_text)["protocol"]["reference"]["name"] == "mine"


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
