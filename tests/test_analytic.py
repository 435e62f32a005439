"""The variance of the data given x_t: estimated rightly, kept, and used at w = 0 only."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from conftest import ModelFolder
from helpers import AsNetwork
from underone import analytic
from underone.checkpoint import DiffusionModel, load_checkpoint
from underone.conformance.oracles import GaussianData
from underone.data import Dataset, to_uint8
from underone.diffusion import AnalyticDDPM, LinearBeta, Noise, Trailing, nodes
from underone.errors import UserError
from underone.generation import ANALYTIC, Draw, Setting, generate, sampler_for
from underone.zoo import load_model

DEVIATION = 0.3


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Images whose elements are independent and normal, found wherever data are looked for."""
    noise = torch.randn(400, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    images = to_uint8(DEVIATION * noise)
    classes = tuple("0123456789")
    data = Dataset("fashion-mnist", "train", images, torch.arange(400) % 10, classes)
    monkeypatch.setattr(analytic, "find_training_split", lambda name: data)
    return data


@pytest.fixture
def model(model_folder: ModelFolder, data: Dataset) -> DiffusionModel:
    """A model in a folder, of a network that is exact for `data`."""
    model = load_checkpoint(model_folder())
    assert isinstance(model, DiffusionModel)
    record = model.config.data.model_copy(update={"sha256": data.sha256})
    exact = AsNetwork(GaussianData(LinearBeta(), 0.0, DEVIATION), Noise())
    exact.register_parameter("any", torch.nn.Parameter(torch.zeros(1)))
    config = model.config.model_copy(update={"data": record})
    return replace(model, config=config, network=exact)


def test_the_variance_of_gaussian_data_is_found(model: DiffusionModel) -> None:
    found = analytic.data_variance(model)
    oracle = GaussianData(LinearBeta(), 0.0, DEVIATION)
    for node in nodes(Trailing(), LinearBeta(), 25)[:-1]:
        expected = DEVIATION**2 * node.sigma**2 / oracle.variance(node)
        assert found(node).item() == pytest.approx(expected.item(), rel=0.02)


def test_it_is_estimated_once_and_kept_beside_the_model(
    model: DiffusionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not analytic.is_known(model)
    first = analytic.data_variance(model)
    assert analytic.is_known(model)
    monkeypatch.setattr(analytic, "estimate", None)
    assert analytic.data_variance(model) == first
    assert not analytic.is_known(replace(model, sha256="1" * 64))  # other weights


def test_a_folder_of_someone_else_is_no_obstacle(
    model: DiffusionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, value: object) -> None:
        raise PermissionError(path)

    monkeypatch.setattr(analytic, "write_json", refuse)
    assert isinstance(analytic.data_variance(model), analytic.DataVariance)
    assert not analytic.is_known(model)


def test_other_data_than_the_model_was_trained_on_are_refused(
    model_folder: ModelFolder, data: Dataset
) -> None:
    model = load_checkpoint(model_folder())
    assert isinstance(model, DiffusionModel)
    with pytest.raises(UserError, match="was trained on other data than the fashion-mnist"):
        analytic.data_variance(model)


def curve(levels: list[float], errors: list[float]) -> str:
    known = {"model_sha256": "1", "images": 1, "log_snr": levels, "squared_error": errors}
    return json.dumps(known)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "{}",
        '{"model_sha256": "1", "images": "many"}',
        curve([], []),
        curve([0.0, 1.0], [0.1]),
        curve([1.0, 0.0], [0.1, 0.1]),
        curve([0.0, 1.0], [0.1, 0.0]),
    ],
)
def test_a_broken_file_is_named(model: DiffusionModel, content: str) -> None:
    path = model.folder / analytic.FILE
    path.write_text(content)
    with pytest.raises(UserError, match=re.escape(analytic.FILE)):
        analytic.data_variance(model)


@pytest.mark.parametrize("guidance", [-1.0, 0.5])
def test_a_guided_request_is_refused(small_model: DiffusionModel, guidance: float) -> None:
    with pytest.raises(UserError, match="ddpm-analytic holds at w = 0 only"):
        generate(small_model, Setting(ANALYTIC, 5, guidance=guidance), Draw(2))


def test_the_shipped_model_has_its_estimate_and_costs_no_more(tmp_path: Path) -> None:
    model = load_model("fashion-mnist")
    assert analytic.is_known(model)
    kept = json.loads((model.folder / analytic.FILE).read_text())
    assert 0 < min(kept["squared_error"]) < 1e-3
    sampler = sampler_for(model, Setting(ANALYTIC, 4))
    assert isinstance(sampler, AnalyticDDPM)
    deviations = [
        sampler.data_variance(node).sqrt().item()
        for node in nodes(Trailing(), model.config.schedule, 10)[:-1]
    ]
    # The less noise, the less is open, from the data's own spread to nearly nothing.
    assert deviations == sorted(deviations, reverse=True)
    assert 0.3 < deviations[0] < 1
    samples = generate(model, Setting(ANALYTIC, 4), Draw(3))
    assert samples.protocol["evaluations"] == {"model": 4}
