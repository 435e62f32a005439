"""A model by its name: shipped, a checkpoint folder, a diffusers folder, or one on the Hub."""

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from underone.checkpoint import AnyCheckpoint, load_checkpoint
from underone.errors import UserError, unknown
from underone.interop.diffusers_folder import UserMetadata, is_diffusers_folder, load_diffusers
from underone.interop.hub import fetched
from underone.shipped import find_checkpoint

DIFFUSERS, HUB = "diffusers:", "hf://"


def is_from_elsewhere(name: str) -> bool:
    """Whether `name` is `diffusers:PATH` or `hf://owner/name`."""
    return name.startswith((DIFFUSERS, HUB))


def load_named(name: str) -> AnyCheckpoint:
    """The model that is called `name`; whatever cannot be loaded is a one-line `UserError`.

    - a shipped name, or the path of a checkpoint folder, or of other weights in one:
      "runs/mine/raw.safetensors"
    - "diffusers:PATH": a pipeline folder of diffusers, or a UNet2DModel's with its scheduler's
    - "hf://owner/name" or "hf://owner/name@revision": either of these from the Hub

    `UserMetadata` may follow a diffusers folder's name: "diffusers:PATH,null=10,data=cifar10".
    """
    if name.startswith(DIFFUSERS):
        path, *said = name.removeprefix(DIFFUSERS).split(",")
        return load_diffusers(Path(path).expanduser(), _metadata(name, said))
    if name.startswith(HUB):
        repository, *said = name.removeprefix(HUB).split(",")
        folder = fetched(repository)
        if is_diffusers_folder(folder):
            return load_diffusers(folder, _metadata(name, said), title=repository)
        if said:
            raise UserError(f"{name} records what it is itself: leave out {','.join(said)}")
        return replace(load_checkpoint(folder), title=repository)
    path_to = find_checkpoint(name)
    if is_diffusers_folder(path_to):
        raise UserError(f"{name} is a folder of diffusers: name it {DIFFUSERS}{name}")
    return load_checkpoint(path_to)


def _metadata(name: str, said: Sequence[str]) -> UserMetadata:
    known = [field.name for field in fields(UserMetadata)]
    values: dict[str, str] = {}
    for each in said:
        key, equals, value = each.partition("=")
        if key not in known:
            raise unknown(f"option in {name}:", key, known)
        if not equals or not value or key in values:
            raise UserError(f"{name}: give {key} once, like {key}={UserMetadata.EXAMPLES[key]}")
        values[key] = value
    null = values.get("null")
    if null is not None and not (null.isascii() and null.isdecimal() and len(null) < 10):
        raise UserError(f"{name}: null is the number of a class, like null=10, got {null!r}")
    return UserMetadata(None if null is None else int(null), values.get("data"))
