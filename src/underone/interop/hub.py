"""Models on the Hub, through its own client."""

from pathlib import Path

from underone.errors import UserError, kind_and_line
from underone.interop.packages import imported

# The files of our models and of those of diffusers; a repository may hold far more.
_FILES = (
    "config.json",
    "model_index.json",
    "scheduler_config.json",
    "model.safetensors",
    "weak.safetensors",
    "analytic.json",
    "tuned/*.json",
    "README.md",
    "diffusion_pytorch_model.safetensors",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "scheduler/scheduler_config.json",
)


def fetched(repository: str) -> Path:
    """The folder of "owner/name" or "owner/name@revision", from the cache or the Hub.

    A failure is a `UserError`. Only configurations and safetensors are fetched.
    """
    name, at, revision = repository.partition("@")
    if name.count("/") != 1 or not all(name.split("/")) or (at and not revision):
        raise UserError(f"hf://{repository}: write hf://owner/name, or hf://owner/name@revision")
    hub = imported("huggingface_hub", "underone[diffusers]")
    try:
        folder = hub.snapshot_download(name, revision=revision or None, allow_patterns=list(_FILES))
    except Exception as error:  # no network, no such repository, no access
        raise UserError(
            f"hf://{repository} cannot be fetched ({kind_and_line(error)}): go online, check the "
            "name, or name a folder that was fetched before"
        ) from None
    return Path(folder)
