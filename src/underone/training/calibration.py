"""What makes a trained classifier an extractor: the scale of its features, fixed for good."""

from pathlib import Path

import torch

from underone.checkpoint import ClassifierModel, load_checkpoint, save_config
from underone.data import Dataset
from underone.errors import UserError
from underone.files import write_text
from underone.training.card import model_card

# FID grows with the square of the features' scale. Scaled so that the trace of their covariance
# over the training set is this, extractors give FIDs of one order of magnitude.
FEATURE_TRACE = 64.0


def calibrate(
    folder: Path, train: Dataset, test: Dataset | None, device: torch.device | str = "cpu"
) -> dict[str, float]:
    """Write a classifier's `feature_scale` and card; its accuracy on `test`, if that is given."""
    model = load_checkpoint(folder, device=device)
    if not isinstance(model, ClassifierModel):
        raise UserError(f"{folder} holds no classifier: there is nothing to calibrate")
    features, _ = model.features_and_logits(train.images)
    scale = (FEATURE_TRACE / features.double().var(dim=0).sum()).sqrt().item()
    config = model.config.model_copy(update={"feature_scale": scale})
    save_config(folder, config)
    if test is None:
        return {}
    _, logits = model.features_and_logits(test.images)
    accuracy = (logits.argmax(dim=1) == test.labels).double().mean().item()
    scores = {"test accuracy": f"{accuracy:.2%}", "feature scale": f"{scale:.6g}"}
    write_text(folder / "README.md", model_card(folder.name, config, scores))
    return {"test_accuracy": accuracy}
