"""Faults planted in real images, and which metric sees which.

Backs the table in docs/metrics.md. Held-out FashionMNIST images stand for the samples of a perfect
model; then they are spoilt in one way at a time, and measured with every metric, and with FID in
the features of every shipped extractor. Three disjoint sets of real images say how much a figure
varies by itself: a fault counts as seen where a figure leaves their 95 % prediction interval,
mean +- 4.303 sqrt(1 + 1/3) sd (Student's t with 2 degrees of freedom). Of figures that are no
different from real images' one in twenty leaves it by chance.

    python benchmarks/planted_faults.py          measure, about 5 minutes; write the JSON
    python benchmarks/planted_faults.py table    print the table of what was measured
"""

import json
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from measuring import environment
from torch import Tensor
from torch.nn import functional

from underone.data import Dataset, SampleSet, balanced_indices, load_dataset
from underone.evaluation import training_features, training_images
from underone.metrics import METRICS, Yardstick, measure
from underone.metrics.uncertainty import student_t_factor
from underone.zoo import find_judge, load_yardstick

RESULTS = Path(__file__).with_suffix(".json")
COUNT, SETS, NULL_SETS = 2000, 5, 3
FURTHER = ("fashion-mnist-transformer", "fashion-mnist-encoder")
NULL = "real images"

# The columns of the table: a figure, its title, digits.
COLUMNS = {
    "fid": ("FID", 3),
    "fid-held-out": ("FID, held out", 3),
    "intra-fid": ("intra-FID", 3),
    "kid": ("KID", 5),
    "inception-score": ("IS", 2),
    "precision": ("precision", 3),
    "recall": ("recall", 3),
    "density": ("density", 3),
    "coverage": ("coverage", 3),
    "consistency": ("consistency", 3),
    "memorised-share": ("memorised", 3),
    "authentic-percent": ("AuthPct", 1),
    "data-copying": ("C_T", 1),
    **{f"fid@{name}": (f"FID@{name.removeprefix('fashion-mnist-')}", 3) for name in FURTHER},
}


@dataclass(frozen=True)
class Images:
    """Images (N, 1, 28, 28) with the labels (N,) that they were asked for."""

    images: Tensor
    labels: Tensor


Fault = Callable[[Images, Images, Dataset], Images]


def collapse(real: Images, more: Images, train: Dataset) -> Images:
    """Two images of each class, over and over."""
    first = torch.cat([(real.labels == label).nonzero()[:2, 0] for label in range(10)])
    again = first.repeat(len(real.images) // len(first))
    return Images(real.images[again], real.labels[again])


def drop(real: Images, more: Images, train: Dataset) -> Images:
    """Of every class only the darker half of twice as many images."""
    images, labels = torch.cat([real.images, more.images]), torch.cat([real.labels, more.labels])
    kept = []
    for label in range(10):
        members = (labels == label).nonzero()[:, 0]
        brightness = images[members].float().mean(dim=(1, 2, 3))
        kept.append(members[brightness.argsort()[: len(members) // 2]])
    chosen = torch.cat(kept)
    return Images(images[chosen], labels[chosen])


def swap(real: Images, more: Images, train: Dataset) -> Images:
    """Each class under the name of the one before it."""
    return Images(real.images, (real.labels + 9) % 10)


def blur(real: Images, more: Images, train: Dataset) -> Images:
    """Every pixel the mean of its 3 x 3 neighbourhood."""
    pixels = functional.avg_pool2d(real.images.float(), 3, 1, 1, count_include_pad=False)
    return Images(pixels.round().to(torch.uint8), real.labels)


def copy(real: Images, more: Images, train: Dataset) -> Images:
    """Training images."""
    chosen = balanced_indices(train.labels, 10, len(real.images), seed=1)
    return Images(train.images[chosen], train.labels[chosen])


def shift(real: Images, more: Images, train: Dataset) -> Images:
    """One pixel to the right."""
    moved = functional.pad(real.images, (1, 0, 0, 0))[..., :-1]
    return Images(moved, real.labels)


FAULTS: dict[str, Fault] = {
    "mode collapse: two images a class": collapse,
    "mode dropping: the darker half of each class": drop,
    "labels swapped": swap,
    "blur, 3 x 3": blur,
    "copies of training images": copy,
    "shift by one pixel": shift,
}
# The figures that should see each.
EXPECTED: dict[str, Sequence[str]] = {
    "mode collapse: two images a class": ("recall", "coverage"),
    "mode dropping: the darker half of each class": ("recall", "coverage"),
    "labels swapped": ("intra-fid", "consistency"),
    "blur, 3 x 3": ("fid", "kid", "precision"),
    "copies of training images": ("memorised-share", "authentic-percent", "data-copying"),
    "shift by one pixel": ("fid", "kid"),
}


def split_yardstick(name: str, held_out: Tensor, train: Tensor | None) -> Yardstick:
    """The shipped yardstick, its held-out images without those that stand for samples."""
    shipped = load_yardstick(name)
    kept = shipped.reference.kept_held_out
    assert kept is not None
    reference = replace(shipped.reference, kept_held_out=kept.at(held_out))
    judge = None if train is None else find_judge(shipped.reference)
    return Yardstick(shipped.extractor, reference, judge, train)


def figures(images: Images, by: Yardstick, others: Mapping[str, Yardstick]) -> dict[str, float]:
    samples = SampleSet(images.images, images.labels, protocol={"labels": "balanced"})
    found = measure(samples, by, tuple(METRICS)).figures
    values = {name: found[name].value for name in COLUMNS if name in found}
    for name, other in others.items():
        values[f"fid@{name}"] = measure(samples, other).fid
    return values


def run() -> dict[str, Any]:
    """All that is measured, as the JSON file has it."""
    test = load_dataset("fashion-mnist", "test")
    order = balanced_indices(test.labels, 10, len(test), seed=0)
    sets = order.split(COUNT)
    held_out = torch.cat(sets[NULL_SETS:])
    shipped = load_yardstick("fashion-mnist")
    train = training_images(shipped.reference)
    by = split_yardstick("fashion-mnist", held_out, training_features(shipped.extractor, train))
    others = {name: split_yardstick(name, held_out, None) for name in FURTHER}
    real = [Images(test.images[part], test.labels[part]) for part in sets]
    nulls = [figures(part, by, others) for part in real[:NULL_SETS]]
    faults = {}
    for name, fault in FAULTS.items():
        faults[name] = figures(fault(real[0], real[1], train), by, others)
        print(name, faults[name], file=sys.stderr)
    return {"environment": environment(), "count": COUNT, NULL: nulls, "faults": faults}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % prediction interval of one more value."""
    factor = student_t_factor(0.95, len(values) - 1) * math.sqrt(1 + 1 / len(values))
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    return mean - factor * deviation, mean + factor * deviation


def seen(results: Mapping[str, Any], fault: str, column: str) -> bool:
    """Whether a fault's figure lies outside those of real images."""
    low, high = interval([null[column] for null in results[NULL]])
    value: float = results["faults"][fault][column]
    return not low <= value <= high


def table(results: Mapping[str, Any]) -> str:
    """One row a fault, what is seen in bold."""
    lines = [
        f"| {results['count']:,} images | " + " | ".join(t for t, _ in COLUMNS.values()) + " |",
        "| --- |" + " --- |" * len(COLUMNS),
        "| " + NULL + " | " + " | ".join(_nulls(results[NULL])) + " |",
    ]
    for fault, values in results["faults"].items():
        cells = [
            f"**{values[name]:.{digits}f}**"
            if seen(results, fault, name)
            else f"{values[name]:.{digits}f}"
            for name, (_, digits) in COLUMNS.items()
        ]
        lines.append(f"| {fault} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _nulls(nulls: Sequence[Mapping[str, float]]) -> list[str]:
    cells = []
    for name, (_, digits) in COLUMNS.items():
        values = [null[name] for null in nulls]
        mean, deviation = statistics.fmean(values), statistics.stdev(values)
        cells.append(f"{mean:.{digits}f} ± {deviation:.{digits}f}")
    return cells


def main() -> None:
    if sys.argv[1:] == ["table"]:
        print(table(json.loads(RESULTS.read_text())))
        return
    results = run()
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
