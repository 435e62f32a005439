"""Write a diffusion model as a folder that diffusers runs."""

from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from underone.checkpoint import DiffusionConfig, DiffusionModel
from underone.diffusion import Data
from underone.errors import UserError
from underone.files import write_folder, write_json, write_text
from underone.interop.scheduler import PREDICTIONS, scheduler_document
from underone.interop.unet2d import WEIGHTS

_CODE = files("underone.interop.exported")
_PIPELINE, _UNET = "underone_pipeline", "underone_unet"


def export_to_diffusers(model: DiffusionModel, folder: Path) -> None:
    """Write `model` to a new folder, for `DiffusionPipeline.from_pretrained` of diffusers.

    Our U-Net is not one of theirs, so the folder holds two small modules that build it with
    underone, which must be installed where they run, and sample it with their DDIMScheduler. A
    folder that holds anything, and a model that is not of our own format or was distilled, are a
    `UserError`.
    """
    config = model.config
    if not isinstance(config, DiffusionConfig):
        raise UserError(f"{model.name} is a model of diffusers already: copy its folder")
    if config.distillation is not None:
        raise UserError(
            f"{model.name} was distilled for steps of its own, which no scheduler of diffusers "
            f"takes: export its teacher, {config.distillation.teacher}"
        )
    write_folder(folder, lambda whole: _write(model, config, whole, folder.name))


def _write(model: DiffusionModel, config: DiffusionConfig, folder: Path, name: str) -> None:
    native = config.prediction in PREDICTIONS.values()
    network = {f"network.{key}": value.cpu() for key, value in model.network.state_dict().items()}
    documents: Mapping[str, dict[str, Any]] = {
        "model_index.json": {
            "_class_name": [_PIPELINE, "UnderonePipeline"],
            "scheduler": ["diffusers", "DDIMScheduler"],
            "unet": [_UNET, "UnderoneUNet"],
        },
        "scheduler/scheduler_config.json": scheduler_document(
            config.schedule, config.prediction if native else Data()
        ),
        "unet/config.json": {
            "_class_name": "UnderoneUNet",
            "shape": asdict(config.network),
            "steps": config.schedule.steps,
            "null_class": model.has_null_label,
            "schedule": None if native else asdict(config.schedule),
            "prediction": None if native else asdict(config.prediction),
        },
    }
    for path, document in documents.items():
        write_json(folder / path, document)
    for path in (f"{_PIPELINE}.py", f"unet/{_UNET}.py"):
        write_text(folder / path, (_CODE / Path(path).name).read_text(encoding="utf-8"))
    plain = {key: tensor.contiguous() for key, tensor in network.items()}
    save_file(plain, folder / "unet" / WEIGHTS, {"format": "pt"})
    write_text(folder / "README.md", _readme(model, name))


def _readme(model: DiffusionModel, name: str) -> str:
    return f"""# {name}

The model {model.name} of underone (sha256 {model.sha256}), for diffusers. Its network is built by
underone: `pip install underone[diffusers]`. `trust_remote_code` lets diffusers run the two modules
in this folder.

```python
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained("{name}", trust_remote_code=True)
images = pipeline(batch_size=10, num_inference_steps=20, guidance=0.0, seed=0).images
```

Up to rounding these are the images of `underone sample --sampler ddim --grid trailing` in float32,
for any number of steps that divides {model.config.schedule.steps}.
"""
