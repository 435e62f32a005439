"""Checkpoint folders: what is saved is what is loaded."""

from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints import classification, diffusion, random_weights, removed, saved, training
from helpers import refusal
from underone.checkpoint import (
    CheckpointConfig,
    DiffusionModel,
    FeatureModel,
    load_checkpoint,
    load_config,
    save_weights,
)
from underone.checkpoint import weights as weights_module
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
from underone.generation import Setting, denoiser_for
from underone.networks.layers import Revision


def loaded_diffusion(folder: Path) -> DiffusionModel:
    model = load_checkpoint(folder)
    assert isinstance(model, DiffusionModel)
    return model


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


def test_the_hash_is_of_the_weights_that_were_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(tmp_path / "model", diffusion())
    first = load_checkpoint(folder).sha256
    fitting = weights_module.check_fit

    def fitting_as_others_are_saved(*arguments: Any) -> None:
        fitting(*arguments)
        save_weights(folder, random_weights(diffusion(), seed=1))

    monkeypatch.setattr(weights_module, "check_fit", fitting_as_others_are_saved)
    model = load_checkpoint(folder)
    expected = random_weights(diffusion())["stem.weight"]
    assert torch.equal(model.network.state_dict()["stem.weight"], expected)
    assert model.sha256 == first


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
