"""Class consistency: how often a classifier assigns a generated image the class asked for."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from underone.metrics.uncertainty import ConfidenceInterval, wilson


@dataclass(frozen=True)
class Proportion:
    """`successes` of `count`, 0 <= successes <= count, count >= 1."""

    successes: int
    count: int

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 <= self.successes <= self.count:
            raise ValueError(
                "a proportion needs 0 <= successes <= count, count >= 1, got "
                f"{self.successes} of {self.count}"
            )

    @property
    def value(self) -> float:
        """successes / count, in [0, 1]."""
        return self.successes / self.count

    @property
    def interval(self) -> ConfidenceInterval:
        """Wilson's 95 % interval."""
        return wilson(self.successes, self.count)


@dataclass(frozen=True)
class ClassAccuracy:
    """How many images each of C classes has, and how many of them a classifier gets right."""

    correct: tuple[int, ...]
    totals: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.correct) != len(self.totals):
            raise ValueError(
                "correct and totals must be of the same classes, got "
                f"{len(self.correct)} and {len(self.totals)}"
            )
        if any(not 0 <= right <= total for right, total in self._pairs()):
            raise ValueError(f"counts must be 0 <= correct <= total: {self.correct}, {self.totals}")
        if not any(self.totals):
            raise ValueError("an accuracy needs at least one image")

    @classmethod
    def of(cls, logits: Tensor, labels: Tensor) -> "ClassAccuracy":
        """From logits (N, C) and integer labels (N,) in 0..C-1; of equal logits the first wins.

        The null label C, which asks for no class, raises `ValueError`, as do NaN logits.
        """
        if logits.ndim != 2 or labels.shape != logits.shape[:1]:
            raise ValueError(
                "logits must be (N, C) and labels (N,), got "
                f"{tuple(logits.shape)} and {tuple(labels.shape)}"
            )
        classes = logits.shape[1]
        if labels.is_floating_point() or ((labels < 0) | (labels >= classes)).any():
            raise ValueError(f"labels must be integers in 0..{classes - 1}")
        if logits.isnan().any():
            raise ValueError("logits hold NaN")
        labels = labels.long()
        right = labels[logits.argmax(dim=1) == labels]
        correct = right.bincount(minlength=classes).tolist()
        return cls(tuple(correct), tuple(labels.bincount(minlength=classes).tolist()))

    @property
    def per_class(self) -> tuple[Proportion | None, ...]:
        """The accuracy on each class; None for a class without images."""
        return tuple(Proportion(right, total) if total else None for right, total in self._pairs())

    @property
    def micro(self) -> Proportion:
        """The accuracy on all images, so that a class weighs as much as it has images.

        Where the number of images of each class is fixed rather than random, the true spread is a
        little below what the interval allows for.
        """
        return Proportion(sum(self.correct), sum(self.totals))

    @property
    def macro(self) -> float:
        """The plain mean over the classes that have images; `micro` if they have equally many."""
        present = [proportion.value for proportion in self.per_class if proportion]
        return sum(present) / len(present)

    def _pairs(self) -> Iterator[tuple[int, int]]:
        return zip(self.correct, self.totals, strict=True)


@dataclass(frozen=True)
class ClassConsistency:
    """A classifier's accuracy on generated images, and on real held-out ones.

    `generated` above `real` is not an advantage: it means that the images are more typical of their
    classes than real ones, which guidance brings about at the cost of diversity.
    """

    generated: ClassAccuracy
    real: ClassAccuracy

    def __post_init__(self) -> None:
        generated, real = len(self.generated.totals), len(self.real.totals)
        if generated != real:
            raise ValueError(
                "both accuracies must be of the same classifier, got "
                f"{generated} classes generated and {real} real"
            )


def class_consistency(logits: Tensor, labels: Tensor, real: ClassAccuracy) -> ClassConsistency:
    """share of argmax_c f(x)_c = y over generated images x that were asked to be of class y.

    `logits` (N, C) are f(x), `labels` (N,) the classes y asked for, `real` the accuracy of the
    same f on held-out real images. A classifier that guided the generation measures its own
    influence, and one whose features FID is measured in is not independent: use another. Not to be
    confused with the classification accuracy score (Ravuri and Vinyals 2019), which trains a
    classifier on generated images and tests it on real ones.
    """
    return ClassConsistency(ClassAccuracy.of(logits, labels), real)
