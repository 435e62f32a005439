"""The classes of edited images, which must be ones that the model knows."""

from torch import Tensor

from underone.checkpoint import DiffusionModel
from underone.data import SampleSet
from underone.errors import UserError
from underone.generation import Draw, Setting, class_labels, uses_labels

# The label policy, beside those of `Draw`, that gives each image its own class.
SOURCE_LABELS = "source"


def classes_of(
    model: DiffusionModel, setting: Setting, source: SampleSet, draw: Draw
) -> Tensor | None:
    """The label that `model` is given with each image, (N,) int64, or None where it needs none.

    `draw.labels` is a policy of `Draw`, or "source": the labels of the images themselves. Missing
    labels, and ones that are not classes of the model, are a `UserError`.
    """
    if model.num_classes is None or not uses_labels(model, setting):
        return None
    if draw.labels != SOURCE_LABELS:
        return class_labels(model, draw)
    if source.labels is None:
        raise UserError(
            f"{model.name} needs the class of each image, and these have no labels: give "
            "--labels, like --labels 0,3,3, or use --guidance -1"
        )
    if (source.labels >= model.num_classes).any():
        raise UserError(
            f"an image has the label {int(source.labels.max())}, which is not a class of "
            f"{model.name}: its classes are 0..{model.num_classes - 1}; give others with --labels"
        )
    return source.labels
