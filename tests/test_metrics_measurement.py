"""Sample sets measured as a whole, on real images and on ones spoilt on purpose."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from underone.data import Dataset, SampleSet, load_dataset, read_samples, write_arrays
from underone.errors import UserError
from underone.evaluation import evaluate_samples
from underone.metrics import (
    METRICS,
    Features,
    Measurement,
    Yardstick,
    build_reference,
    features_of,
    load_reference,
    measure,
    measure_batches,
    metric_names,
    save_reference,
)
from underone.metrics.floor import floor
from underone.metrics.measurement import joined
from underone.zoo import load_extractor, load_judge, load_yardstick

SLICE = Path(__file__).parent / "data" / "fashion-mnist"
ALL = tuple(METRICS)
FEW = 1000
EXTRACTORS = ("fashion-mnist-classifier", "fashion-mnist-transformer", "fashion-mnist-encoder")


@pytest.fixture(scope="module")
def real() -> Dataset:
    return load_dataset("fashion-mnist", "test", SLICE)


@pytest.fixture(scope="module")
def by() -> Yardstick:
    """The shipped one, against fewer of its features: quicker."""
    shipped = load_yardstick("fashion-mnist")
    assert shipped.reference.kept is not None
    few = replace(shipped.reference, kept=shipped.reference.kept.at(torch.arange(FEW)))
    assert few.features is not None
    return Yardstick(
        shipped.extractor,
        few,
        load_judge("fashion-mnist-transformer"),
        few.features.values,
    )


@dataclass(frozen=True)
class Pixels:
    """An extractor that is quick: 7 x 7 means of grey levels."""

    name: str = "pixels"
    sha256: str = "0" * 64
    revision: int | None = None

    def __call__(self, images: Tensor) -> Features:
        return Features(functional.avg_pool2d(images.float() / 255, 4).flatten(1))


def values(measurement: Measurement) -> dict[str, float]:
    return {name: figure.value for name, figure in measurement.figures.items()}


@pytest.mark.slow
def test_every_metric_of_real_images_is_about_its_floor(real: Dataset, by: Yardstick) -> None:
    samples = SampleSet(real.images, real.labels, protocol={"labels": "real"})
    result = measure(samples, by, ALL)
    found, floor = values(result), result.floor
    assert floor is not None
    for name in ("fid", "intra-fid", "inception-score", "precision", "recall", "density"):
        assert found[name] == pytest.approx(floor.figures[name].value, rel=0.5), name
    assert {f"fid-{label}" for label in range(10)} <= found.keys()
    assert result.left_out == ("fid-infinity",)  # of less than four images a dimension
    assert abs(found["kid"]) < 5 * (result.figures["kid"].error or 0)
    assert 0 < (result.figures["fid"].error or 0) < found["fid"]
    assert found["fid-held-out"] < found["fid"]  # it is a part of what is held out
    assert 1 < found["inception-score"] <= 10


def test_streaming_gives_what_memory_gives_whatever_the_batches(
    real: Dataset, by: Yardstick
) -> None:
    images = real.images[:300]
    whole = measure(SampleSet(images), by)
    for size in (7, 150):
        streamed = measure_batches(images.split(size), None, {}, by, streamed=True)
        assert streamed.fid == pytest.approx(whole.fid, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXTRACTORS)
def test_features_are_the_same_one_by_one_and_by_the_hundred(name: str, real: Dataset) -> None:
    model = load_extractor(name).model
    images = real.images[:500]
    one, _ = model.features_and_logits(images, batch_size=1)
    many, _ = model.features_and_logits(images, batch_size=500)
    assert (one - many).norm() <= 1e-5 * many.norm()


def test_on_disk_is_as_in_memory(real: Dataset, by: Yardstick, tmp_path: Path) -> None:
    samples = SampleSet(real.images[:60], real.labels[:60], protocol={"labels": "balanced"})
    expected = measure(samples, by, ALL)
    samples.save_npz(tmp_path / "a.npz")
    samples.save_png_folder(tmp_path / "a")
    for path in (tmp_path / "a.npz", tmp_path / "a"):
        assert measure(read_samples(path), by, ALL).figures == expected.figures


Spoil = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
# How it is spoilt, and between which bounds figures must then lie. The first ten images are one of
# each class, in order.
SPOILT: dict[str, tuple[Spoil, dict[str, tuple[float, float]]]] = {
    # One image a class, again and again: what there is looks real, most of the data is missed.
    "mode collapse": (lambda x, y: (x[y], y), {"recall": (0, 0.2), "coverage": (0, 0.2)}),
    # Half of the classes are never drawn.
    "mode dropping": (lambda x, y: (x[y % 5], y % 5), {"recall": (0, 0.2), "fid": (2, 99)}),
    "blur": (
        lambda x, y: (functional.avg_pool2d(x.float(), 5, 1, 2).to(torch.uint8), y),
        {"precision": (0, 0.8), "fid": (1, 99)},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SPOILT)
def test_what_is_spoilt_is_seen(name: str, real: Dataset, by: Yardstick) -> None:
    spoil, bounds = SPOILT[name]
    first = torch.stack([(real.labels == label).nonzero()[0, 0] for label in range(10)])
    rest = torch.tensor([i for i in range(len(real)) if i not in set(first.tolist())])
    order = torch.cat([first, rest])
    images, labels = spoil(real.images[order], real.labels[order])
    found = values(measure(SampleSet(images, labels), by, ALL))
    for metric, (low, high) in bounds.items():
        assert low <= found[metric] <= high, (metric, found[metric])


@pytest.mark.slow
def test_swapped_labels_are_seen_within_classes_alone(real: Dataset, by: Yardstick) -> None:
    whole = measure(SampleSet(real.images, real.labels), by, ALL)
    swapped = SampleSet(real.images, (real.labels + 1) % 10)
    right, wrong = values(whole), values(measure(swapped, by, ALL, whole.floor))
    for name in right:
        if not re.match(r"intra-fid|fid-\d|consistency", name):
            assert wrong[name] == pytest.approx(right[name], rel=1e-9), name
    assert wrong["intra-fid"] > 10 * right["intra-fid"]


def test_what_the_images_or_the_reference_do_not_allow_is_left_out(
    real: Dataset, by: Yardstick
) -> None:
    few = measure(SampleSet(real.images[:4]), by, ALL)
    assert few.rank_deficient
    assert {"fid", "inception-score"} <= few.figures.keys()
    assert not {"intra-fid", "precision", "fid-infinity"} & few.figures.keys()
    assert few.figures["fid"].error is None


def test_the_moments_of_other_programs_are_read_and_ours_by_them(
    real: Dataset, tmp_path: Path
) -> None:
    pixels = Pixels()
    built = build_reference("pixels", real, real, pixels)
    path = tmp_path / "ours.npz"
    save_reference(built, path)
    with np.load(path) as arrays:
        mu, sigma = arrays["mu"], arrays["sigma"]
    assert (mu.dtype, sigma.shape) == (np.float64, (49, 49))
    write_arrays(tmp_path / "theirs.npz", {"mu": mu, "sigma": sigma})
    theirs = load_reference(tmp_path / "theirs.npz")
    assert theirs.name == "theirs"
    samples = SampleSet(real.images[:500], real.labels[:500])
    ours = measure(samples, Yardstick(pixels, load_reference(path)), ALL)
    bare = measure(samples, Yardstick(pixels, theirs), ALL)
    assert bare.fid == ours.fid
    assert bare.floor is None
    assert bare.figures.keys() == {"fid", "fid-infinity"}
    assert ours.figures["fid-infinity"].value < ours.fid
    # To the error of FID that of choosing subsets is added.
    errors = [ours.figures[name].error or 0 for name in ("fid", "fid-infinity")]
    assert 0 < errors[0] < errors[1] < 1.5 * errors[0]
    assert bare.protocol.reference_split == "unrecorded"
    assert bare.protocol.reference.sha256 != ours.protocol.reference.sha256


def test_a_reference_is_known_by_its_content(real: Dataset, tmp_path: Path) -> None:
    built = build_reference("one", real, real, Pixels())
    again = build_reference("two", real, real, Pixels())
    assert built.sha256 == again.sha256
    renamed = build_reference("one", replace(real, name="other"), real, Pixels())
    assert renamed.sha256 == built.sha256
    save_reference(built, tmp_path / "a.npz")
    assert load_reference(tmp_path / "a.npz").sha256 == built.sha256
    inverted = replace(real, images=255 - real.images)
    assert build_reference("one", inverted, real, Pixels()).sha256 != built.sha256
    without = build_reference("one", real, None, Pixels())
    assert without.held_out is None
    assert without.sha256 != built.sha256


def test_metrics_are_chosen_by_name() -> None:
    assert metric_names(["all"]) == ALL
    assert metric_names(["kid", "fid"]) == ("fid", "kid")
    with pytest.raises(UserError, match="did you mean 'manifold'"):
        metric_names(["manifld"])


@dataclass(frozen=True)
class Far:
    """Pixels, far from the origin compared with how they vary."""

    name: str = "far"
    sha256: str = "1" * 64
    revision: int | None = None

    def __call__(self, images: Tensor) -> Features:
        return Features(Pixels()(images).values + 5000)


def test_where_features_lie_is_no_matter_of_how_they_are_kept(real: Dataset) -> None:
    samples = SampleSet(real.images[:500], real.labels[:500])
    metrics = ("fid", "manifold", "fid-held-out")
    near, far = (
        measure(
            samples,
            Yardstick(
                extractor, build_reference("it", replace(real, split="train"), real, extractor)
            ),
            metrics,
        )
        for extractor in (Pixels(), Far())
    )
    for name in ("fid", "fid-held-out", "precision", "recall", "density", "coverage"):
        assert far.figures[name].value == pytest.approx(near.figures[name].value, rel=0.02), name
    assert near.floor is not None
    assert far.floor is not None
    assert far.floor.fid == pytest.approx(near.floor.fid, rel=0.02)


def test_features_that_float16_cannot_hold_are_refused(real: Dataset) -> None:
    class Huge(Pixels):
        def __call__(self, images: Tensor) -> Features:
            return Features(1e6 * Pixels()(images).values)

    with pytest.raises(UserError, match="too large"):
        build_reference("huge", real, None, Huge())


def test_of_a_reference_of_test_images_nothing_is_held_out(real: Dataset) -> None:
    tested = build_reference("tested", real, real, Pixels())
    assert tested.origin.split == "test"
    by = Yardstick(Pixels(), tested, train=Pixels()(real.images).values)
    result = measure(SampleSet(real.images, real.labels), by, ("fid-held-out", "memorisation"))
    assert not result.figures
    assert result.left_out == ("fid-held-out", "memorisation")
    trained = build_reference("trained", replace(real, split="train"), real, Pixels())
    by = Yardstick(Pixels(), trained, train=by.train)
    assert not measure(SampleSet(real.images), by, ("fid-held-out", "memorisation")).left_out


def test_whether_mirror_images_were_looked_at_is_recorded(real: Dataset) -> None:
    trained = build_reference("trained", replace(real, split="train"), real, Pixels())
    train, mirrored = (Pixels()(each).values for each in (real.images, real.mirrored().images))
    alone = Yardstick(Pixels(), trained, train=train)
    both = replace(alone, mirrored=mirrored)
    samples = SampleSet(real.images)
    for by, flips in ((alone, False), (both, True)):
        assert measure(samples, by, ("fid", "memorisation")).protocol.flips is flips
        assert measure(samples, by, ("fid",)).protocol.flips is None
        few = SampleSet(real.images[:4])  # of so few no copies can be told
        assert measure(few, by, ("fid", "memorisation")).protocol.flips is None


def test_classes_keep_their_proportions_among_the_features_kept(
    real: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("underone.metrics.reference.FEATURES_KEPT", 100)
    few = torch.cat([(real.labels == 1).nonzero()[:4, 0], (real.labels == 0).nonzero()[:, 0]])
    rare = replace(real, images=real.images[few], labels=real.labels[few])
    kept = build_reference("rare", rare, None, Pixels()).kept
    assert kept is not None
    assert kept.labels is not None
    assert len(kept) == 100
    assert (kept.labels == 1).sum() == 4
    assert not torch.equal(kept.labels, kept.labels.sort().values)
    monkeypatch.setattr("underone.metrics.reference.FEATURES_KEPT", 10)
    kept = build_reference("rarer", rare, None, Pixels()).kept
    assert kept is not None
    assert kept.labels is not None
    assert (kept.labels == 1).sum() == 1  # its share of 10 is no image


def test_consistency_stands_beside_that_of_real_images_of_the_same_classes(
    real: Dataset, by: Yardstick
) -> None:
    shirts = real.labels == 6  # the class that is mistaken most
    samples = SampleSet(real.images[shirts], real.labels[shirts])
    result = measure(samples, by, ("consistency",))
    assert result.floor is not None
    there = result.floor.figures
    for mean in ("consistency", "consistency-macro"):
        assert there[mean].value == pytest.approx(there["consistency-6"].value)
        assert result.figures[mean].value == result.figures["consistency-6"].value
    low, high = result.figures["consistency"].interval or (0, 0)
    assert low < result.figures["consistency"].value < high
    assert result.figures["consistency"].value == pytest.approx(
        there["consistency"].value, abs=0.15
    )
    assert result.protocol.judge is not None


def test_classes_weigh_the_same_in_the_plain_mean_of_consistency(
    real: Dataset, by: Yardstick
) -> None:
    chosen = torch.cat([(real.labels == 6).nonzero()[:, 0], (real.labels == 8).nonzero()[:5, 0]])
    samples = SampleSet(real.images[chosen], real.labels[chosen])
    result = measure(samples, by, ("consistency",))
    assert result.floor is not None
    for found in (result.figures, result.floor.figures):
        classes = [found[f"consistency-{label}"].value for label in (6, 8)]
        assert found["consistency-macro"].value == pytest.approx(sum(classes) / 2)
        assert found["consistency"].value < found["consistency-macro"].value


def test_no_judge_of_its_own_features_or_of_other_data(by: Yardstick) -> None:
    with pytest.raises(UserError, match="cannot judge"):
        Yardstick(by.extractor, by.reference, load_judge("fashion-mnist"))
    assert by.judge is not None
    stranger = replace(by.judge, data_sha256="0" * 64)
    with pytest.raises(UserError, match="other data"):
        replace(by, judge=stranger)
    with pytest.raises(UserError, match="no class logits"):
        load_judge("fashion-mnist-encoder")


@pytest.mark.slow
def test_copies_show_beside_both_controls(real: Dataset, by: Yardstick) -> None:
    assert by.train is not None
    trained_on = replace(by, train=by.extractor(real.images).values)
    copies = measure_batches([real.images], None, {}, trained_on, ["memorisation"])
    assert copies.figures["memorised-share"].value == 1
    assert copies.copies["memorised-share"].value == 1
    assert copies.floor is not None
    # A tenth of the images that are held out are these very images.
    assert copies.floor.figures["memorised-share"].value == pytest.approx(0.1, abs=0.03)


def test_copies_are_of_the_classes_of_the_samples_streamed_or_not(real: Dataset) -> None:
    reference = build_reference("quick", replace(real, split="train"), real, Pixels())
    few = real.labels < 3
    kept, streamed = (
        measure_batches(
            [real.images[few]],
            real.labels[few],
            {},
            Yardstick(Pixels(), reference),
            ["fid-held-out"],
            streamed=streamed,
        ).copies["fid-held-out"]
        for streamed in (False, True)
    )
    assert streamed == kept


def test_a_floor_of_few_held_out_images_is_as_large_as_it_can_be(real: Dataset) -> None:
    for held_out, classes, expected in ((1, 1, None), (1, 2, None), (40, 1, 40), (45, 1, 41)):
        chosen = torch.cat(
            [(real.labels == label).nonzero()[:held_out, 0] for label in range(classes)]
        )
        others = replace(real, images=real.images[chosen], labels=real.labels[chosen])
        reference = build_reference("few", replace(real, split="train"), others, Pixels())
        found = floor(Yardstick(Pixels(), reference), 41, torch.zeros(41).long(), ["fid"])
        assert (None if found is None else found.count) == expected


def test_blocks_of_sorted_samples_are_refused(real: Dataset, by: Yardstick) -> None:
    order = real.labels.argsort()
    ordered = SampleSet(real.images[order][:1000], real.labels[order][:1000])
    with pytest.raises(UserError, match="sorted by class"):
        evaluate_samples(ordered, by, ("fid",), blocks=2)
    # Of many classes few images each are sorted, too.
    many = SampleSet(real.images[:1000], torch.arange(1000) // 10)
    with pytest.raises(UserError, match="sorted by class"):
        evaluate_samples(many, by, ("fid",), blocks=2)
    random = torch.randint(100, (1000,), generator=torch.Generator().manual_seed(0))
    shuffled = SampleSet(real.images[:1000], random)
    assert evaluate_samples(shuffled, by, ("fid",), blocks=2).blocks == 2
    blocks = evaluate_samples(SampleSet(real.images[:300]), by, ("fid",), blocks=3)
    assert blocks.blocks == 3
    assert blocks.protocol.count == 100


def test_samples_of_some_classes_alone_are_not_balanced(real: Dataset, by: Yardstick) -> None:
    for classes, policy in (([0], "given"), ([0, 1, 2, 3, 4], "given"), (range(10), "balanced")):
        chosen = torch.cat([(real.labels == label).nonzero()[:5, 0] for label in classes])
        found = measure(SampleSet(real.images[chosen], real.labels[chosen]), by, ("fid",))
        assert found.protocol.labels == policy


def test_classes_smaller_than_the_features_are_wide_are_told(real: Dataset) -> None:
    by = Yardstick(Pixels(), build_reference("it", real, real, Pixels()))
    first = torch.cat([(real.labels == label).nonzero()[:50, 0] for label in range(10)])
    images, labels = real.images[first], real.labels[first]
    enough = measure(SampleSet(images, labels), by, ("intra-fid",))
    assert not enough.class_rank_deficient  # 50 of each, 49 dimensions
    fewer = SampleSet(images[1:], labels[1:])
    few = measure(fewer, by, ("intra-fid",))
    assert (few.rank_deficient, few.class_rank_deficient) == (False, True)
    assert not measure(fewer, by, ("fid",)).class_rank_deficient
    assert joined([enough, few]).class_rank_deficient


def test_what_one_block_lacks_is_said_to_be_left_out(real: Dataset, by: Yardstick) -> None:
    parts = [
        measure(SampleSet(real.images[part], torch.arange(40) % classes), by, ("fid", "intra-fid"))
        for part, classes in ((slice(0, 40), 10), (slice(40, 80), 9))
    ]
    found = joined(parts)
    assert "intra-fid" not in found.figures
    assert found.left_out == ("intra-fid",)


def test_images_that_an_extractor_would_take_for_others_are_refused(real: Dataset) -> None:
    by = Yardstick(Pixels(), build_reference("it", real, None, Pixels()))
    for wrong, message in (
        (real.images.float() / 255, r"uint8 in 0\.\.255, not torch\.float32"),
        (real.images.permute(0, 2, 3, 1), r"\(N, C, H, W\) .* not of shape \(1000, 28, 28, 1\)"),
        (real.images[:, 0], r"\(N, C, H, W\)"),
    ):
        with pytest.raises(ValueError, match=message):
            measure_batches([wrong], None, {}, by)
        with pytest.raises(ValueError, match=message):
            features_of(Pixels(), wrong)


def test_a_streamed_fid_is_the_same_without_its_error(real: Dataset, by: Yardstick) -> None:
    batches = real.images[:600].split(100)
    streamed = measure_batches(batches, None, {}, by, ("fid",), streamed=True)
    whole = measure_batches(batches, None, {}, by, ("fid",))
    assert streamed.fid == pytest.approx(whole.fid, rel=1e-12)
    assert streamed.figures["fid"].error is None
    assert whole.figures["fid"].error is not None
