"""Fill the zoo: `python -m underone.zoo.ship RUN`, for a finished run's folder.

Weights become float16, and the scores of a shipped model are measured with those weights.
"""

import argparse
from pathlib import Path

import torch

from underone.checkpoint import (
    DiffusionConfig,
    NoisyClassifierCheckpointConfig,
    VAECheckpointConfig,
    VAEModel,
    Weights,
    load_config,
    load_tensors,
    save_config,
    save_weights,
    weights_file,
)
from underone.data import Dataset, load_dataset
from underone.files import write_text
from underone.generation import DECODER, Draw, Setting, generate, usual_labels
from underone.metrics import Yardstick, build_reference, measure, save_reference
from underone.shipped import zoo_folder
from underone.training.calibration import calibrate
from underone.training.card import model_card
from underone.training.noisy_accuracy import noisy_accuracy
from underone.zoo import find_reference, load_extractor, load_generative_model

SHIPPED: tuple[Weights, ...] = ("model", "weak")
CARD_SETTINGS = (Setting("ddim", 20), Setting("ddpm-small", 50))


def ship(run: Path, samples: int) -> None:
    """Put a run's model into the zoo, with its card or, for an extractor, its reference."""
    config = load_config(run)
    folder = zoo_folder() / run.name
    save_config(folder, config)
    for weights in SHIPPED:
        if weights_file(run, weights).exists():
            tensors = load_tensors(weights_file(run, weights))
            save_weights(folder, tensors, weights, dtype=torch.float16)
        else:
            weights_file(folder, weights).unlink(missing_ok=True)
    write_text(folder / "log.jsonl", (run / "log.jsonl").read_text(encoding="utf-8"))
    if isinstance(config, DiffusionConfig | VAECheckpointConfig):
        write_card(folder, samples)
        return
    test = load_dataset(config.data.name, "test")
    if isinstance(config, NoisyClassifierCheckpointConfig):
        noisy_accuracy(folder, test)
        return
    train = load_dataset(config.data.name, "train")
    calibrate(folder, train, test)
    ship_reference(run.name, train, test)


def ship_reference(extractor: str, train: Dataset, test: Dataset) -> None:
    """The reference of a shipped extractor, named after its data if it is the first one."""
    name = train.name if extractor == f"{train.name}-classifier" else extractor
    reference = build_reference(name, train, test, load_extractor(extractor))
    save_reference(reference, zoo_folder() / "references" / f"{name}.npz")


def write_card(folder: Path, count: int) -> None:
    """Measure samples at `CARD_SETTINGS`, or as a VAE is drawn, and write the model's card."""
    model = load_generative_model(folder.name)
    reference = find_reference(model.config.data.name)
    extractor = load_extractor(reference.origin.extractor)
    labels, scores = usual_labels(model), {}
    for setting in (Setting(DECODER),) if isinstance(model, VAEModel) else CARD_SETTINGS:
        samples = generate(model, setting, Draw(count, labels=labels))
        result = measure(samples, Yardstick(extractor, reference))
        floor = "" if result.floor is None else f"; floor {result.floor.fid:.3f}"
        key = f"FID@{extractor.name}, {setting.sampler}, {setting.steps} steps, w = 0"
        scores[key] = (
            f"{result.fid:.3f} ({count:,} {labels} samples, seed 0, "
            f"{samples.protocol['precision']}{floor})"
        )
    write_text(folder / "README.md", model_card(folder, load_config(model.folder), scores))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument(
        "--samples", type=int, default=5000, help="to measure a generative model by"
    )
    arguments = parser.parse_args()
    ship(arguments.run, arguments.samples)
