"""Checkpoint folders: what is saved is what is loaded, and nothing else ever is."""

import json
import pickle
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from underone.checkpoint import (
    CheckpointConfig,
    ClassifierCheckpointConfig,
    DataRecord,
    DiffusionConfig,
    DiffusionModel,
    FeatureModel,
    TrainingRecord,
    load_checkpoint,
    load_config,
    load_tensors,
    save_config,
    save_weights,
)
from underone.diffusion import (
    DDIM,
    Cosine,
    Data,
    LinearBeta,
    Noise,
    Prediction,
    Trailing,
    Velocity,
    sample,
)
from underone.errors import UserError
from underone.generation import Setting, denoiser_for
from underone.networks import ClassifierConfig, UNetConfig, build_network
from underone.networks.layers import Revision

Damage = Callable[[Path], object]


def diffusion(revision: Revision = 2, **changes: Any) -> DiffusionConfig:
    """The configuration of a small diffusion model."""
    network: dict[str, Any] = {
        "image_size": 8,
        "channels": 1,
        "classes": changes.pop("classes", 3),
        "width": changes.pop("width", 8),
        "heads": changes.pop("heads", 2),
        "attention": (4,),
        "revision": revision,
    }
    parts: dict[str, Any] = {
        "network": UNetConfig(**network),
        "schedule": LinearBeta(steps=10),
        "prediction": Noise(),
        "data": DataRecord(name="squares", sha256="0" * 64, class_names=("a", "b", "c")),
        "training": training(),
    }
    return DiffusionConfig(**parts | changes)


def classification(revision: Revision = 2, **changes: Any) -> ClassifierCheckpointConfig:
    """The configuration of a small classifier."""
    parts: dict[str, Any] = {
        "network": ClassifierConfig(
            image_size=8, channels=1, classes=3, widths=(8, 16), revision=revision
        ),
        "feature_scale": 0.25,
        "data": DataRecord(name="squares", sha256="0" * 64, class_names=("a", "b", "c")),
        "training": training(),
    }
    return ClassifierCheckpointConfig(**parts | changes)


def training(**changes: Any) -> TrainingRecord:
    record: dict[str, Any] = {
        "recipe": "none",
        "steps": 7,
        "batch_size": 2,
        "images_seen": 14,
        "seconds": 1.5,
        "seed": 3,
        "label_dropout": 0.1,
        "torch": "2",
    }
    return TrainingRecord(**record | changes)


def random_weights(config: CheckpointConfig, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    network = build_network(config.network)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1, generator=generator)
    return network.state_dict()


def saved(folder: Path, config: CheckpointConfig, seed: int = 0) -> Path:
    """A checkpoint folder with random weights."""
    save_config(folder, config)
    save_weights(folder, random_weights(config, seed))
    return folder


def loaded_diffusion(folder: Path) -> DiffusionModel:
    model = load_checkpoint(folder)
    assert isinstance(model, DiffusionModel)
    return model


def refusal(action: Callable[[], object]) -> str:
    """The one line with which `action` is refused."""
    with pytest.raises(UserError) as caught:
        action()
    text = str(caught.value)
    assert "\n" not in text
    return text


def edited(**changes: Any) -> Damage:
    """Set keys of config.json, "a.b" being b inside a."""

    def edit(folder: Path) -> None:
        path = folder / "config.json"
        document = json.loads(path.read_text())
        for key, value in changes.items():
            *parents, last = key.split("__")
            inner = document
            for parent in parents:
                inner = inner[parent]
            inner[last] = value
        path.write_text(json.dumps(document))

    return edit


# What is saved is what is loaded.


@pytest.mark.parametrize("config", [diffusion(), diffusion(1), classification(), classification(1)])
def test_saving_and_loading_changes_nothing(tmp_path: Path, config: CheckpointConfig) -> None:
    folder = saved(tmp_path / "model", config)
    model = load_checkpoint(folder)
    assert model.config == config
    assert (model.name, model.weights) == ("model", "model")
    expected = random_weights(config)
    found = model.network.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not model.network.training
    assert not any(parameter.requires_grad for parameter in model.network.parameters())


def test_float16_weights_are_the_rounded_ones_at_half_the_size(tmp_path: Path) -> None:
    config = classification()
    folder = saved(tmp_path / "model", config)
    size = (folder / "model.safetensors").stat().st_size
    save_weights(folder, random_weights(config), dtype=torch.float16)
    assert (folder / "model.safetensors").stat().st_size < 0.7 * size
    found = load_checkpoint(folder).network.state_dict()
    for name, tensor in random_weights(config).items():
        exact = tensor.half().float() if tensor.is_floating_point() else tensor
        assert torch.equal(found[name], exact)
        assert found[name].dtype == tensor.dtype


def test_a_folder_samples_with_nothing_said_about_the_model(tmp_path: Path) -> None:
    """The folder alone decides schedule, prediction, shape, classes and revision."""
    kinds: list[tuple[Revision, Prediction]] = [(1, Noise()), (2, Velocity()), (2, Data())]
    for revision, prediction in kinds:
        config = diffusion(revision, prediction=prediction, schedule=Cosine(steps=10))
        model = loaded_diffusion(saved(tmp_path / type(prediction).__name__, config))
        assert (model.shape, model.num_classes) == ((1, 8, 8), 3)
        (batch,) = sample(
            denoiser_for(model, Setting(guidance=1.0)),
            DDIM(),
            Trailing(),
            5,
            shape=model.shape,
            keys=[(0, index) for index in range(3)],
            labels=torch.arange(3),
        )
        assert batch.x.shape == (3, 1, 8, 8)
        assert batch.x.isfinite().all()
        assert batch.x.std() > 0.01


def test_raw_and_averaged_weights_are_both_kept_and_named(tmp_path: Path) -> None:
    config = diffusion()
    folder = saved(tmp_path / "model", config, seed=0)
    text = refusal(lambda: load_checkpoint(folder, "raw"))
    assert "raw.safetensors" in text
    save_weights(folder, random_weights(config, seed=1), "raw")
    average, raw = load_checkpoint(folder), load_checkpoint(folder, "raw")
    assert (average.weights, raw.weights) == ("model", "raw")
    assert average.sha256 != raw.sha256
    stem = raw.network.state_dict()["stem.weight"]
    assert torch.equal(stem, random_weights(config, seed=1)["stem.weight"])


# The identity of a model.


def test_the_identity_is_that_of_the_function_alone(tmp_path: Path) -> None:
    config = diffusion()
    base = load_checkpoint(saved(tmp_path / "base", config)).sha256
    record = config.data.model_copy(update={"name": "other", "sha256": "1" * 64})
    same = [
        config,
        diffusion(training=training(steps=8, seconds=2.0, recipe="other", label_dropout=0.2)),
        diffusion(data=record),
    ]
    for index, variant in enumerate(same):
        assert load_checkpoint(saved(tmp_path / f"same-{index}", variant)).sha256 == base
    other = [
        diffusion(heads=4),  # with the very same tensors
        diffusion(schedule=LinearBeta(steps=11)),
        diffusion(schedule=LinearBeta(steps=10, beta_max=0.03)),
        diffusion(schedule=Cosine(steps=10)),
        diffusion(prediction=Velocity()),
    ]
    identities = {base}
    for index, variant in enumerate(other):
        identities.add(load_checkpoint(saved(tmp_path / f"other-{index}", variant)).sha256)
    weights = random_weights(config)
    stem = weights["stem.weight"]
    stem[0, 0, 0, 0] = torch.nextafter(stem[0, 0, 0, 0], torch.tensor(10.0))
    save_weights(tmp_path / "base", weights)
    identities.add(load_checkpoint(tmp_path / "base").sha256)
    assert len(identities) == 2 + len(other)


def test_a_feature_scale_is_part_of_an_extractors_identity(tmp_path: Path) -> None:
    one, other = (
        load_checkpoint(saved(tmp_path / str(scale), classification(feature_scale=scale))).sha256
        for scale in (0.25, 0.5)
    )
    assert one != other


def test_the_identity_is_of_what_was_loaded_not_of_what_is_there_now(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", diffusion())
    model, expected = load_checkpoint(folder), load_checkpoint(folder).sha256
    save_weights(folder, random_weights(diffusion(), seed=1))
    assert model.sha256 == expected
    assert load_checkpoint(folder).sha256 != expected


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


def removed(file: str) -> Damage:
    return lambda folder: (folder / file).unlink()


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


def test_features_do_not_depend_on_how_the_images_are_batched(tmp_path: Path) -> None:
    model = load_checkpoint(saved(tmp_path / "model", classification()))
    assert isinstance(model, FeatureModel)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (7, 1, 8, 8), dtype=torch.uint8, generator=generator)
    features, logits = model.features_and_logits(images)
    pieces = model.features_and_logits(images, batch_size=3)
    torch.testing.assert_close((features, logits), pieces)
    torch.testing.assert_close(logits, model.network(images / 127.5 - 1))
    assert features.std(dim=0).max() > 0


def test_a_config_alone_can_be_read(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", diffusion(1))
    removed("model.safetensors")(folder)
    assert load_config(folder) == diffusion(1)
