"""Measuring whole sample sets: from a file, or from a model as the samples come."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from underone.checkpoint import GenerativeModel
from underone.data import (
    Dataset,
    SampleSet,
    load_dataset,
    read_arrays,
    save_picture,
    tile,
    write_arrays,
)
from underone.data.load import DATASET_NAMES
from underone.data.locate import cache_folder
from underone.diffusion import count_evaluations, per_image
from underone.errors import UserError
from underone.generation import (
    Draw,
    Precision,
    Setting,
    generate_batches,
    labels_of,
    subject,
)
from underone.metrics import (
    Extractor,
    Measurement,
    Reference,
    Yardstick,
    features_of,
    measure,
    measure_batches,
)
from underone.metrics.extractor import BATCH
from underone.metrics.measurement import FloorRecord, joined
from underone.metrics.neighbours import nearest

OnImages = Callable[[int], object]


def evaluate_samples(
    samples: SampleSet, by: Yardstick, metrics: Sequence[str], blocks: int = 1
) -> Measurement:
    """The `metrics` of a sample set, whole or in `blocks` equal parts of it.

    N is then that of a part. Parts follow the order of the samples, so that they are seed blocks
    where the samples lie in the order of their seeds. A number of samples that does not divide is
    a `UserError`.
    """
    if blocks < 1 or len(samples) % blocks:
        raise UserError(
            f"{len(samples)} samples do not divide into {blocks} equal blocks: choose another "
            "number of --blocks"
        )
    size = len(samples) // blocks
    parts = [_part(samples, start, start + size) for start in range(0, len(samples), size)]
    if any(not _alike(part.labels, parts[0].labels) for part in parts):
        raise UserError(
            f"the {blocks} blocks hold other classes than each other, as of samples sorted by "
            "class: shuffle them, or measure them in one block"
        )
    found: list[Measurement] = []
    for part in parts:
        known = found[0].floor if found and _same_counts(part.labels, parts[0].labels) else None
        found.append(measure(part, by, metrics, known))
    return joined(found)


def _same_counts(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two sets have as many images of each class, so that their floor is the same."""
    if one is None or other is None:
        return one is other
    return torch.equal(one.sort().values, other.sort().values)


def _alike(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two parts have nearly as many images of each class, as of one label policy."""
    if one is None or other is None:
        return True
    size = int(max(one.max(), other.max())) + 1
    counts = torch.stack([one.bincount(minlength=size), other.bincount(minlength=size)]).double()
    counts = counts[:, counts.sum(0) > 0]
    # Of random labels this is about chi-squared: five of its standard deviations are allowed.
    statistic = ((counts[0] - counts[1]).square() / counts.sum(0)).sum()
    freedom = max(1, counts.shape[1] - 1)
    return float(statistic) <= freedom + 5 * (2 * freedom) ** 0.5


def _part(samples: SampleSet, start: int, stop: int) -> SampleSet:
    return SampleSet(
        samples.images[start:stop],
        None if samples.labels is None else samples.labels[start:stop],
        None if samples.seeds is None else samples.seeds[start:stop],
        samples.protocol,
    )


@dataclass(frozen=True)
class Live:
    """Samples that a model draws while they are measured: `blocks` draws, one after another."""

    model: GenerativeModel
    setting: Setting
    draw: Draw
    precision: Precision = "auto"
    blocks: int = 1

    def __post_init__(self) -> None:
        if self.blocks < 1:
            raise UserError(f"--blocks must be at least 1, got {self.blocks}")

    @property
    def draws(self) -> list[Draw]:
        """The draw of each block: disjoint ranges of sample indices under one seed."""
        first, count = self.draw.first, self.draw.count
        return [replace(self.draw, first=first + block * count) for block in range(self.blocks)]


def evaluate_model(
    live: Live, by: Yardstick, metrics: Sequence[str], on_images: OnImages = lambda images: None
) -> Measurement:
    """The `metrics` of what a model draws; `on_images` hears of each batch's size."""
    found: list[Measurement] = []
    first = labels_of(live.model, live.setting, live.draw)
    for draw in live.draws:
        labels = labels_of(live.model, live.setting, draw)
        known = found[0].floor if found and _same_counts(labels, first) else None
        found.append(_one_draw(live, draw, by, metrics, on_images, known))
    return joined(found)


def _one_draw(
    live: Live,
    draw: Draw,
    by: Yardstick,
    metrics: Sequence[str],
    on_images: OnImages,
    known_floor: FloorRecord | None,
) -> Measurement:
    model, setting, precision = live.model, live.setting, live.precision
    labels = labels_of(model, setting, draw)
    described = subject(model, setting, draw, precision)

    # What an analytic sampler must know is found out before the count begins.
    drawn = generate_batches(model, setting, draw, precision=precision)

    def batches() -> Iterator[Tensor]:
        for images in drawn:
            on_images(len(images))
            yield images

    with count_evaluations() as counter:
        measurement = measure_batches(
            batches(),
            labels,
            described,
            by,
            metrics,
            streamed=live.blocks > 1,
            known_floor=known_floor,
        )
    evaluations = per_image(counter, draw.count)
    return measurement.model_copy(update={"subject": described | {"evaluations": evaluations}})


def training_images(reference: Reference, root: Path | None = None) -> Dataset:
    """The images of the training split of a reference's data set; `UserError` if not at hand.

    `root` is where a named data set's files are, or else the folder of images itself.
    """
    origin = reference.origin
    if origin.data in DATASET_NAMES:
        images = _named(origin.data, root)
    elif root is not None:
        images = load_dataset(str(root), "train")
    else:
        raise UserError(
            f"reference {reference.name} was made of the images of {origin.data}: name the folder "
            "of its training images with --root"
        )
    if origin.split == "train" and images.sha256 != origin.data_sha256:
        raise UserError(
            f"the {origin.data} at hand is other data than reference {reference.name} was made of"
        )
    return images


def _named(data: str, root: Path | None) -> Dataset:
    """A named data set, or the folder by class that is called like one."""
    try:
        return load_dataset(data, "train", root)
    except UserError:
        if root is not None:
            with suppress(UserError):
                return load_dataset(str(root), "train")
        raise


def among_training_images(
    by: Yardstick, images: Dataset, *, flipped: bool, on_images: OnImages = lambda images: None
) -> Yardstick:
    """A yardstick with the features of the images that memorisation looks for copies of.

    And of their mirror images, where models were trained on these: `flipped`.
    """
    train = training_features(by.extractor, images, on_images)
    mirrored = training_features(by.extractor, images.mirrored, on_images) if flipped else None
    return replace(by, train=train, mirrored=mirrored)


def training_features(
    extractor: Extractor, images: Dataset, on_images: OnImages = lambda images: None
) -> Tensor:
    """The features (M, D) of all training images, float32; kept for the next time.

    They are found again by what decides them, the hashes of images and extractor.
    """
    name = f"{images.sha256[:24]}-{extractor.sha256[:24]}.npz"
    path = cache_folder() / "features" / name
    if path.exists():
        with suppress(UserError, KeyError):  # a damaged file is made anew
            stored = read_arrays(path, {"features"}.intersection, "features", "features")
            on_images(len(images))
            return torch.from_numpy(stored["features"])
    parts = []
    for batch in images.images.split(BATCH):
        parts.append(extractor(batch).values)
        on_images(len(batch))
    features = torch.cat(parts)
    with suppress(OSError):  # where nothing can be kept they are computed again next time
        write_arrays(path, {"features": features.numpy()})
    return features


PANEL_ROWS, PANEL_NEIGHBOURS = 10, 5


def write_panel(path: Path, samples: Tensor, by: Yardstick, images: Dataset) -> None:
    """A PNG of the samples (N, C, H, W) nearest to training `images`, each beside its nearest.

    `by` has looked among these (`among_training_images`). The `PANEL_ROWS` samples that are nearest
    to any come first in their rows, nearest first, each followed by its `PANEL_NEIGHBOURS` nearest:
    a copy among the samples is in the first rows.
    """
    if by.train is None:
        raise ValueError("the yardstick knows no training images")
    train, shown = by.train, images
    if by.mirrored is not None:
        train, shown = torch.cat([train, by.mirrored]), images.with_mirrored
    if samples.shape[1:] != shown.images.shape[1:]:
        raise UserError(
            f"samples are {tuple(samples.shape[1:])} and training images "
            f"{tuple(shown.images.shape[1:])} (channels, height, width): no panel shows both"
        )
    features = features_of(by.extractor, samples).values
    found = nearest(features, train, count=min(PANEL_NEIGHBOURS, len(train)))
    rows = found.distances[:, 0].argsort()[:PANEL_ROWS].tolist()
    beside = [torch.cat([samples[row][None], shown.images[found.indices[row]]]) for row in rows]
    save_picture(tile(torch.cat(beside), columns=1 + PANEL_NEIGHBOURS, scale=2), path)
