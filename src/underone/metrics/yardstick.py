"""What samples are measured with and against."""

from dataclasses import dataclass

from torch import Tensor

from underone.errors import UserError
from underone.metrics.consistency import ClassAccuracy
from underone.metrics.extractor import Extractor
from underone.metrics.reference import Reference
from underone.metrics.reference_file import UNRECORDED


@dataclass(frozen=True, eq=False)
class Judge:
    """A classifier that judges the class of images, and its accuracy on held-out real images.

    It must be neither the extractor nor a classifier that guided the samples: those would flatter.
    """

    classifier: Extractor
    real: ClassAccuracy
    data_sha256: str

    @classmethod
    def of(cls, classifier: Extractor, reference: Reference) -> "Judge":
        """From a classifier and its own reference, which holds its logits of held-out images."""
        check_extractor(classifier, reference)
        held_out = reference.held_out
        logits, labels = (None, None) if held_out is None else (held_out.logits, held_out.labels)
        if logits is None or labels is None or not reference.of_training_images:
            raise UserError(
                f"reference {reference.name} holds no class logits of held-out images: a judge is "
                "a classifier, and its reference is of training images, with others held out"
            )
        try:
            real = ClassAccuracy.of(logits, labels)
        except ValueError as error:
            raise UserError(f"{classifier.name} cannot judge this data: {error}") from None
        return cls(classifier, real, reference.origin.data_sha256)


@dataclass(frozen=True, eq=False)
class Yardstick:
    """An extractor, and a reference made with it; a `UserError` if they do not belong together.

    `judge` is the classifier for class consistency. `train` (M, D) are the features of all training
    images, among which memorisation looks for copies; `mirrored` (M, D) those of their mirror
    images, where the model was trained on these as well.
    """

    extractor: Extractor
    reference: Reference
    judge: Judge | None = None
    train: Tensor | None = None
    mirrored: Tensor | None = None

    def __post_init__(self) -> None:
        check_extractor(self.extractor, self.reference)
        if self.judge is None:
            return
        if self.judge.classifier.sha256 == self.extractor.sha256:
            raise UserError(
                f"{self.extractor.name} cannot judge what its own features measure: choose another "
                "classifier's reference as --judge"
            )
        data = self.reference.origin.data_sha256
        if self.reference.of_training_images and self.judge.data_sha256 != data:
            raise UserError(
                f"{self.judge.classifier.name} cannot judge {self.reference.origin.data}: it was "
                "trained on other data"
            )


def check_extractor(extractor: Extractor, reference: Reference) -> None:
    """A `UserError` if the reference was made with another extractor."""
    origin = reference.origin
    if origin.extractor_sha256 not in (extractor.sha256, UNRECORDED):
        raise UserError(
            f"reference {reference.name} was made with another extractor "
            f"({origin.extractor} {origin.extractor_sha256[:12]}) than the one given "
            f"({extractor.name} {extractor.sha256[:12]}): figures of different extractors never mix"
        )
