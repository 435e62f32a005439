"""What is shipped is what it says, on real images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from underone.checkpoint import ClassifierModel, load_checkpoint
from underone.data import SampleSet, load_dataset, read_arrays, write_arrays
from underone.errors import UserError
from underone.files import sha256_of_file
from underone.metrics import measure
from underone.metrics.frechet import Gaussian, frechet_distance
from underone.metrics.moments import Moments
from underone.metrics.reference import build_reference, load_reference
from underone.zoo import (
    find_checkpoint,
    find_reference,
    load_extractor,
    load_model,
    model_names,
    reference_names,
    zoo_folder,
)

SLICE = Path(__file__).parent / "data" / "fashion-mnist"
SYSTEM = Path("/usr/share/datasets/fashion-mnist")


def test_the_floor_of_the_shipped_reference() -> None:
    reference = find_reference("fashion-mnist")
    floor = reference.floor(10_000)
    assert (floor.count, floor.draws) == (10_000, 1)
    assert 0 < floor.value < 0.05
    # FID is biased upward at small N, about as 1/N.
    assert 5 < reference.floor(1000).value / floor.value < 20
    assert reference.floor(50_000).count == 10_000


def test_the_extractor_gives_the_shipped_features_on_real_images() -> None:
    reference = find_reference("fashion-mnist")
    extractor = load_extractor("fashion-mnist-classifier")
    assert reference.extractor_sha256 == extractor.sha256
    # The slice is the beginning of the test set, whose features the reference holds.
    real = load_dataset("fashion-mnist", "test", SLICE)
    features = extractor(real.images)
    expected = reference.held_out[: len(real)].float()
    assert torch.equal(reference.held_out_labels[: len(real)], real.labels)
    torch.testing.assert_close(features, expected, rtol=2e-3, atol=2e-3)


def test_the_features_are_scaled_to_the_stated_trace() -> None:
    assert find_reference("fashion-mnist").covariance.trace().item() == pytest.approx(64, rel=1e-4)


def test_the_classifier_is_right_on_real_images() -> None:
    model = load_checkpoint(find_checkpoint("fashion-mnist-classifier"))
    assert isinstance(model, ClassifierModel)
    real = load_dataset("fashion-mnist", "test", SLICE)
    _, logits = model.features_and_logits(real.images)
    assert (logits.argmax(dim=1) == real.labels).float().mean() > 0.92


@pytest.mark.skipif(not SYSTEM.exists(), reason="the whole data set is not installed")
def test_the_classifier_reaches_93_percent_on_the_whole_test_set() -> None:
    model = load_checkpoint(find_checkpoint("fashion-mnist-classifier"))
    assert isinstance(model, ClassifierModel)
    test = load_dataset("fashion-mnist", "test", SYSTEM)
    _, logits = model.features_and_logits(test.images)
    assert (logits.argmax(dim=1) == test.labels).float().mean() >= 0.93
    assert load_dataset("fashion-mnist", "train", SYSTEM).sha256 == model.config.data.sha256


def test_real_images_measured_as_samples_score_the_floor() -> None:
    real = load_dataset("fashion-mnist", "test", SLICE)
    reference = find_reference("fashion-mnist")
    extractor = load_extractor("fashion-mnist-classifier")
    result = measure(SampleSet(real.images, protocol={"labels": "real"}), extractor, reference)
    assert result.fid < 2 * result.floor.fid
    assert result.protocol.count == 1000
    assert result.protocol.labels == "real"
    inverted = measure(SampleSet(255 - real.images), extractor, reference)
    assert inverted.fid > 10
    assert inverted.protocol.labels == "unrecorded"


def test_a_reference_survives_saving_and_damage_is_told(tmp_path: Path) -> None:
    real = load_dataset("fashion-mnist", "test", SLICE)
    extractor = load_extractor("fashion-mnist-classifier")
    built = build_reference("slice", real, real, extractor)
    path = tmp_path / "slice.npz"
    built.save(path)
    again = load_reference(path)
    assert again.sha256 == built.sha256
    assert torch.equal(again.covariance, built.covariance)
    moments = Moments.of(extractor(real.images))
    assert frechet_distance(Gaussian.of(moments), again.gaussian) < 1e-6

    whole = path.read_bytes()
    for size in (0, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"slice\.npz"):
            load_reference(path)


def test_figures_of_another_extractor_are_refused(tmp_path: Path) -> None:
    real = load_dataset("fashion-mnist", "test", SLICE)
    extractor = load_extractor("fashion-mnist-classifier")
    reference = find_reference("fashion-mnist")
    foreign = type(reference)(**{**vars_of(reference), "extractor_sha256": "0" * 64})
    with pytest.raises(UserError, match="never mix"):
        measure(SampleSet(real.images), extractor, foreign)
    with pytest.raises(UserError, match="at least 2"):
        measure(SampleSet(real.images[:1]), extractor, reference)


def test_images_of_another_shape_are_refused() -> None:
    extractor = load_extractor("fashion-mnist-classifier")
    for shape in ((4, 1, 32, 32), (4, 3, 28, 28)):
        with pytest.raises(UserError, match=r"takes images of \(1, 28, 28\)"):
            extractor(torch.zeros(shape, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mu", np.zeros((3, 3))),
        ("sigma", np.zeros(3)),
        ("held_out", np.zeros((2, 5))),
        ("held_out_labels", np.zeros(3)),
        ("mu", np.full(256, np.nan)),
        ("mu", np.zeros(256, dtype=complex)),
        ("sigma", -np.eye(256)),
        ("sigma", np.tri(256)),
        ("n", np.array([1, 2])),
        ("format", np.array([1, 1])),
        ("held_out_labels", np.full(10_000, 9)),
        ("held_out_labels", np.full(10_000, -1)),
    ],
)
def test_a_reference_that_contradicts_itself_is_refused(
    tmp_path: Path, name: str, value: NDArray[Any]
) -> None:
    everything = read_arrays(
        zoo_folder() / "references" / "fashion-mnist.npz", lambda names: names, "reference", "it"
    )
    write_arrays(tmp_path / "odd.npz", everything | {name: value})
    with pytest.raises(UserError, match=r"odd\.npz"):
        load_reference(tmp_path / "odd.npz")


def vars_of(reference: object) -> dict[str, Any]:
    return {k: v for k, v in vars(reference).items() if k not in ("gaussian", "sha256")}


def test_unknown_names_name_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'fashion-mnist'"):
        find_checkpoint("fashion-mnst")
    with pytest.raises(UserError, match="did you mean 'fashion-mnist'"):
        find_reference("fashion-mnits")
    with pytest.raises(UserError, match="classifier, not a diffusion model"):
        load_model("fashion-mnist-classifier")
    with pytest.raises(UserError, match="extracts no features"):
        load_extractor("fashion-mnist")


def test_everything_shipped_loads_and_is_small() -> None:
    for name in model_names():
        checkpoint = load_checkpoint(find_checkpoint(name))
        assert checkpoint.config.network.revision == 2
        card = (find_checkpoint(name) / "README.md").read_text(encoding="utf-8")
        assert card.startswith(f"# {name}")
    for name in reference_names():
        find_reference(name)
    files = [path for path in zoo_folder().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 20e6
    assert len({sha256_of_file(path) for path in files}) == len(files)
