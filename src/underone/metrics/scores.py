"""All metrics by name: of samples as they were scored, of real images, of copies."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from pydantic import Field
from torch import Tensor

from underone.config import Config
from underone.errors import unknown
from underone.metrics.consistency import (
    ClassAccuracy,
    ClassConsistency,
    Proportion,
    class_consistency,
)
from underone.metrics.draws import disjoint_draws
from underone.metrics.extractor import Features
from underone.metrics.frechet import Gaussian, frechet_distance
from underone.metrics.frechet_error import (
    frechet_standard_error,
    influence,
    paired_standard_error,
    within_classes,
)
from underone.metrics.frechet_infinity import FrechetInfinity, frechet_infinity
from underone.metrics.inception import inception_score
from underone.metrics.intra import intra_class
from underone.metrics.kernel import kernel_distance_with_error
from underone.metrics.manifold import (
    DENSITY_COVERAGE,
    PRECISION_RECALL,
    Manifold,
    scores_between,
)
from underone.metrics.memorisation import memorisation
from underone.metrics.moments import Moments
from underone.metrics.uncertainty import normal_factor
from underone.metrics.yardstick import Yardstick

KERNEL_BLOCKS = 10
# FID-infinity needs at least so many images a dimension.
LEAST_FOR_INFINITY = 4


class Figure(Config):
    """A value, with its standard error or its 95 % interval where one is known.

    `blocks`: where several disjoint seed blocks were measured, the value of each; `value` is then
    their mean. `influences`: of an FID, what each sample adds to it, float32 as bytes, by which two
    of the same seeds are compared; no part of its JSON.
    """

    value: float
    error: float | None = None
    interval: tuple[float, float] | None = None
    blocks: tuple[float, ...] = ()
    influences: bytes | None = Field(default=None, exclude=True, repr=False)

    @property
    def standard_error(self) -> float | None:
        """That of the value; of a proportion what normal errors with its interval would have."""
        if self.error is None and self.interval is not None:
            low, high = self.interval
            return (high - low) / 2 / normal_factor()
        return self.error

    def paired_error(self, other: "Figure") -> float | None:
        """The standard error of the difference from another of the same seeds; None if unknown."""
        if self.influences is None or other.influences is None:
            return None
        mine, theirs = (
            torch.frombuffer(bytearray(each), dtype=torch.float32).double()
            for each in (self.influences, other.influences)
        )
        return paired_standard_error(mine, theirs) if len(mine) == len(theirs) else None


Figures = dict[str, Figure]


@dataclass(frozen=True, eq=False)
class Scored:
    """A set of images as metrics see it: its moments, and its features where they were kept.

    `judged` (N, C) are the logits of the judge, where there is one. `errors`: whether standard
    errors are wanted, which may cost more than the figures.
    """

    moments: Moments
    features: Features | None = None
    judged: Tensor | None = None
    errors: bool = True

    @classmethod
    def of(cls, features: Features, errors: bool = True) -> "Scored":
        """From features in memory."""
        return cls(Moments.of(features.values), features, errors=errors)

    @cached_property
    def gaussian(self) -> Gaussian:
        """The Gaussian with these moments."""
        return Gaussian.of(self.moments)


@dataclass(frozen=True)
class Scores:
    """Figures of images; where a metric has controls of its own, also of real ones and copies.

    `real`: of images that no model was trained on. `copies`: of the training images themselves.
    """

    figures: Figures
    real: Figures = field(default_factory=dict)
    copies: Figures = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """A metric: how it scores images, and what it needs for that.

    `floor`: real images are scored as the samples are, for comparison. `keeps`: features must be in
    memory. `judges`: it asks the judge. `seeks`: it looks for copies of training images.
    """

    score: Callable[[Scored, Yardstick], Scores]
    needs: str
    floor: bool = True
    keeps: bool = True
    judges: bool = False
    seeks: bool = False


NOTHING = Scores({})


def fid(images: Scored, by: Yardstick) -> Scores:
    """FID against the whole reference, with its standard error where the moments allow it."""
    return Scores({"fid": _frechet(images, by.reference.gaussian)})


def fid_held_out(images: Scored, by: Yardstick) -> Scores:
    """FID against the split that no model was trained on: copying does not lower it."""
    reference = by.reference
    gaussian, train = reference.held_out_gaussian, reference.features
    if gaussian is None or train is None or not reference.of_training_images:
        return NOTHING
    found = Scores({"fid-held-out": _frechet(images, gaussian)})
    count = images.moments.count
    if count > len(train):  # FID falls with N: that of fewer is no lower end
        return found
    # What training images score here is what copies would: no floor, but the lower end. Of as many
    # of each class as the samples have, for random labels raise FID by themselves.
    labels = None if images.features is None else images.features.labels
    chosen, *_ = disjoint_draws(train.labels, count, labels, len(train))
    if len(chosen) < count:
        return found
    copies = Scored.of(train.at(chosen))
    score = Figure(value=frechet_distance(copies.gaussian, gaussian))
    return replace(found, copies={"fid-held-out": score})


def _frechet(images: Scored, gaussian: Gaussian) -> Figure:
    distance = frechet_distance(images.gaussian, gaussian)
    if not images.errors or images.features is None or distance <= 0:
        return Figure(value=distance)
    try:
        each = influence(images.features.values, gaussian)
    except ValueError:  # of moments that are not of full rank none is known
        return Figure(value=distance)
    labels = images.features.labels
    fixed = labels if labels is not None and _balanced(labels) else None
    return Figure(
        value=distance,
        error=frechet_standard_error(each),
        influences=within_classes(each, fixed).float().cpu().numpy().tobytes(),
    )


def intra_fid(images: Scored, by: Yardstick) -> Scores:
    """The mean of the FIDs within each class, and these: "fid-0", "fid-1", ..."""
    features, classes = images.features, by.reference.classes
    if features is None or features.labels is None or classes is None:
        return NOTHING
    counts = features.labels.bincount(minlength=len(classes.counts))
    if len(counts) > len(classes.counts) or counts.min() < 2:
        return NOTHING
    result = intra_class(features.values, features.labels, dict(enumerate(classes.gaussians)))
    each = zip(result.classes.tolist(), result.scores.tolist(), strict=True)
    return Scores(
        {
            "intra-fid": Figure(value=result.mean),
            "intra-fid-weighted": Figure(value=result.weighted_mean),
            **{f"fid-{label}": Figure(value=score) for label, score in each},
        }
    )


def fid_infinity(images: Scored, by: Yardstick) -> Scores:
    """FID extrapolated to infinitely many samples, and its standard error.

    That is the error of the FID of all of them and, independent of it, that of choosing subsets.
    """
    gaussian, size = by.reference.gaussian, images.moments.mean.numel()
    held_out = by.reference.held_out
    if images.features is None or not enough_for_infinity(len(images.features), size):
        return NOTHING
    found = _extrapolated(images.features, gaussian)
    error = _frechet(images, gaussian).error
    if error is not None:
        error = math.hypot(error, found.subset_error)
    real = {}
    if held_out is not None and enough_for_infinity(len(held_out), size):
        real["fid-infinity"] = Figure(value=_extrapolated(held_out, gaussian).value)
    return Scores({"fid-infinity": Figure(value=found.value, error=error)}, real=real)


def enough_for_infinity(count: int, size: int) -> bool:
    """Whether so many images of so many feature dimensions have an FID at infinite N."""
    return count >= max(20, LEAST_FOR_INFINITY * size)


def _extrapolated(features: Features, gaussian: Gaussian) -> FrechetInfinity:
    values, classes = features.values, features.labels
    # The bias is linear in 1 / N only well above D samples.
    smallest = min(max(len(values) // 10, 2 * values.shape[1]), len(values) - 15)
    if classes is not None and not _balanced(classes):
        classes = None  # they may have been drawn at random
    return frechet_infinity(values, gaussian, smallest=max(2, smallest), classes=classes)


def _balanced(labels: Tensor) -> bool:
    _, counts = labels.unique(return_counts=True)
    return int(counts.max() - counts.min()) <= 1


def kid(images: Scored, by: Yardstick) -> Scores:
    """The kernel distance to the reference's features."""
    real = by.reference.features
    if images.features is None or real is None:
        return NOTHING
    blocks = min(KERNEL_BLOCKS, len(images.features) // 2, len(real) // 2)
    if blocks < 2:
        return NOTHING
    result = kernel_distance_with_error(
        by.reference.as_kept(images.features.values),
        real.values,
        blocks=blocks,
        within_y=by.reference.kernel_mean,
    )
    return Scores({"kid": Figure(value=result.value, error=result.standard_error)})


def inception(images: Scored, by: Yardstick) -> Scores:
    """The Inception Score in the extractor's own classes, of all samples at once."""
    if images.features is None or images.features.logits is None:
        return NOTHING
    result = inception_score(images.features.logits)
    return Scores({"inception-score": Figure(value=result.value, error=result.standard_error)})


def manifold(images: Scored, by: Yardstick) -> Scores:
    """Improved precision and recall, density and coverage, against the reference's features."""
    real, features = by.reference.manifold, images.features
    if features is None or real is None or len(features) <= real.squared.shape[1]:
        return NOTHING
    values = by.reference.as_kept(features.values)
    fake = Manifold.of(values, real.squared.shape[1], real.centre)
    improved, naeem = scores_between(real, fake, [PRECISION_RECALL, DENSITY_COVERAGE])
    return Scores(
        {
            "precision": Figure(value=improved.precision),
            "recall": Figure(value=improved.recall),
            "density": Figure(value=naeem.density),
            "coverage": Figure(value=naeem.coverage),
        }
    )


def consistency(images: Scored, by: Yardstick) -> Scores:
    """How often the judge sees the class that was asked for, and how often in real images.

    Of these, all that are held out, classes weighted as they were asked for.
    """
    labels = None if images.features is None else images.features.labels
    if images.judged is None or labels is None or by.judge is None:
        return NOTHING
    if labels.max() >= images.judged.shape[1]:
        return NOTHING
    result = class_consistency(images.judged, labels, by.judge.real)
    return Scores(_shares(result.generated), real=_real_shares(result))


def _shares(accuracy: ClassAccuracy) -> Figures:
    each = {
        f"consistency-{label}": _share(share)
        for label, share in enumerate(accuracy.per_class)
        if share is not None
    }
    return {
        "consistency": _share(accuracy.micro),
        "consistency-macro": Figure(value=accuracy.macro),
        **each,
    }


def _real_shares(result: ClassConsistency) -> Figures:
    """Those of real images; means are over the classes that were asked for, if all are known."""
    accuracy, asked = result.real, result.generated.totals
    shares = _shares(accuracy)
    known = {
        label: share.value
        for label, share in enumerate(accuracy.per_class)
        if share is not None and asked[label]
    }
    if len(known) == sum(map(bool, asked)):
        weighted = sum(share * asked[label] for label, share in known.items()) / sum(asked)
        shares["consistency"] = Figure(value=weighted)
        shares["consistency-macro"] = Figure(value=sum(known.values()) / len(known))
    return shares


def _share(proportion: Proportion) -> Figure:
    interval = proportion.interval
    return Figure(value=proportion.value, interval=(interval.low, interval.high))


def copying(images: Scored, by: Yardstick) -> Scores:
    """Three measures of memorisation, of held-out images and of exact copies as well."""
    held_out, train = by.reference.held_out, by.train
    if images.features is None or held_out is None or train is None:
        return NOTHING
    if not by.reference.of_training_images:
        return NOTHING
    as_kept = by.reference.as_kept
    with suppress(ValueError):  # too few samples for any cell
        found = memorisation(
            train=as_kept(train),
            test=held_out.values,
            generated=as_kept(images.features.values),
            mirrored=None if by.mirrored is None else as_kept(by.mirrored),
        )
        columns = {
            "memorised-share": found.memorised_share,
            "authentic-percent": found.authentic_percent,
            "data-copying": found.data_copying,
        }
        return Scores(
            {name: Figure(value=column.generated) for name, column in columns.items()},
            real={name: Figure(value=column.held_out) for name, column in columns.items()},
            copies={name: Figure(value=column.copies) for name, column in columns.items()},
        )
    return NOTHING


METRICS: Mapping[str, Metric] = {
    "fid": Metric(fid, "two images", keeps=False),
    # Against the held-out split itself, held-out images are no floor.
    "fid-held-out": Metric(
        fid_held_out,
        "a reference of training images that holds features of others",
        floor=False,
        keeps=False,
    ),
    "fid-infinity": Metric(
        fid_infinity, f"{LEAST_FOR_INFINITY} samples a feature dimension", floor=False
    ),
    "intra-fid": Metric(
        intra_fid, "labels, at least two samples of each of the reference's classes"
    ),
    "kid": Metric(kid, "a reference with features, 4 samples"),
    "inception-score": Metric(inception, "an extractor with classes"),
    "manifold": Metric(manifold, "a reference with features, 6 samples"),
    "consistency": Metric(
        consistency, "labels, and a judge that knows them", floor=False, judges=True
    ),
    "memorisation": Metric(
        copying,
        "training images, a reference of them with others held out, some hundred samples",
        floor=False,
        seeks=True,
    ),
}


def metric_names(wanted: Iterable[str]) -> tuple[str, ...]:
    """The names of metrics that are wanted, "all" being every one; others are a `UserError`."""
    names = list(wanted)
    for name in names:
        if name != "all" and name not in METRICS:
            raise unknown("metric", name, (*METRICS, "all"))
    return tuple(name for name in METRICS if "all" in names or name in names)


def score(images: Scored, by: Yardstick, metrics: Sequence[str]) -> Scores:
    """The figures of `metrics`; what the images or the yardstick do not allow is left out."""
    return merged([METRICS[name].score(images, by) for name in metrics])


def merged(every: Sequence[Scores]) -> Scores:
    """All figures together."""
    return Scores(
        {name: figure for scores in every for name, figure in scores.figures.items()},
        {name: figure for scores in every for name, figure in scores.real.items()},
        {name: figure for scores in every for name, figure in scores.copies.items()},
    )


def mean_figures(parts: Sequence[Figures]) -> Figures:
    """The mean of each figure over several sets; errors are not carried over."""
    return {
        name: Figure(value=sum(part[name].value for part in parts) / len(parts))
        for name in parts[0]
        if all(name in part for part in parts)
    }


def in_blocks(parts: Sequence[Figures]) -> Figures:
    """The mean of each figure over disjoint seed blocks, beside the value of each block."""
    return {
        name: Figure(value=mean.value, blocks=tuple(part[name].value for part in parts))
        for name, mean in mean_figures(parts).items()
    }
