"""What is shipped is what it says, on real images."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from underone.checkpoint import FeatureModel, load_checkpoint
from underone.data import SampleSet, load_dataset, read_arrays, write_arrays
from underone.errors import UserError
from underone.files import sha256_of_file
from underone.generation import Draw, Setting, generate, usual_labels
from underone.metrics import Yardstick, measure
from underone.metrics.floor import Floor, floor
from underone.metrics.frechet import Gaussian, frechet_distance
from underone.metrics.moments import Moments
from underone.metrics.reference import build_reference
from underone.metrics.reference_file import load_reference, save_reference
from underone.shipped import find_checkpoint, model_names, zoo_folder
from underone.zoo import (
    find_reference,
    load_extractor,
    load_model,
    load_yardstick,
    reference_names,
)

SLICE = Path(__file__).parent / "data" / "fashion-mnist"
EMOJI = SLICE.parent / "noto-emoji"
SYSTEM = Path("/usr/share/datasets/fashion-mnist")


def test_the_floor_of_the_shipped_reference() -> None:
    by = load_yardstick("fashion-mnist")
    found = {count: balanced_floor(by, count) for count in (1000, 10_000, 50_000)}
    assert (found[1000].count, found[1000].draws) == (1000, 10)
    assert (found[10_000].count, found[10_000].draws) == (10_000, 1)
    assert found[50_000] == found[10_000]
    small, large = (found[count].figures["fid"].value for count in (1000, 10_000))
    assert 0 < large < 0.05
    # FID is biased upward at small N, about as 1/N.
    assert 5 < small / large < 20


def balanced_floor(by: Yardstick, count: int) -> Floor:
    found = floor(by, count, torch.arange(count) % 10, ["fid"])
    assert found is not None
    return found


def test_the_floor_has_the_samples_own_label_policy() -> None:
    by = load_yardstick("fashion-mnist")
    generator = torch.Generator().manual_seed(0)
    random = torch.randint(10, (1000,), generator=generator)
    scores = {}
    for name, labels in (("balanced", torch.arange(1000) % 10), ("random", random)):
        found = floor(by, 1000, labels, ["fid"])
        assert found is not None
        scores[name] = found.figures["fid"].value
    # Classes in other numbers than the reference has move the mean by themselves.
    assert scores["random"] > 1.3 * scores["balanced"]
    shirts = floor(by, 50, torch.full((50,), 6), ["fid"])
    assert shirts is not None
    assert (shirts.count, shirts.draws) == (50, 10)
    assert shirts.figures["fid"].value > 10


def test_the_extractor_gives_the_shipped_features_on_real_images() -> None:
    reference = find_reference("fashion-mnist")
    extractor = load_extractor("fashion-mnist-classifier")
    assert reference.origin.extractor_sha256 == extractor.sha256
    # The slice is the beginning of the test set, whose features the reference holds.
    real = load_dataset("fashion-mnist", "test", SLICE)
    features = extractor(real.images).values
    held_out = reference.held_out
    assert held_out is not None
    assert held_out.labels is not None
    assert torch.equal(held_out.labels[: len(real)], real.labels)
    expected = held_out.values[: len(real)].float()
    torch.testing.assert_close(features, expected, rtol=2e-3, atol=2e-3)


def test_the_features_are_scaled_to_the_stated_trace() -> None:
    assert find_reference("fashion-mnist").covariance.trace().item() == pytest.approx(64, rel=1e-4)


def test_the_classifier_is_right_on_real_images() -> None:
    model = load_checkpoint(find_checkpoint("fashion-mnist-classifier"))
    assert isinstance(model, FeatureModel)
    real = load_dataset("fashion-mnist", "test", SLICE)
    _, logits = model.features_and_logits(real.images)
    assert logits is not None
    assert (logits.argmax(dim=1) == real.labels).float().mean() > 0.92


@pytest.mark.slow
def test_the_classifier_reaches_93_percent_on_the_whole_test_set() -> None:
    """By the logits that the reference holds; that they are its own is tested below."""
    held_out = find_reference("fashion-mnist").held_out
    assert held_out is not None
    assert held_out.logits is not None
    assert held_out.labels is not None
    assert len(held_out) == 10_000
    assert (held_out.logits.argmax(dim=1) == held_out.labels).double().mean() >= 0.93


@pytest.mark.skipif(not SYSTEM.exists(), reason="the whole data set is not installed")
def test_the_reference_and_the_classifier_are_of_the_whole_data_set() -> None:
    test = load_dataset("fashion-mnist", "test", SYSTEM)
    held_out = find_reference("fashion-mnist").held_out
    assert held_out is not None
    assert held_out.labels is not None
    assert torch.equal(held_out.labels, test.labels)
    model = load_checkpoint(find_checkpoint("fashion-mnist-classifier"))
    assert load_dataset("fashion-mnist", "train", SYSTEM).sha256 == model.config.data.sha256
    assert isinstance(model, FeatureModel)
    _, logits = model.features_and_logits(test.images[:200])
    assert logits is not None
    assert held_out.logits is not None
    torch.testing.assert_close(held_out.logits[:200].float(), logits, rtol=2e-3, atol=2e-2)


def test_real_images_measured_as_samples_score_the_floor() -> None:
    real = load_dataset("fashion-mnist", "test", SLICE)
    by = load_yardstick("fashion-mnist")
    result = measure(SampleSet(real.images, protocol={"labels": "real"}), by)
    assert result.floor is not None
    assert result.fid < 2 * result.floor.fid
    assert result.protocol.count == 1000
    assert result.protocol.labels == "real"
    inverted = measure(SampleSet(255 - real.images[:300]), by)
    assert inverted.fid > 10
    assert inverted.protocol.labels == "unrecorded"


@pytest.mark.slow
def test_a_reference_survives_saving_and_damage_is_told(tmp_path: Path) -> None:
    every = load_dataset("fashion-mnist", "test", SLICE)
    real = replace(every, images=every.images[:300], labels=every.labels[:300])
    extractor = load_extractor("fashion-mnist-classifier")
    shirtless = replace(real, labels=torch.where(real.labels == 6, 7, real.labels))
    with pytest.raises(UserError, match=r"a class of .* has no images in test"):
        build_reference("gap", shirtless, None, extractor)
    built = build_reference("slice", real, real, extractor)
    path = tmp_path / "slice.npz"
    save_reference(built, path)
    again = load_reference(path)
    assert again.sha256 == built.sha256
    assert torch.equal(again.covariance, built.covariance)
    moments = Moments.of(extractor(real.images).values)
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
    foreign = replace(reference, origin=replace(reference.origin, extractor_sha256="0" * 64))
    with pytest.raises(UserError, match="never mix"):
        Yardstick(extractor, foreign)
    with pytest.raises(UserError, match="at least 2"):
        measure(SampleSet(real.images[:1]), Yardstick(extractor, reference))


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


def test_unknown_names_name_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'fashion-mnist'"):
        find_checkpoint("fashion-mnst")
    with pytest.raises(UserError, match="did you mean 'fashion-mnist'"):
        find_reference("fashion-mnits")
    with pytest.raises(UserError, match="not a diffusion model"):
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
    assert sum(path.stat().st_size for path in files) < 75e6
    assert len({sha256_of_file(path) for path in files}) == len(files)


def test_the_classifier_of_emoji_is_right_on_held_out_ones() -> None:
    model = load_checkpoint(find_checkpoint("noto-emoji-classifier"))
    assert isinstance(model, FeatureModel)
    held_out = load_dataset("noto-emoji", "test", EMOJI)  # of four of the nine classes
    names = model.config.data.class_names
    classes = torch.tensor([names.index(name) for name in held_out.class_names])
    _, logits = model.features_and_logits(held_out.images)
    assert logits is not None
    assert (logits.argmax(dim=1) == classes[held_out.labels]).float().mean() > 0.6
    assert find_reference("noto-emoji").covariance.trace().item() == pytest.approx(64, rel=1e-3)


def test_the_model_of_emoji_draws_what_it_is_asked_for() -> None:
    model, judge = (
        load_model("noto-emoji"),
        load_checkpoint(find_checkpoint("noto-emoji-classifier")),
    )
    assert isinstance(judge, FeatureModel)
    assert usual_labels(model) == "proportional"
    samples = generate(model, Setting("ddim", 10, guidance=1.0), Draw(45, labels="2,5,6"))
    _, logits = judge.features_and_logits(samples.images)
    assert logits is not None
    assert samples.labels is not None
    assert (logits.argmax(dim=1) == samples.labels).float().mean() > 0.7
