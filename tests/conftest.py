"""What many tests need: a small model in a checkpoint folder, small studies, and commands run."""

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
import torch
from hypothesis import settings
from torch import nn

from studies import run_of, small_study
from underone.checkpoint import (
    DataRecord,
    DiffusionConfig,
    DiffusionModel,
    TrainingRecord,
    load_checkpoint,
    save_config,
    save_weights,
)
from underone.cli import main
from underone.diffusion import LinearBeta, Noise
from underone.metrics import Reference, load_reference
from underone.networks import UNetConfig, build_network
from underone.networks.layers import Revision
from underone.shipped import zoo_folder
from underone.study.analysis import analysed
from underone.study.bench import Bench, open_bench
from underone.study.definition import Study
from underone.study.engine import LocalEngine
from underone.study.report import write_report
from underone.study.run import StudyRun, open_run
from underone.training import run as run_module

# Deadlines measure how busy the machine is, not the code.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

# On tensors as small as these, threads cost far more in waiting for each other than they save.
torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def few_timings() -> Iterator[None]:
    """Costs depend on the machine, so that a single timing is enough."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("underone.study.costs._TIMINGS", 1)
        patch.setattr("underone.study.costs._MEASURED_IMAGES", 60)
        yield


@pytest.fixture(autouse=True, scope="session")
def references_read_once() -> Iterator[None]:
    """The shipped references, shared since they are frozen and compute much at first use."""
    read = functools.cache(load_reference)

    def shared(path: Path) -> Reference:
        return read(path) if path.is_relative_to(zoo_folder()) else load_reference(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("underone.zoo.load_reference", shared)
        yield


@contextmanager
def without_pictures() -> Iterator[None]:
    """Saving a run draws two pictures, which is slow and tested where they are looked at."""
    with mock.patch.multiple(run_module, draw_loss=mock.DEFAULT, draw_preview=mock.DEFAULT):
        yield


@pytest.fixture(scope="module")
def no_pictures() -> Iterator[None]:
    with without_pictures():
        yield


ModelFolder = Callable[..., Path]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """Makes the checkpoint folder of a small random network on FashionMNIST's shape."""

    def make(
        name: str = "small",
        revision: Revision = 2,
        label_dropout: float = 0.1,
        steps: int = 1000,
        classes: int | None = 10,
    ) -> Path:
        folder = tmp_path_factory.mktemp("models") / name
        config = DiffusionConfig(
            network=UNetConfig(
                image_size=28,
                channels=1,
                classes=classes,
                width=8,
                attention=(7,),
                heads=2,
                patch=2,
                revision=revision,
            ),
            schedule=LinearBeta(steps=steps),
            prediction=Noise(),
            data=DataRecord(name="fashion-mnist", sha256="0" * 64, class_names=tuple("0123456789")),
            training=TrainingRecord(
                recipe="none",
                steps=1,
                batch_size=1,
                images_seen=1,
                seconds=1.0,
                seed=0,
                label_dropout=label_dropout,
                torch="2",
            ),
        )
        torch.manual_seed(0)
        network = build_network(config.network)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.1)
        save_config(folder, config)
        save_weights(folder, network.state_dict())
        return folder

    return make


@pytest.fixture(scope="session")
def small_model(model_folder: ModelFolder) -> DiffusionModel:
    """A small random diffusion model."""
    model = load_checkpoint(model_folder())
    assert isinstance(model, DiffusionModel)
    return model


@pytest.fixture(scope="session")
def folder_of_model(model_folder: ModelFolder) -> Path:
    """A model of ten steps in all, so that every setting is cheap."""
    return model_folder("ten-steps", steps=10)


@pytest.fixture(scope="session")
def study(folder_of_model: Path) -> Study:
    """A study of a few cells."""
    return small_study(folder_of_model)


@pytest.fixture(scope="session")
def bench(study: Study) -> Bench:
    """The bench of the small study."""
    return open_bench(study)


@pytest.fixture(scope="session")
def done(study: Study, bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> StudyRun:
    """The study run to its end, with contests."""
    more = study.model_copy(update={"most_blocks": 3})
    run, continued = open_run(tmp_path_factory.mktemp("studies") / "done", more, bench)
    assert not continued
    for _ in run.advance(LocalEngine(bench, 1), lambda cell, images: None):
        pass
    return run


@pytest.fixture(scope="session")
def finished(model_folder: ModelFolder, tmp_path_factory: pytest.TempPathFactory) -> StudyRun:
    """A study by two extractors, run to its end, with its report."""
    study = small_study(
        # A name that would be markup, were it not escaped.
        model_folder("ten <b>steps</b> & more", steps=10),
        title="Two samplers <i>& one</i> weight",
        references=["fashion-mnist", "fashion-mnist-transformer"],
        metrics=["fid", "intra-fid", "kid", "manifold", "consistency"],
    )
    run = run_of(study, open_bench(study), tmp_path_factory.mktemp("studies") / "finished")
    for _ in run.advance(LocalEngine(run.bench, 1), lambda cell, images: None):
        pass
    write_report(analysed(run))
    return run


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process: (exit status, standard output, standard error)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["underone", *map(str, arguments)])
        try:
            main()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call
