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
    training, data = config.training, config.data
    average = training.moving_average
    if isinstance(config, DiffusionConfig):
        kind = "An unconditional" if config.network.classes is None else "A class-conditional"
        what = (
            f"{kind} diffusion model of {data.name} "
            f"({config.prediction.name} prediction, {config.schedule.name} schedule, "
            f"T = {config.schedule.steps})."
        )
    elif isinstance(config, VAECheckpointConfig):
        what = (
            f"A class-conditional variational autoencoder of {data.name} "
            f"({config.network.latent} latent dimensions)."
        )
    elif isinstance(config, EncoderCheckpointConfig):
        what = f"A convolutional encoder of {data.name}, trained without its labels (VICReg)."
    elif isinstance(config, NoisyClassifierCheckpointConfig):
        what = (
            f"A classifier of noisy images of {data.name}, to guide diffusion models of them "
            f"({config.schedule.name} schedule, T = {config.schedule.steps})."
        )
    else:
        what = f"A {_ARCHITECTURES[config.network.name]} classifier of {data.name}."
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
    if isinstance(config, VAECheckpointConfig) or taught is not None:
        command = f"underone sample {called} --count 100 --out samples.png"
    elif isinstance(config, DiffusionConfig):
        command = (
            f"underone sample {called} --sampler ddim --steps 20 --count 100 --out samples.png"
        )
    elif isinstance(config, NoisyClassifierCheckpointConfig):
        command = f"underone sample MODEL --form classifier,by={called} --guidance 1"
    else:
        command = (
            f"underone reference build {data.name} --extractor {called} --out {name}.npz\n"
            f"underone evaluate SAMPLES --reference {name}.npz"
        )
    return f"# {name}\n\n{what}\n\n| | |\n| --- | --- |\n{table}\n\n```\n{command}\n```\n"
