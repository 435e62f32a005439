"""The scale of a trained network's features, which makes it an extractor, fixed for good."""

import math
from pathlib import Path

import torch
from torch import Tensor

from underone.checkpoint import FeatureModel, load_checkpoint, save_config
from underone.data import Dataset
from underone.errors import UserError
from underone.files import write_text
from underone.training.card import model_card

# FID grows with the square of the features' scale. Where features are scaled so that their
# covariance over the training set has this trace, FIDs are of one order of magnitude.
FEATURE_TRACE = 64.0
NEIGHBOURS = 20


def calibrate(
    folder: Path, train: Dataset, test: Dataset | None, device: torch.device | str = "cpu"
) -> dict[str, float]:
    """Write a network's `feature_scale`, and find its accuracy on `test`, if given, for its card.

    An encoder, which knows no classes, is scored by guessing from the nearest training images.
    """
    model = load_checkpoint(folder, device=device)
    if not isinstance(model, FeatureModel):
        raise UserError(f"{folder} holds no classifier or encoder: there is nothing to calibrate")
    features, _ = model.features_and_logits(train.images)
    trace = features.double().var(dim=0).sum().item() if len(features) > 1 else 0.0
    if not 0 < trace < math.inf:
        raise UserError(
            f"all training images have the same features in {folder}: nothing can be measured in "
            "them; train on more and different images"
        )
    scale = math.sqrt(FEATURE_TRACE / trace)
    config = model.config.model_copy(update={"feature_scale": scale})
    save_config(folder, config)
    if test is None:
        return {}
    there, logits = model.features_and_logits(test.images)
    guessed = by_neighbours(there, features, train.labels) if logits is None else logits.argmax(1)
    accuracy = (guessed == test.labels).double().mean().item()
    of_what = f"test accuracy of {NEIGHBOURS} neighbours" if logits is None else "test accuracy"
    scores = {of_what: f"{accuracy:.2%}", "feature scale": f"{scale:.6g}"}
    write_text(folder / "README.md", model_card(folder, config, scores))
    return {"test_accuracy": accuracy}


def by_neighbours(features: Tensor, known: Tensor, labels: Tensor) -> Tensor:
    """The commonest label (N,) among each of features' (N, D) nearest `known` (M, D) by angle."""
    known = torch.nn.functional.normalize(known, dim=1)
    votes = []
    for part in torch.nn.functional.normalize(features, dim=1).split(500):
        nearest = (part @ known.T).topk(min(NEIGHBOURS, len(known)), dim=1).indices
        votes.append(labels[nearest].mode(dim=1).values)
    return torch.cat(votes)
