"""FID and its variants: against held-out images, within classes, at infinite N."""

import math
from dataclasses import replace

from torch import Tensor

from underone.metrics.draws import disjoint_draws
from underone.metrics.figures import NOTHING, Figure, Scores
from underone.metrics.frechet import Gaussian, frechet_distance
from underone.metrics.frechet_error import frechet_standard_error, influence, within_classes
from underone.metrics.frechet_infinity import FrechetInfinity, frechet_infinity
from underone.metrics.intra import intra_class
from underone.metrics.scored import ScoredImages
from underone.metrics.yardstick import Yardstick

# FID-infinity needs at least this many images per feature dimension.
LEAST_FOR_INFINITY = 4


def fid(images: ScoredImages, by: Yardstick) -> Scores:
    """FID against the whole reference, with its standard error where the moments allow it."""
    return Scores({"fid": _frechet(images, by.reference.gaussian)})


def fid_held_out(images: ScoredImages, by: Yardstick) -> Scores:
    """FID against the split that no model was trained on: copying does not lower it."""
    reference = by.reference
    gaussian, train = reference.held_out_gaussian, reference.features
    if gaussian is None or train is None or not reference.of_training_images:
        return NOTHING
    found = Scores({"fid-held-out": _frechet(images, gaussian)})
    count = images.moments.count
    if count > len(train):  # FID falls with N: that of fewer is not the lower end
        return found
    # Training images score here what copies would: not a floor, but the lower end. They are as many
    # of each class as the samples, since random labels alone raise FID.
    chosen, *_ = disjoint_draws(train.labels, count, images.labels, len(train))
    if len(chosen) < count:
        return found
    copies = ScoredImages.of(train.at(chosen))
    score = Figure(value=frechet_distance(copies.gaussian, gaussian))
    return replace(found, copies={"fid-held-out": score})


def _frechet(images: ScoredImages, gaussian: Gaussian) -> Figure:
    distance = frechet_distance(images.gaussian, gaussian)
    if not images.errors or images.features is None or distance <= 0:
        return Figure(value=distance)
    try:
        each = influence(images.features.values, gaussian)
    except ValueError:  # unknown where moments are not of full rank
        return Figure(value=distance)
    labels = images.labels
    fixed = labels if labels is not None and _balanced(labels) else None
    return Figure(
        value=distance,
        error=frechet_standard_error(each),
        influences=within_classes(each, fixed).float().cpu().numpy().tobytes(),
    )


def intra_fid(images: ScoredImages, by: Yardstick) -> Scores:
    """The mean of the FIDs within each class, and each of them: "fid-0", "fid-1", ..."""
    features, labels, classes = images.features, images.labels, by.reference.classes
    if features is None or labels is None or classes is None:
        return NOTHING
    counts = labels.bincount(minlength=len(classes.counts))
    if len(counts) > len(classes.counts) or counts.min() < 2:
        return NOTHING
    result = intra_class(features.values, labels, dict(enumerate(classes.gaussians)))
    each = zip(result.classes.tolist(), result.scores.tolist(), strict=True)
    return Scores(
        {
            "intra-fid": Figure(value=result.mean),
            "intra-fid-weighted": Figure(value=result.weighted_mean),
            **{f"fid-{label}": Figure(value=score) for label, score in each},
        }
    )


def fid_infinity(images: ScoredImages, by: Yardstick) -> Scores:
    """FID extrapolated to infinitely many samples, and its standard error.

    It combines two independent errors: that of the FID of all samples, and that of the subsets.
    """
    gaussian, size = by.reference.gaussian, images.moments.mean.numel()
    held_out = by.reference.held_out
    if images.features is None or not enough_for_infinity(len(images.features), size):
        return NOTHING
    found = _extrapolated(images.features.values, images.labels, gaussian)
    error = _frechet(images, gaussian).error
    if error is not None:
        error = math.hypot(error, found.subset_error)
    real = {}
    if held_out is not None and enough_for_infinity(len(held_out), size):
        extrapolated = _extrapolated(held_out.values, held_out.labels, gaussian)
        real["fid-infinity"] = Figure(value=extrapolated.value)
    return Scores({"fid-infinity": Figure(value=found.value, error=error)}, real=real)


def enough_for_infinity(count: int, size: int) -> bool:
    """Whether `count` images are enough for FID at infinite N, in `size` feature dimensions."""
    return count >= max(20, LEAST_FOR_INFINITY * size)


def _extrapolated(values: Tensor, classes: Tensor | None, gaussian: Gaussian) -> FrechetInfinity:
    # The bias is linear in 1 / N only well above D samples.
    smallest = min(max(len(values) // 10, 2 * values.shape[1]), len(values) - 15)
    if classes is not None and not _balanced(classes):
        classes = None  # they may have been drawn at random
    return frechet_infinity(values, gaussian, smallest=max(2, smallest), classes=classes)


def _balanced(labels: Tensor) -> bool:
    _, counts = labels.unique(return_counts=True)
    return int(counts.max() - counts.min()) <= 1
