"""Measurements: figures together with their protocol, subject and environment."""

import platform
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy
import torch
from pydantic import Field, model_validator
from torch import Tensor

import underone
from underone.config import Config
from underone.data import SampleSet, check_images
from underone.errors import UserError
from underone.metrics.extractor import BATCH, Features
from underone.metrics.figures import Figure, Scores, in_blocks, mean_figures, merged
from underone.metrics.floor import floor
from underone.metrics.moments import Moments
from underone.metrics.reference_file import UNRECORDED
from underone.metrics.scored import ScoredImages
from underone.metrics.scores import METRICS
from underone.metrics.yardstick import Judge, Yardstick

PROTOCOL_VERSION = 2


class Identity(Config):
    """A name for readers, and the hash of the content, which decides."""

    name: str
    sha256: str


class Protocol(Config):
    """How something was measured. Two figures are comparable only where all of it is equal.

    `extractor_revision` is that of its architecture, if it has one. `judge` is the hash of the
    classifier that judged classes, and `flips` whether copies were also looked for among mirror
    images of training images; each is None where no metric needed it, and then agrees with any.
    """

    version: int = PROTOCOL_VERSION
    count: int
    labels: str
    extractor: Identity
    reference: Identity
    reference_count: int
    reference_split: str
    extractor_revision: int | None = None
    quantisation: str = "uint8"
    extractor_precision: str = "float32"
    judge: str | None = None
    flips: bool | None = None


class FloorRecord(Config):
    """What real images score under the same protocol: `draws` sets of `count` (see `floor`)."""

    figures: dict[str, Figure]
    count: int
    draws: int

    @property
    def fid(self) -> float:
        """The floor of FID."""
        return self.figures["fid"].value


class Measurement(Config):
    """The result of measuring one sample set, or one setting in several disjoint seed blocks.

    `figures` are by metric; `floor` holds those of real images, None where the reference has none;
    `copies` those of training images themselves, where a metric looks for copies.
    `left_out`: the metrics that were requested and could not be computed.
    `rank_deficient`: there were no more samples than feature dimensions, so that the covariance
    is singular and FID says little; `class_rank_deficient`: the same for the smallest class, where
    FID was measured within classes. `subject` describes what was measured, as its maker recorded.
    """

    figures: dict[str, Figure]
    rank_deficient: bool
    class_rank_deficient: bool = False
    floor: FloorRecord | None
    copies: dict[str, Figure] = Field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    protocol: Protocol
    subject: dict[str, Any]
    environment: dict[str, Any]

    @model_validator(mode="after")
    def _is_of_equal_blocks(self) -> Self:
        if len({len(figure.blocks) for figure in self.figures.values()}) > 1:
            raise ValueError("all figures must be of the same number of blocks")
        return self

    @property
    def fid(self) -> float:
        """The Frechet distance."""
        return self.figures["fid"].value

    @property
    def blocks(self) -> int:
        """How many seed blocks were measured."""
        return max((len(figure.blocks) for figure in self.figures.values()), default=0) or 1


def measure(
    samples: SampleSet,
    by: Yardstick,
    metrics: Sequence[str] = ("fid",),
    known_floor: FloorRecord | None = None,
) -> Measurement:
    """The `metrics` of a sample set; see `measure_batches`."""
    classes = by.reference.classes
    known = 0 if classes is None else len(classes.counts)
    subject = {"labels": samples.label_policy_over(known)} | samples.protocol
    batches = samples.images.split(BATCH)
    return measure_batches(batches, samples.labels, subject, by, metrics, known_floor=known_floor)


def measure_batches(
    batches: Iterable[Tensor],
    labels: Tensor | None,
    subject: dict[str, Any],
    by: Yardstick,
    metrics: Sequence[str] = ("fid",),
    *,
    streamed: bool = False,
    known_floor: FloorRecord | None = None,
) -> Measurement:
    """The `metrics` of uint8 images that come in batches (B, C, H, W), for example from a model.

    Features are kept, N x D float32, for standard errors and for metrics that compare samples. If
    `streamed`, FID has no error, and memory does not grow with N unless another metric needs the
    features. `labels` (N,) are those of all images; `subject` describes the images, its "labels"
    the label policy. `known_floor` is the floor of as many samples of the same classes, if measured
    already. Images of another type or layout raise `ValueError`: not every extractor would refuse.
    """
    judged = any(METRICS[name].judges for name in metrics) and labels is not None
    judge = by.judge if judged else None
    keep = not streamed or any(METRICS[name].keeps for name in metrics)
    images = accumulated(by, batches, labels, keep=keep, judge=judge)
    count = images.moments.count
    if count < 2:
        raise UserError(f"a measurement needs at least 2 samples, got {count}")
    every = {name: METRICS[name].score(images, by) for name in metrics}
    scores = merged(list(every.values()))
    sought = any(METRICS[name].seeks and found.figures for name, found in every.items())
    drawn = known_floor or _drawn_floor(by, count, labels, metrics)
    return Measurement(
        figures=scores.figures,
        rank_deficient=images.moments.rank_deficient,
        class_rank_deficient="intra-fid" in scores.figures and _a_class_is_small(images, labels),
        floor=_with_controls(drawn, scores, count),
        copies=scores.copies,
        left_out=tuple(name for name, found in every.items() if not found.figures),
        protocol=Protocol(
            count=count,
            labels=str(subject.get("labels", UNRECORDED)),
            extractor=Identity(name=by.extractor.name, sha256=by.extractor.sha256),
            extractor_revision=by.extractor.revision,
            reference=Identity(name=by.reference.name, sha256=by.reference.sha256),
            reference_count=by.reference.count,
            reference_split=by.reference.origin.split,
            judge=None if judge is None else judge.classifier.sha256,
            flips=by.mirrored is not None if sought else None,
        ),
        subject=subject,
        environment=environment(),
    )


def _a_class_is_small(images: ScoredImages, labels: Tensor | None) -> bool:
    """Whether a class has no more images than features have dimensions."""
    return labels is not None and int(labels.bincount().min()) <= images.moments.mean.numel()


def joined(blocks: Sequence[Measurement]) -> Measurement:
    """One measurement from those of one or more disjoint seed blocks, of equal protocols.

    Its figures, floor and copies are means over the blocks. N, and with it the floor, is that of
    one block. The values of the blocks replace the errors within them.
    """
    if len(blocks) == 1:
        return blocks[0]
    floors = [block.floor for block in blocks if block.floor is not None]
    mean_floor = None
    if len(floors) == len(blocks):
        mean_floor = floors[0].model_copy(
            update={"figures": mean_figures([floor.figures for floor in floors])}
        )
    return blocks[0].model_copy(
        update={
            "figures": in_blocks([block.figures for block in blocks]),
            "floor": mean_floor,
            "copies": mean_figures([block.copies for block in blocks]),
            "rank_deficient": any(block.rank_deficient for block in blocks),
            "class_rank_deficient": any(block.class_rank_deficient for block in blocks),
            "left_out": tuple(dict.fromkeys(name for block in blocks for name in block.left_out)),
        }
    )


def _drawn_floor(
    by: Yardstick, count: int, labels: Tensor | None, metrics: Sequence[str]
) -> FloorRecord | None:
    real = floor(by, count, labels, metrics)
    if real is None:
        return None
    return FloorRecord(figures=real.figures, count=real.count, draws=real.draws)


def _with_controls(drawn: FloorRecord | None, scores: Scores, count: int) -> FloorRecord | None:
    """The floor, with the real images' figures from metrics that have their own controls."""
    if drawn is None and not scores.real:
        return None
    drawn = drawn or FloorRecord(figures={}, count=count, draws=0)
    figures = drawn.figures | scores.real
    known = {name: figure for name, figure in figures.items() if name in scores.figures}
    return drawn.model_copy(update={"figures": known})


def accumulated(
    by: Yardstick,
    batches: Iterable[Tensor],
    labels: Tensor | None,
    *,
    keep: bool,
    judge: Judge | None,
) -> ScoredImages:
    """The merged moments of all batches, and their features if `keep`.

    `labels` (N,) are those of all batches.
    """
    size = by.reference.mean.numel()
    moments: Moments | None = None
    kept: list[Features] = []
    judged: list[Tensor] = []
    for batch in batches:
        check_images(batch)
        features = by.extractor(batch)
        if features.values.shape[1] != size:
            raise UserError(
                f"reference {by.reference.name} has features of {size} dimensions, but "
                f"{by.extractor.name} gives {features.values.shape[1]}: build it again with this "
                "extractor"
            )
        found = Moments.of(features.values)
        moments = found if moments is None else moments.merged(found)
        if keep:
            kept.append(features)
        verdict = None if judge is None else judge.classifier(batch).logits
        if verdict is not None:
            judged.append(verdict)
    if moments is None:
        raise UserError("a measurement needs at least 2 samples, got none")
    return ScoredImages(
        moments,
        Features.joined(kept) if keep else None,
        labels,
        torch.cat(judged) if judged else None,
    )


def environment() -> dict[str, Any]:
    """The versions and the machine that a figure was measured with."""
    return {
        "underone": underone.__version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
