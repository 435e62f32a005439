"""Extractors from elsewhere: as their own packages compute, known by what decides their output."""

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from conftest import Run
from peers import import_timm, import_torch_fidelity
from underone.adapters import find_extractor
from underone.adapters.inception import InceptionExtractor
from underone.data import Dataset, SampleSet, load_dataset
from underone.errors import UserError
from underone.metrics import Yardstick, build_reference, measure, save_reference
from underone.metrics.scores import METRICS

SLICE = Path(__file__).parent / "data" / "fashion-mnist"


@pytest.fixture(scope="module")
def real() -> Dataset:
    return load_dataset("fashion-mnist", "test", SLICE)


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module file of the user's, importable as `mine`."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "mine.py"
    sys.modules.pop("mine", None)


FUNCTION = """
import torch

def means(images):
    assert images.dtype == torch.uint8
    pooled = torch.nn.functional.avg_pool2d(images.float() / 255, 7).flatten(1)
    return pooled, pooled[:, :10]

class Linear(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed({seed})
        self.layer = torch.nn.Linear(784, 8)
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, images):
        return self.dropout(self.layer(images.flatten(1) / 255))

def wrong(images):
    return images

def three(images):
    return means(images)[0], 1, 2

def nan(images):
    return means(images)[0] * float("nan")

def complicated(images):
    return means(images)[0] * 1j

def nowhere(images):
    return means(images)[0][:, :0]

def breaks(images):
    return {}[3]

def leaves(images):
    raise SystemExit(7)

number = 3
"""


def write_module(path: Path, text: str) -> None:
    sys.modules.pop("mine", None)
    path.write_text(text)
    path.with_suffix(".pyc").unlink(missing_ok=True)


def test_a_function_is_an_extractor_for_all_that_is_measured(
    user_module: Path, real: Dataset
) -> None:
    write_module(user_module, FUNCTION.replace("{seed}", "0"))
    extractor = find_extractor("mine:means")
    by = Yardstick(extractor, build_reference("real", real, real, extractor))
    result = measure(SampleSet(real.images[:500], real.labels[:500]), by, tuple(METRICS))
    assert result.protocol.extractor.name == "mine:means"
    assert {"fid", "kid", "inception-score", "precision"} <= result.figures.keys()


def test_what_a_reference_names_is_run_only_if_the_user_names_it_too(
    user_module: Path, real: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    write_module(user_module, FUNCTION.replace("{seed}", "0"))
    path = tmp_path / "theirs.npz"
    save_reference(build_reference("theirs", real, real, find_extractor("mine:means")), path)
    # As somebody else finds it.
    monkeypatch.setattr("underone.modules._NAMED", set())
    sys.modules.pop("mine", None)
    evaluate = ("evaluate", samples_of(real, tmp_path), "--reference", path)
    status, out, error = run(*evaluate)
    assert (status, out) == (2, "")
    assert "names mine:means, which is code" in error
    assert "underone --code mine:means" in error
    assert "mine" not in sys.modules
    for known in (("--code", "mine:means", *evaluate), (*evaluate, "--extractor", "mine:means")):
        monkeypatch.setattr("underone.modules._NAMED", set())
        status, out, error = run(*known)
        assert status == 0, error
        assert "FID@mine:means" in out
    status, _, error = run("--code", "mine", *evaluate)
    assert (status, "--code takes a module:Name" in error) == (2, True)


def samples_of(real: Dataset, folder: Path) -> Path:
    SampleSet(real.images[:100], real.labels[:100]).save_npz(folder / "samples.npz")
    return folder / "samples.npz"


def test_two_functions_of_one_module_are_told_apart(user_module: Path) -> None:
    write_module(user_module, FUNCTION.replace("{seed}", "0"))
    assert find_extractor("mine:means").sha256 != find_extractor("mine:wrong").sha256


def test_a_torch_module_is_evaluated_without_dropout_and_known_by_its_weights(
    user_module: Path, real: Dataset
) -> None:
    write_module(user_module, FUNCTION.replace("{seed}", "0"))
    first = find_extractor("mine:Linear")
    assert torch.equal(first(real.images[:5]).values, first(real.images[:5]).values)
    again = find_extractor("mine:Linear")
    assert again.sha256 == first.sha256
    write_module(user_module, FUNCTION.replace("{seed}", "1"))
    assert find_extractor("mine:Linear").sha256 != first.sha256


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine:wrong", r"must return features as a tensor of shape \(3, D\)"),
        ("mine:three", r"must return features as a tensor of shape \(3, D\)"),
        ("mine:nan", "NaN or infinite"),
        ("mine:complicated", "must return features"),
        ("mine:nowhere", "must return features"),
        ("mine:breaks", r"mine:breaks failed on images \(3, 1, 28, 28\): KeyError"),
        ("mine:leaves", "SystemExit"),
        ("mine:number", "is not a function"),
        ("mine:nothing", "extractor mine:nothing: the module mine has no 'nothing'"),
        ("no_such_module:f", "extractor no_such_module:f: No module named"),
        ("torch-fidelity:no.pth", "no Inception weights at"),
        ("transformers:no-folder", r"no folder with a config\.json"),
        ("timm:resnet10t:no.safetensors", "no .safetensors file"),
        ("timm:no_such_model", "timm:no_such_model"),
    ],
)
def test_what_is_no_extractor_is_told(
    name: str, message: str, user_module: Path, real: Dataset
) -> None:
    import_timm()
    write_module(user_module, FUNCTION.replace("{seed}", "0"))
    with pytest.raises(UserError, match=message):
        find_extractor(name)(real.images[:3])


@pytest.fixture(scope="module")
def inception_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the form of torch-fidelity's own file."""
    package = import_torch_fidelity().feature_extractor_inceptionv3
    with pytest.MonkeyPatch.context() as patch:
        extractor = package.FeatureExtractorInceptionV3
        patch.setattr(package, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(extractor, "load_state_dict", lambda self, tensors: None)
        torch.manual_seed(0)
        network = extractor("inception", ["2048"])
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(network.state_dict(), path)
    return path


def test_inception_is_torch_fidelitys(inception_weights: Path, real: Dataset) -> None:
    images = real.images[:3]
    ours = find_extractor(f"torch-fidelity:{inception_weights}")
    package = import_torch_fidelity().feature_extractor_inceptionv3
    theirs = package.FeatureExtractorInceptionV3(
        "theirs", ["2048", "logits_unbiased"], str(inception_weights)
    )
    theirs.eval()
    values, logits = theirs(images.repeat(1, 3, 1, 1))
    found = ours(images)
    assert isinstance(ours, InceptionExtractor)
    assert not ours.network.training
    assert torch.equal(found.values, values)
    assert found.logits is not None
    assert torch.equal(found.logits, logits)
    assert found.values.shape == (3, 2048)
    assert ours.sha256 == find_extractor(f"torch-fidelity:{inception_weights}").sha256


class Hostile:
    """Code that runs wherever this is unpickled freely."""

    ran = False

    def __reduce__(self) -> tuple[Any, ...]:
        return (setattr, (Hostile, "ran", True))


def test_hostile_weights_do_not_run(tmp_path: Path) -> None:
    import_torch_fidelity()
    torch.save({"fc.weight": Hostile()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="no weights of torch-fidelity's Inception"):
        find_extractor(f"torch-fidelity:{tmp_path / 'evil.pth'}")
    assert not Hostile.ran
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="no weights of torch-fidelity's Inception"):
        find_extractor(f"torch-fidelity:{tmp_path / 'other.pth'}")


def test_a_timm_backbone_with_weights_of_a_file(tmp_path: Path, real: Dataset) -> None:
    timm = import_timm()
    torch.manual_seed(0)
    network: Any = timm.create_model("resnet10t", pretrained=False, num_classes=0).eval()
    weights = tmp_path / "weights.safetensors"
    save_file(network.state_dict(), weights)
    extractor = find_extractor(f"timm:resnet10t:{weights}")
    found = extractor(real.images[:2]).values
    assert found.shape == (2, 512)
    # What the network was told is what its own configuration asks for: size, mean and deviation.
    size = network.pretrained_cfg["input_size"][1:]
    wanted = torch.nn.functional.interpolate(
        real.images[:2].float().repeat(1, 3, 1, 1) / 255, size, mode="bicubic", antialias=True
    ).clamp(0, 1)
    mean, std = (
        torch.tensor(network.pretrained_cfg[key])[:, None, None] for key in ("mean", "std")
    )
    with torch.no_grad():
        torch.testing.assert_close(found, network((wanted - mean) / std))
    with pytest.MonkeyPatch.context() as patch:  # resized otherwise it is another extractor
        patch.setattr("underone.adapters.pretrained.RESIZED", "bilinear")
        assert find_extractor(f"timm:resnet10t:{weights}").sha256 != extractor.sha256
    other = {name: tensor + 1 for name, tensor in network.state_dict().items()}
    save_file(other, weights)
    assert find_extractor(f"timm:resnet10t:{weights}").sha256 != extractor.sha256


def saved_backbone(folder: Path, pooled: bool) -> tuple[Any, Any]:
    """A small network of transformers and its processor, saved to a folder."""
    transformers: types.ModuleType = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
    )
    model = transformers.ViTModel(config, add_pooling_layer=pooled).eval()
    model.save_pretrained(folder)
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    processor.save_pretrained(folder)
    return model, processor


def prepared(processor: Any, images: Tensor) -> Any:
    arrays = [np.repeat(image.numpy().transpose(1, 2, 0), 3, axis=2) for image in images]
    return processor(images=arrays, return_tensors="pt")


def test_a_transformers_backbone(tmp_path: Path, real: Dataset) -> None:
    model, processor = saved_backbone(tmp_path, pooled=True)
    extractor = find_extractor(f"transformers:{tmp_path}")
    images = real.images[:2]
    with torch.no_grad():
        expected: Tensor = model(**prepared(processor, images)).pooler_output
    torch.testing.assert_close(extractor(images).values, expected)
    assert extractor.name == f"transformers:{tmp_path.name}"


def test_a_transformers_backbone_saved_in_bfloat16_computes_in_float32(
    tmp_path: Path, real: Dataset
) -> None:
    model, processor = saved_backbone(tmp_path, pooled=True)
    model.bfloat16().save_pretrained(tmp_path)
    found = find_extractor(f"transformers:{tmp_path}")(real.images[:2]).values
    with torch.no_grad():
        expected: Tensor = model.float()(**prepared(processor, real.images[:2])).pooler_output
    torch.testing.assert_close(found, expected)


def test_a_transformers_backbone_whose_pooler_was_not_saved(tmp_path: Path, real: Dataset) -> None:
    """Random weights in its place would be another extractor each time."""
    model, processor = saved_backbone(tmp_path, pooled=False)
    one, other = (find_extractor(f"transformers:{tmp_path}") for _ in range(2))
    assert one.sha256 == other.sha256
    images = real.images[:2]
    with torch.no_grad():
        hidden: Tensor = model(**prepared(processor, images)).last_hidden_state
    torch.testing.assert_close(one(images).values, hidden.mean(dim=1))
