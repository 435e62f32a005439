"""Folders that diffusers has written, loaded as diffusion models."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from underone.checkpoint import (
    UNKNOWN_DATA,
    DataRecord,
    DiffusionModel,
    ForeignConfig,
    ForeignNetwork,
    identity_of,
)
from underone.errors import UserError, kind_and_line
from underone.interop.documents import read_document
from underone.interop.scheduler import SCHEDULERS, read_scheduler
from underone.interop.unet2d import CLASS_NAME, WEIGHTS, UNet2D, build, read_shape
from underone.networks.precision import place

INDEX = "model_index.json"
SCHEDULER = "scheduler_config.json"
_PIPELINES = ("DDPMPipeline", "DDIMPipeline")


@dataclass(frozen=True)
class UserMetadata:
    """What a diffusers folder does not record about its model, as given by the user.

    `null`: the class that stands for no class, so that the model can be guided. `data`: the name of
    the data set it was trained on, which cannot be checked.
    """

    null: int | None = None
    data: str | None = None

    EXAMPLES: ClassVar = {"null": "10", "data": "cifar10"}


def is_diffusers_folder(folder: Path) -> bool:
    """Whether diffusers has written `folder`: a pipeline or one of its parts."""
    if (folder / INDEX).is_file():
        return True
    config = folder / "config.json"
    return config.is_file() and "_class_name" in read_document(config)


def load_diffusers(
    folder: Path, metadata: UserMetadata, title: str | None = None
) -> DiffusionModel:
    """The unconditional or class-conditional pixel model in a folder of diffusers.

    `folder` is a pipeline's (model_index.json, unet/, scheduler/), or a UNet2DModel's, with the
    scheduler_config.json in it, beside it, or in a folder `scheduler` in either place. The model's
    classes are the rows of its class embedding, without the null class that `metadata` names. No
    code in the folder is run and no pickle is opened; what is not supported raises a `UserError`.
    """
    unet, scheduler = _parts(folder)
    config = unet / "config.json"
    shape, settings = read_shape(config)
    schedule, prediction = read_scheduler(scheduler)
    rows = _rows(shape.num_class_embeds, metadata.null, config)
    real = rows if metadata.null is None else rows[:-1]
    described = ForeignConfig(
        network=ForeignNetwork(
            package=f"diffusers, {CLASS_NAME}",
            image_size=shape.image_size,
            channels=shape.in_channels,
            classes=len(real) or None,
            null_class=metadata.null,
            settings=settings,
        ),
        schedule=schedule,
        prediction=prediction,
        data=DataRecord(
            name=metadata.data or UNKNOWN_DATA, sha256=None, class_names=tuple(map(str, real))
        ),
    )
    order = torch.tensor(rows) if rows else None
    weights = unet / WEIGHTS
    unet2d, sha256 = build(config, settings, weights)
    network = UNet2D(unet2d, schedule.steps, order)
    placed = place(network, "cpu").eval().requires_grad_(False)
    _check_runs(placed, described.network, config)
    return DiffusionModel(folder, described, placed, identity_of(described, sha256), title=title)


@torch.inference_mode()
def _check_runs(network: UNet2D, shape: ForeignNetwork, config: Path) -> None:
    """A `UserError` if the network can be built but not run, as its levels do not fit together."""
    x = torch.zeros(1, shape.channels, shape.image_size, shape.image_size)
    label = None if shape.classes is None else torch.zeros(1, dtype=torch.int64)
    try:
        network(x, torch.ones(1), label)
    except Exception as error:  # whatever diffusers finds impossible only now
        raise UserError(
            f"{config}: this network cannot run on {shape.image_size}x{shape.image_size} images: "
            f"{kind_and_line(error)}"
        ) from None


def _parts(folder: Path) -> tuple[Path, Path]:
    """The folder of the network and the file of the scheduler."""
    if not folder.is_dir():
        raise UserError(f"no folder at {folder}: name one that diffusers has written")
    if (folder / INDEX).exists():
        _check_index(folder / INDEX)
        if (folder / "unet").is_dir():
            inside = folder / "scheduler"
            return folder / "unet", (inside if inside.is_dir() else folder) / SCHEDULER
        # The first pipelines on the Hub hold all files in one folder, which diffusers reads too.
    if not (folder / "config.json").exists():
        raise UserError(
            f"{folder} is not a folder of diffusers: it has neither {INDEX} nor config.json"
        )
    places = [
        place
        for beside in (folder, folder.absolute().parent)
        for place in (beside / SCHEDULER, beside / "scheduler" / SCHEDULER)
    ]
    found = next((place for place in places if place.exists()), None)
    if found is None:
        raise UserError(
            f"{folder} has no {SCHEDULER} in it or beside it, which says how its images were "
            "noised: save the scheduler it was trained with there"
        )
    return folder, found


def _check_index(path: Path) -> None:
    index = read_document(path)
    pipeline = index.get("_class_name")
    if pipeline not in _PIPELINES:
        raise UserError(
            f"{path}: the pipeline must be {' or '.join(_PIPELINES)}, got {pipeline!r}; for "
            f"another that samples a {CLASS_NAME} as they do, name the folder of that network"
        )
    parts = {name: value for name, value in index.items() if isinstance(value, list)}
    for name, value in parts.items():
        if name not in ("unet", "scheduler", "_class_name") and value != [None, None]:
            raise UserError(f"{path}: {name} is not supported: latent and text models are not read")
    for name, kinds in (("unet", (CLASS_NAME,)), ("scheduler", SCHEDULERS)):
        if parts.get(name) not in [["diffusers", kind] for kind in kinds]:
            raise UserError(
                f"{path}: {name} must be diffusers' {' or '.join(kinds)}, got {parts.get(name)!r}"
            )


def _rows(count: int | None, null: int | None, config: Path) -> list[int]:
    """The row of the class embedding for each of our labels, the null class last."""
    if null is None:
        return list(range(count or 0))
    if count is None:
        raise UserError(f"{config}: the network knows no classes, so none is null: leave out null")
    if null >= count or count < 2:
        raise UserError(
            f"{config}: num_class_embeds is {count}, so that class {null} cannot be the null class"
        )
    return [*(row for row in range(count) if row != null), null]
