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
    """A classifier that is asked which class it sees, and its accuracy on held-out real images.

    Neither the extractor nor a classifier that guided the samples: it would flatter them.
    """

    classifier: Extractor
    real: ClassAccuracy

    @classmethod
    def of(cls, classifier: Extractor, reference: Reference) -> "Judge":
        """A classifier with its own reference, whose held-out images it has looked at already."""
        check_extractor(classifier, reference)
        held_out = reference.held_out
        if held_out is None or held_out.logits is None or held_out.labels is None:
            raise UserError(
                f"reference {reference.name} holds no class logits of held-out images: "
                "a judge is a classifier, and its reference has a held-out split"
            )
        return cls(classifier, ClassAccuracy.of(held_out.logits, held_out.labels))


@dataclass(frozen=True, eq=False)
class Yardstick:
    """An extractor, and the real images in its features; `UserError` where they do not belong.

    `judge` is what class consistency asks. `train` (M, D) are the features of all training images,
    which memorisation looks for copies among; float16, as the reference's are.
    """

    extractor: Extractor
    reference: Reference
    judge: Judge | None = None
    train: Tensor | None = None

    def __post_init__(self) -> None:
        check_extractor(self.extractor, self.reference)


def check_extractor(extractor: Extractor, reference: Reference) -> None:
    """A `UserError` where the reference was made in the features of another extractor."""
    origin = reference.origin
    if origin.extractor_sha256 not in (extractor.sha256, UNRECORDED):
        raise UserError(
            f"reference {reference.name} was made with another extractor "
            f"({origin.extractor} {origin.extractor_sha256[:12]}) than the one given "
            f"({extractor.name} {extractor.sha256[:12]}): figures of different extractors never mix"
        )
