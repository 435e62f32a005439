"""The model card that is written beside the weights."""

import shlex
from pathlib import Path

from underone.checkpoint import (
    CheckpointConfig,
    DiffusionConfig,
    EncoderCheckpointConfig,
    NoisyClassifierCheckpointConfig,
    VAECheckpointConfig,
)
from underone.shipped import zoo_folder

_ARCHITECTURES = {"classifier": "convolutional", "transformer": "transformer"}


def model_card(folder: Path, config: CheckpointConfig, scores: dict[str, str]) -> str:
    """A README.md for a checkpoint folder: what it is, how it was trained, what it scores."""
    name = folder.name
    # What is shipped is called by its name, all else by where it is.
    called = name if folder.parent == zoo_folder() else shlex.quote(str(folder))
    training = config.training
    average = training.moving_average
    what, command = _what_and_command(config, name, called)
    rows = {
        "recipe": training.recipe,
        "steps x batch": f"{training.steps} x {training.batch_size}",
        "images seen": f"{training.images_seen:,}",
        "training time": f"{training.seconds / 60:.1f} minutes",
        "label dropout": f"{training.label_dropout:g}" if training.label_dropout else "none",
        "moving average": "none" if average is None else f"power function, width {average:g}",
        "architecture revision": str(config.network.revision),
        "torch": training.torch,
        **scores,
    }
    taught = config.distillation if isinstance(config, DiffusionConfig) else None
    if taught is not None:
        rows["teacher"] = f"{taught.teacher} ({taught.teacher_sha256[:16]}), {taught.method}"
        evaluations = sorted(len(path) for path in taught.paths)
        rows["evaluations"] = ", ".join(map(str, evaluations))
    if training.weak_steps is not None:
        rows["weak.safetensors"] = f"the average after {training.weak_steps} steps"
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    return f"# {name}\n\n{what}\n\n| | |\n| --- | --- |\n{table}\n\n```\n{command}\n```\n"


def _what_and_command(config: CheckpointConfig, name: str, called: str) -> tuple[str, str]:
    """What each kind of checkpoint is in a sentence, and the command that uses one `called` so."""
    data = config.data.name
    match config:
        case DiffusionConfig():
            # A distilled model has a sampler of its own.
            options = "--sampler ddim --steps 20 " if config.distillation is None else ""
            return (
                f"{_kind(config)} diffusion model of {data} ({config.prediction.name} prediction, "
                f"{config.schedule.name} schedule, T = {config.schedule.steps}).",
                f"underone sample {called} {options}--count 100 --out samples.png",
            )
        case VAECheckpointConfig():
            return (
                f"A class-conditional variational autoencoder of {data} "
                f"({config.network.latent} latent dimensions).",
                f"underone sample {called} --count 100 --out samples.png",
            )
        case NoisyClassifierCheckpointConfig():
            return (
                f"A classifier of noisy images of {data}, to guide diffusion models of them "
                f"({config.schedule.name} schedule, T = {config.schedule.steps}).",
                f"underone sample MODEL --form classifier,by={called} --guidance 1",
            )
        case EncoderCheckpointConfig():
            what = f"A convolutional encoder of {data}, trained without its labels (VICReg)."
        case _:
            what = f"A {_ARCHITECTURES[config.network.name]} classifier of {data}."
    return what, (
        f"underone reference build {data} --extractor {called} --out {name}.npz\n"
        f"underone evaluate SAMPLES --reference {name}.npz"
    )


def _kind(config: DiffusionConfig) -> str:
    return "An unconditional" if config.network.classes is None else "A class-conditional"
