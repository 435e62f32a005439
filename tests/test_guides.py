"""Forms of guidance by name: exact where nothing guides, counted as declared, refused in a line."""

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from conftest import ModelFolder
from helpers import normal, refusal
from underone import guides
from underone.checkpoint import (
    AnyCheckpoint,
    DiffusionConfig,
    DiffusionModel,
    NoisyClassifierCheckpointConfig,
    Weights,
    load_checkpoint,
    load_config,
    save_config,
    save_weights,
)
from underone.diffusion import LinearBeta, count_evaluations, node_at
from underone.generation import Draw, Setting, denoiser_for, generate
from underone.guides import FORMS
from underone.networks import NoisyClassifierConfig, build_network

X = normal(4, 1, 28, 28).float()
LABEL = torch.tensor([3, 0, 7, 7])
NODES = [node_at(LinearBeta(), torch.tensor(t, dtype=torch.float64)) for t in (0.02, 0.4, 1.0)]


@pytest.fixture(scope="module")
def folder(model_folder: ModelFolder) -> Path:
    """A model with a weak snapshot beside it, and a classifier of noisy images."""
    folder = model_folder("guided")
    config = load_config(folder)
    assert isinstance(config, DiffusionConfig)
    torch.manual_seed(1)
    weak = build_network(config.network)
    for parameter in weak.parameters():
        nn.init.normal_(parameter, std=0.1)
    save_weights(folder, weak.state_dict(), "weak")
    network = NoisyClassifierConfig(
        image_size=28, channels=1, classes=10, width=8, attention=(7,), heads=2, patch=2
    )
    classifier = build_network(network)
    for parameter in classifier.parameters():
        nn.init.normal_(parameter, std=0.1)
    save_config(
        folder / "classifier",
        NoisyClassifierCheckpointConfig(
            network=network, schedule=LinearBeta(), data=config.data, training=config.training
        ),
    )
    save_weights(folder / "classifier", classifier.state_dict())
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> DiffusionModel:
    loaded = load_checkpoint(folder)
    assert isinstance(loaded, DiffusionModel)
    return loaded


@pytest.fixture(scope="module")
def form(folder: Path) -> Callable[[str], str]:
    """A form's name, with what it must be told here."""
    return lambda name: f"{name},by={folder / 'classifier'}" if name == "classifier" else name


def setting(form: str, weight: float, interval: tuple[float, float] | None = None) -> Setting:
    return Setting("ddim", 6, guidance=weight, threshold="none", form=form, interval=interval)


@torch.no_grad()
@pytest.mark.parametrize("interval", [None, (0.5, 20.0)])
@pytest.mark.parametrize("name", FORMS)
def test_without_guidance_every_form_is_the_model_itself_bitwise(
    model: DiffusionModel,
    form: Callable[[str], str],
    name: str,
    interval: tuple[float, float] | None,
) -> None:
    conditional = denoiser_for(model, setting(form(name), 0, interval), "float32")
    unlabelled = denoiser_for(model, setting(form(name), -1, interval), "float32")
    weak = load_checkpoint(model.folder, "weak")
    assert isinstance(weak, DiffusionModel)
    null = torch.full_like(LABEL, 10)
    for node in NODES:
        assert torch.equal(conditional(X, node, LABEL), model.denoiser()(X, node, LABEL))
        expected = (
            weak.denoiser()(X, node, LABEL) if name == "auto" else model.denoiser()(X, node, null)
        )
        assert torch.equal(unlabelled(X, node, LABEL), expected)


@torch.no_grad()
@pytest.mark.parametrize("name", FORMS)
def test_an_interval_over_all_levels_is_plain_guidance(
    model: DiffusionModel, form: Callable[[str], str], name: str
) -> None:
    everywhere = denoiser_for(model, setting(form(name), 2, (0, math.inf)), "float32")
    plain = denoiser_for(model, setting(form(name), 2), "float32")
    for node in NODES:
        assert torch.equal(everywhere(X, node, LABEL), plain(X, node, LABEL))


@torch.no_grad()
def test_the_forms_guide_each_in_its_own_way(
    model: DiffusionModel, form: Callable[[str], str]
) -> None:
    forms = [form(name) for name in FORMS] + ["rescaled,phi=0.2", "projected,eta=0.5,radius=1"]
    estimates = [denoiser_for(model, setting(f, 3), "float32")(X, NODES[1], LABEL) for f in forms]
    for i, one in enumerate(estimates):
        for other in estimates[:i]:
            assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("interval", [None, (0.5, 20.0), (1e6, 1e7)])
@pytest.mark.parametrize("weight", [-1, 0, 2])
@pytest.mark.parametrize("name", FORMS)
def test_evaluations_of_each_network_are_those_declared(
    model: DiffusionModel,
    form: Callable[[str], str],
    name: str,
    weight: float,
    interval: tuple[float, float] | None,
) -> None:
    chosen = setting(form(name), weight, interval)
    with count_evaluations() as counter:
        generate(model, chosen, Draw(3), precision="float32")
    declared = {k: 3 * n for k, n in chosen.evaluations_of_each(model).items() if n}
    assert dict(counter) == declared
    assert chosen.evaluations(model) * 3 == sum(counter.values())


def test_guiding_costs_less_within_an_interval(model: DiffusionModel) -> None:
    everywhere, within = setting("auto", 2), setting("auto", 2, (0.5, 20.0))
    assert everywhere.evaluations_of_each(model) == {"model": 6, "weak": 6}
    inside = within.evaluations_of_each(model)["weak"]
    assert 0 < inside < 6


def test_a_sample_set_says_what_guided_it(
    model: DiffusionModel, form: Callable[[str], str]
) -> None:
    auto = generate(model, setting("auto", 1, (0.5, 20)), Draw(2)).protocol
    assert auto["form"] == "auto"
    assert auto["interval"] == (0.5, 20)
    assert auto["guided_by"]["weights"] == "weak"
    assert auto["guided_by"]["sha256"] != auto["model"]["sha256"]
    by_classifier = generate(model, setting(form("classifier"), 1), Draw(2)).protocol
    assert by_classifier["guided_by"]["name"] == "classifier"
    assert generate(model, setting("rescaled", 1), Draw(2)).protocol["guided_by"] is None


def test_labels_are_used_but_where_no_network_is_given_any(model: DiffusionModel) -> None:
    for name in FORMS:
        assert setting(name, 0).uses_labels
        assert setting(name, -1).uses_labels == (name == "auto")


# What is refused.


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("weight", [-1.01, -3.0, float("nan"), float("inf"), float("-inf")])
def test_an_impossible_weight_is_refused(
    model: DiffusionModel, form: Callable[[str], str], name: str, weight: float
) -> None:
    assert ">= -1" in refusal(lambda: setting(form(name), weight).check(model))
    for possible in (-1.0, -0.5, 0.0, 7.5):
        setting(form(name), possible).check(model)


def without_dropout(model: DiffusionModel) -> DiffusionModel:
    assert isinstance(model.config, DiffusionConfig)
    training = model.config.training.model_copy(update={"label_dropout": 0.0})
    return replace(model, config=model.config.model_copy(update={"training": training}))


def test_a_model_without_label_dropout_has_no_unconditional_branch(
    model: DiffusionModel, form: Callable[[str], str]
) -> None:
    undropped = without_dropout(model)
    for name in ("classifier-free", "rescaled", "projected"):
        setting(name, 0).check(undropped)
        for weight in (-1.0, 0.1, 2.0):
            text = refusal(lambda w=weight, n=name: setting(n, w).check(undropped))  # type: ignore[misc]
            assert "label_dropout" in text
    setting("auto", 2).check(undropped)
    setting(form("classifier"), 2).check(undropped)
    assert "label_dropout" in refusal(lambda: setting(form("classifier"), -1).check(undropped))


def test_an_unconditional_model_is_guided_by_itself_alone(model: DiffusionModel) -> None:
    config = model.config.model_copy(
        update={"network": replace(model.config.network, classes=None)}
    )
    blind = replace(model, config=config)
    for name in FORMS:
        setting(name, 0).check(blind)
        if name != "auto":
            assert "unconditional" in refusal(lambda n=name: setting(n, 1).check(blind))  # type: ignore[misc]


def test_a_missing_or_foreign_partner_is_refused(
    model: DiffusionModel, model_folder: ModelFolder
) -> None:
    alone = load_checkpoint(model_folder("alone"))
    assert isinstance(alone, DiffusionModel)
    assert "weak" in refusal(lambda: setting("auto", 1).check(alone))
    shorter = model_folder("shorter", steps=500)
    assert "schedule" in refusal(lambda: setting(f"auto,by={shorter}", 1).check(model))
    wrong = f"classifier,by={model.folder}"
    assert "noisy" in refusal(lambda: setting(wrong, 1).check(model))
    wrong = "auto,by=fashion-mnist-classifier"
    assert "not a diffusion model" in refusal(lambda: setting(wrong, 1).check(model))
    assert "fashion-mnist" in refusal(lambda: setting("auto,by=fashion-mnits", 1).check(model))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("math:pi", "unknown form of guidance 'math:pi'"),
        ("clasifier-free", "did you mean 'classifier-free'"),
        ("rescaled,phi=2", "phi"),
        ("rescaled,psi=2", "takes phi"),
        ("projected,radius=0", "radius"),
        ("projected,eta=nan", "eta"),
    ],
)
def test_a_form_that_does_not_exist_is_refused(model: DiffusionModel, text: str, said: str) -> None:
    assert said in refusal(lambda: setting(text, 1).check(model))


@pytest.mark.parametrize("interval", [(2.0, 1.0), (-1.0, 1.0), (1.0, 1.0), (math.nan, 1.0)])
def test_an_empty_interval_is_refused(interval: tuple[float, float]) -> None:
    assert "0 <= low < high" in refusal(lambda: setting("classifier-free", 1, interval))


def test_what_guides_is_read_once_until_it_changes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "model"
    shutil.copytree(folder, own)
    model = load_checkpoint(own)
    assert isinstance(model, DiffusionModel)
    reads: list[Path] = []

    def counted(path: Path, weights: Weights) -> AnyCheckpoint:
        reads.append(path)
        return load_checkpoint(path, weights)

    monkeypatch.setattr(guides, "load_checkpoint", counted)
    setting = Setting(steps=2, guidance=1.0, form="auto")
    first = generate(model, setting, Draw(2)).protocol["guided_by"]
    assert generate(model, setting, Draw(2)).protocol["guided_by"] == first
    assert len(reads) == 1
    shutil.copyfile(own / "model.safetensors", own / "weak.safetensors")
    assert generate(model, setting, Draw(2)).protocol["guided_by"] != first
    assert len(reads) == 2
