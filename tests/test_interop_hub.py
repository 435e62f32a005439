"""Models on the Hub, by its own client: here from its cache alone, for tests are offline."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel

from conftest import ModelFolder
from underone.errors import UserError
from underone.generation import Draw, Setting, generate
from underone.zoo import is_model, load_extractor, load_model

COMMIT = "0123456789" * 4


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no way to what is not in it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def cached(hub: Path, name: str, folder: Path) -> None:
    """Lay `folder` where the client keeps what it has fetched."""
    owner, _, repository = name.partition("/")
    storage = hub / f"models--{owner}--{repository}"
    shutil.copytree(folder, storage / "snapshots" / COMMIT)
    (storage / "refs").mkdir()
    (storage / "refs" / "main").write_text(COMMIT)


def test_a_checkpoint_folder_of_ours(hub: Path, model_folder: ModelFolder) -> None:
    folder = model_folder()
    cached(hub, "owner/small", folder)
    assert is_model("hf://owner/small")
    model, local = load_model("hf://owner/small"), load_model(str(folder))
    assert (model.name, model.sha256) == ("owner/small", local.sha256)
    mine, theirs = (generate(each, Setting(steps=2), Draw(2)) for each in (model, local))
    assert torch.equal(mine.images, theirs.images)
    assert load_model(f"hf://owner/small@{COMMIT}").sha256 == local.sha256
    with pytest.raises(UserError, match="records what it is itself: leave out null=3"):
        load_model("hf://owner/small,null=3")
    with pytest.raises(UserError, match="extracts no features"):
        load_extractor("hf://owner/small")


def test_a_pipeline_of_diffusers(hub: Path, tmp_path: Path) -> None:
    unet: Any = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        num_class_embeds=4,
    )
    pipeline: Any = DDIMPipeline(unet, DDIMScheduler())
    pipeline.save_pretrained(tmp_path / "pipeline")
    cached(hub, "owner/theirs", tmp_path / "pipeline")
    model = load_model("hf://owner/theirs,null=3")
    assert (model.name, model.num_classes, model.has_null_label) == ("owner/theirs", 3, True)
    assert model.sha256 == load_model(f"diffusers:{tmp_path / 'pipeline'},null=3").sha256


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("owner/absent", r"hf://owner/absent cannot be fetched .*: go online"),
        ("owner/small@other", r"cannot be fetched .*: go online"),
        ("owner/bad--..name", r"cannot be fetched .*: go online"),
        ("../../etc", "write hf://owner/name"),
        ("owner", "write hf://owner/name"),
        ("owner/", "write hf://owner/name"),
        ("owner/small@", "write hf://owner/name"),
    ],
)
def test_what_cannot_be_had_is_one_line(
    hub: Path, model_folder: ModelFolder, name: str, message: str
) -> None:
    cached(hub, "owner/small", model_folder())
    with pytest.raises(UserError, match=message) as caught:
        load_model(f"hf://{name}")
    assert "\n" not in str(caught.value)


def test_without_the_client_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install underone\[diffusers\]"):
        load_model("hf://owner/small")
