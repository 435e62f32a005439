"""Checkpoint folders whose parts do not fit, or are broken: each is refused by name."""

import pickle
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from checkpoints import Damage, classification, diffusion, edited, random_weights, removed, saved
from helpers import refusal
from underone.checkpoint import (
    CheckpointConfig,
    load_checkpoint,
    load_tensors,
    save_config,
    save_weights,
)
from underone.diffusion import Cosine, Data, LinearBeta, Velocity
from underone.errors import UserError
from underone.networks.layers import Revision

# What does not fit together is refused.


@pytest.mark.parametrize("build", [diffusion, classification])
@pytest.mark.parametrize(("weights", "config"), [(1, 2), (2, 1)])
def test_revisions_are_never_mixed(
    tmp_path: Path,
    build: Callable[[Revision], CheckpointConfig],
    weights: Revision,
    config: Revision,
) -> None:
    folder = saved(tmp_path / "model", build(weights))
    save_config(folder, build(config))
    text = refusal(lambda: load_checkpoint(folder))
    assert f"weights of architecture revision {weights}" in text
    assert f"says revision {config}" in text
    assert "downsample.0." in text
    assert "model.safetensors" in text


@pytest.mark.parametrize("revision", [1, 2])
@pytest.mark.parametrize("inside", [True, False])
def test_a_bare_state_dict_is_not_guessed_at(
    tmp_path: Path, revision: Revision, inside: bool
) -> None:
    folder = saved(tmp_path / "model", diffusion(revision))
    (folder / "config.json").unlink()
    path = folder if inside else folder / "model.safetensors"
    text = refusal(lambda: load_checkpoint(path))
    assert "bare state dict" in text
    assert f"revision {revision}" in text
    assert "downsample.0." in text
    assert "model.safetensors" in text


def test_a_tensor_of_another_shape_is_named_with_both_shapes(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", diffusion(width=16))
    save_config(folder, diffusion())
    text = refusal(lambda: load_checkpoint(folder))
    assert "time.0.weight (in the config's network (32, 8) and in the file (64, 16))" in text
    assert "revision" not in text


@pytest.mark.parametrize("width", [2**12, 2**15])
def test_a_network_larger_than_its_file_is_never_built(tmp_path: Path, width: int) -> None:
    folder = saved(tmp_path / "model", diffusion())
    save_config(folder, diffusion(width=width))
    assert "model" in refusal(lambda: load_checkpoint(folder))


def spoil(name: str, value: float) -> Damage:
    """Put one bad value into a tensor, by way of plain safetensors."""

    def damage(folder: Path) -> None:
        path = folder / "model.safetensors"
        tensors = load_file(path)
        tensors[name].view(-1)[-1] = value
        save_file(tensors, path)

    return damage


def without(name: str) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / "model.safetensors"
        save_file({key: t for key, t in load_file(path).items() if key != name}, path)

    return damage


def cast_to(dtype: torch.dtype) -> Damage:
    """The weights in another type, as a quantiser leaves them."""

    def damage(folder: Path) -> None:
        path = folder / "model.safetensors"
        save_file({key: tensor.to(dtype) for key, tensor in load_file(path).items()}, path)

    return damage


def replaced(file: str, content: bytes) -> Damage:
    return lambda folder: (folder / file).write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (spoil("stem.weight", float("nan")), ("model.safetensors", "stem.weight", "NaN")),
        (spoil("out.bias", float("inf")), ("model.safetensors", "out.bias", "infinite")),
        (without("stem.bias"), ("model.safetensors", "stem.bias", "not in the file")),
        (removed("model.safetensors"), ("no weights at", "model.safetensors")),
        (replaced("model.safetensors", b""), ("model.safetensors", "not a whole safetensors")),
        (replaced("model.safetensors", b"\0" * 100), ("not a whole safetensors",)),
        (replaced("model.safetensors", b"\xff" * 100), ("not a whole safetensors",)),
        (replaced("config.json", b"{"), ("config.json", "not valid JSON")),
        (replaced("config.json", b"[]"), ("config.json", "kind must be one of")),
        (replaced("config.json", b'{"kind": ["diffusion"]}'), ("config.json", "kind must be")),
        (edited(kind="difusion"), ("config.json", "'difusion'", "diffusion, classifier")),
        (edited(format_version=2), ("config.json", "format_version", "got 2")),
        (edited(colour=1), ("config.json", "'colour'")),
        (edited(networt={}), ("config.json", "did you mean 'network'")),
        (edited(network__widht=8), ("config.json", "'widht'", "did you mean 'width'")),
        (edited(network__revision=3), ("config.json", "network.revision", "got 3")),
        (edited(network__heads=0), ("config.json", "heads")),
        (edited(network__classes=0), ("config.json", "classes")),
        (edited(network__dropout=2.0), ("config.json", "dropout")),
        (edited(network__attention=[5]), ("config.json", "attention at [5]")),
        (edited(network={}), ("config.json", "network.image_size", "required")),
        (edited(data__class_images=[1, 2]), ("config.json", "images of 3 classes, got 2 numbers")),
        (edited(data__class_images=[0, 0, 0]), ("config.json", "that come to 0")),
        (edited(data__class_images=[1, 2, -1]), ("config.json", "data.class_images")),
        (
            edited(schedule__name="linear"),
            ("config.json", "schedule", "'linear-beta', 'scaled-linear-beta', 'cosine'"),
        ),
        (edited(schedule={}), ("config.json", "schedule")),
        (edited(schedule__beta_min=0.5), ("config.json", "beta_min <= beta_max")),
        (edited(schedule__beta_max=1.0), ("config.json", "beta_min <= beta_max")),
        (edited(schedule__beta_max=float("nan")), ("config.json", "beta_max", "finite")),
        (edited(schedule__steps=0), ("config.json", "1 to 1,000,000 steps")),
        (edited(schedule__steps=10**9), ("config.json", "1 to 1,000,000 steps")),
        (edited(network__blocks=10**8), ("config.json", "blocks and levels 64")),
        (edited(network__width=10**30), ("config.json", "wider than 65536")),
        (cast_to(torch.float8_e4m3fn), ("model.safetensors", "float8_e4m3fn", "float32")),
        (cast_to(torch.complex64), ("model.safetensors", "complex64")),
        (cast_to(torch.int8), ("model.safetensors", "int8", "floating-point")),
        (edited(schedule__beta_mx=0.5), ("config.json", "did you mean 'beta_max'")),
        (edited(prediction__name="nois"), ("config.json", "prediction", "'noise'")),
        (edited(training__steps="many"), ("config.json", "training.steps", "'many'")),
        (edited(data=None), ("config.json", "data")),
        (shutil.rmtree, ("no checkpoint folder",)),
        (lambda folder: [path.unlink() for path in folder.iterdir()], ("no config.json",)),
    ],
)
def test_what_is_broken_is_refused_by_name(
    tmp_path: Path, damage: Damage, expected: tuple[str, ...]
) -> None:
    folder = saved(tmp_path / "model", diffusion())
    load_checkpoint(folder)
    damage(folder)
    text = refusal(lambda: load_checkpoint(folder))
    assert all(part in text for part in expected), text
    assert str(folder) in text


def test_noise_cannot_be_predicted_where_no_signal_is_left(tmp_path: Path) -> None:
    silent = LinearBeta(steps=1000, beta_min=0.1, beta_max=0.9)
    for prediction in (Velocity(), Data()):
        load_checkpoint(
            saved(tmp_path / "model", diffusion(schedule=silent, prediction=prediction))
        )
    edited(prediction__name="noise")(tmp_path / "model")
    text = refusal(lambda: load_checkpoint(tmp_path / "model"))
    assert "ends at alpha = 3.4e-181" in text
    assert "velocity" in text
    for schedule in (LinearBeta(), Cosine()):
        load_checkpoint(saved(tmp_path / schedule.name, diffusion(schedule=schedule)))


def test_a_model_that_does_not_fit_the_precision_is_not_written(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", diffusion())
    before = (folder / "model.safetensors").read_bytes()
    large = random_weights(diffusion())
    large["stem.bias"][0] = 70_000  # infinite in float16
    text = refusal(lambda: save_weights(folder, large, dtype=torch.float16))
    assert "stem.bias" in text
    assert (folder / "model.safetensors").read_bytes() == before
    save_weights(folder, large)
    load_checkpoint(folder)


# Files that were cut, changed, or are of another kind.


@pytest.fixture(scope="module")
def few_tensors(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A place to write to, and the bytes of a small safetensors file."""
    path = tmp_path_factory.mktemp("tensors") / "model.safetensors"
    save_file({"a": torch.arange(6.0).view(2, 3), "b": torch.ones(3, dtype=torch.float16)}, path)
    return path, path.read_bytes()


def test_a_file_cut_at_any_byte_is_refused(few_tensors: tuple[Path, bytes]) -> None:
    path, content = few_tensors
    for length in range(len(content)):
        path.write_bytes(content[:length])
        text = refusal(lambda: load_tensors(path))
        assert "model.safetensors is not a whole safetensors file" in text
    path.write_bytes(content + b"\0")
    refusal(lambda: load_tensors(path))
    path.write_bytes(content)
    assert load_tensors(path)["a"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_checkpoint_cut_anywhere_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", diffusion())
    path = folder / "model.safetensors"
    content = path.read_bytes()
    for length in [*range(0, len(content), len(content) // 25), len(content) - 1]:
        path.write_bytes(content[:length])
        assert str(path) in refusal(lambda: load_checkpoint(folder))


@given(st.data())
def test_changed_bytes_never_end_in_anything_but_a_refusal(
    few_tensors: tuple[Path, bytes], data: st.DataObject
) -> None:
    path, content = few_tensors
    changed = bytearray(content)
    places = st.integers(0, len(content) - 1)
    for place in data.draw(st.lists(places, min_size=1, max_size=3)):
        changed[place] = data.draw(st.integers(0, 255))
    path.write_bytes(changed)
    with suppress(UserError):
        tensors = load_tensors(path)
        assert all(t.isfinite().all() for t in tensors.values() if t.is_floating_point())


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return _explode, (str(self.path),)


def _explode(path: str) -> None:
    Path(path).touch()


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    crater = tmp_path / "crater"
    bomb = {"stem.weight": Bomb(crater)}
    pickle.loads(pickle.dumps(bomb))  # noqa: S301 (the bomb works)
    assert crater.exists()
    crater.unlink()
    folder = saved(tmp_path / "model", diffusion())
    path = folder / "model.safetensors"

    def check(named: bool) -> None:
        for place in (folder, path):
            text = refusal(lambda place=place: load_checkpoint(place))  # type: ignore[misc]
            assert "model.safetensors" in text
            assert not named or "holds a pickle" in text
        assert not crater.exists()

    for zipped in (True, False):
        torch.save(bomb, path, _use_new_zipfile_serialization=zipped)
        check(named=True)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps(bomb, protocol))
        check(named=protocol >= 2)


@pytest.mark.parametrize("length", [0x0280, 0x0380, 0x0480, 0x0580, 0x4B50])
def test_a_header_whose_length_looks_like_a_pickle_is_read_all_the_same(
    tmp_path: Path, length: int
) -> None:
    """The first bytes of safetensors are a number, which may happen to begin a pickle or a zip."""
    path = tmp_path / "model.safetensors"
    tensors = {"a": torch.arange(3.0)}
    save_file(tensors, path, {"padding": ""})
    shortest = int.from_bytes(path.read_bytes()[:8], "little")
    save_file(tensors, path, {"padding": "x" * (length - shortest)})
    assert int.from_bytes(path.read_bytes()[:8], "little") == length
    assert torch.equal(load_tensors(path)["a"], tensors["a"])
