"""All metrics by name, and how each scores images."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from underone.errors import unknown
from underone.metrics.consistency import (
    ClassAccuracy,
    ClassConsistency,
    Proportion,
    class_consistency,
)
from underone.metrics.figures import NOTHING, Figure, Figures, Scores, merged
from underone.metrics.frechet_scores import (
    LEAST_FOR_INFINITY,
    fid,
    fid_held_out,
    fid_infinity,
    intra_fid,
)
from underone.metrics.inception import inception_score
from underone.metrics.kernel import kernel_distance_with_error
from underone.metrics.manifold import (
    DENSITY_COVERAGE,
    PRECISION_RECALL,
    Manifold,
    scores_between,
)
from underone.metrics.memorisation import memorisation
from underone.metrics.scored import ScoredImages
from underone.metrics.yardstick import Yardstick

KERNEL_BLOCKS = 10


@dataclass(frozen=True)
class Metric:
    """A metric: how it scores images, and what it needs for that.

    `floor`: real images are scored as the samples are, for comparison. `keeps`: features must be in
    memory. `judges`: it uses the judge. `seeks`: it looks for copies of training images.
    """

    score: Callable[[ScoredImages, Yardstick], Scores]
    needs: str
    floor: bool = True
    keeps: bool = True
    judges: bool = False
    seeks: bool = False


def kid(images: ScoredImages, by: Yardstick) -> Scores:
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


def inception(images: ScoredImages, by: Yardstick) -> Scores:
    """The Inception Score in the extractor's own classes, of all samples at once."""
    if images.features is None or images.features.logits is None:
        return NOTHING
    result = inception_score(images.features.logits)
    return Scores({"inception-score": Figure(value=result.value, error=result.standard_error)})


def manifold(images: ScoredImages, by: Yardstick) -> Scores:
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


def consistency(images: ScoredImages, by: Yardstick) -> Scores:
    """How often the judge assigns the class that was asked for, and how often in real images.

    The real images are all that are held out, classes weighted as they were asked for.
    """
    labels = images.labels
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
    """The shares in real images; means are over the classes asked for, if all are known."""
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


def copying(images: ScoredImages, by: Yardstick) -> Scores:
    """Three measures of memorisation, also of held-out images and of exact copies."""
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
    # Against the held-out split itself, held-out images are not a floor.
    "fid-held-out": Metric(
        fid_held_out,
        "a reference of training images that holds features of held-out ones",
        floor=False,
        keeps=False,
    ),
    "fid-infinity": Metric(
        fid_infinity, f"{LEAST_FOR_INFINITY} samples per feature dimension", floor=False
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
        "training images, a reference of them with held-out ones, a few hundred samples",
        floor=False,
        seeks=True,
    ),
}


def metric_names(wanted: Iterable[str]) -> tuple[str, ...]:
    """The names of the `wanted` metrics, "all" being every one; others are a `UserError`."""
    names = list(wanted)
    for name in names:
        if name != "all" and name not in METRICS:
            raise unknown("metric", name, (*METRICS, "all"))
    return tuple(name for name in METRICS if "all" in names or name in names)


def score(images: ScoredImages, by: Yardstick, metrics: Sequence[str]) -> Scores:
    """The figures of `metrics`; what the images or the yardstick do not allow is left out."""
    return merged([METRICS[name].score(images, by) for name in metrics])
