"""A cell of a study: one setting of one model on one block of seeds, drawn and measured."""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from underone.checkpoint import DiffusionModel, GenerativeModel
from underone.config import Config
from underone.data import SampleSet, tile
from underone.data.picture import png_bytes
from underone.diffusion import SamplingDivergedError
from underone.errors import UserError
from underone.generation import (
    Draw,
    Setting,
    generate,
    source_of,
)
from underone.metrics import Measurement
from underone.metrics.measurement import PROTOCOL_VERSION, FloorRecord
from underone.modules import own_parts, source_sha256
from underone.study.bench import Bench

PICTURE_COLUMNS = 10
PICTURE_IMAGES = 2 * PICTURE_COLUMNS


@dataclass(frozen=True)
class Cell:
    """A setting of the model of a name, and the samples it is to draw."""

    model: str
    setting: Setting
    draw: Draw

    def identity(self, bench: Bench) -> str:
        """A hash of all that is asked for, of what it is drawn with and measured by.

        What only rounds otherwise (versions, threads, whether a network is compiled) is no part of
        it: it is kept the same by the plan, and told beside every figure.
        """
        resolved = {
            "setting": asdict(self.setting),
            "draw": asdict(self.draw),
            "model": bench.models[self.model].sha256,
            **_beside_the_model(bench.models[self.model], self.setting),
            "extractors": [by.extractor.sha256 for by in bench.yardsticks],
            "references": [by.reference.sha256 for by in bench.yardsticks],
            "judges": [by.judge and by.judge.classifier.sha256 for by in bench.yardsticks],
            "metrics": bench.metrics,
            "precision": bench.precision,
            "protocol": PROTOCOL_VERSION,
        }
        return hashlib.sha256(json.dumps(resolved, sort_keys=True).encode()).hexdigest()[:16]

    def evaluations(self, bench: Bench) -> int:
        """Network evaluations the whole cell takes, as planned with."""
        return self.draw.count * self.setting.evaluations(bench.models[self.model])


def _beside_the_model(model: GenerativeModel, setting: Setting) -> dict[str, str]:
    """What names do not say: samplers may be tuned or written anew, models distilled or trained."""
    own = own_parts(setting.sampler) + own_parts(setting.grid)
    found = {f"code of {each}": source_sha256(each) for each in own}
    if not isinstance(model, DiffusionModel):
        return found
    found |= source_of(setting).identity(model, setting)
    if (partner := setting.partner(model)) is not None:
        found["guided_by"] = partner.sha256
    return found


def made_otherwise(cell: Cell, where: str) -> UserError:
    """That what a cell is made with beside its model is not what it was."""
    return UserError(
        f"{cell.setting.sampler} at {cell.setting.steps} steps is made with something else {where} "
        "(code of your own, what is tuned for it, or what guides it): all need the same files, "
        "from the first cell of a study to its last"
    )


class Done(Config):
    """A cell that was drawn, under its identity."""

    id: str
    model: str
    setting: Setting
    draw: Draw

    @property
    def cell(self) -> Cell:
        """What was drawn."""
        return Cell(self.model, self.setting, self.draw)


class Divergence(Done):
    """A cell whose sampling has diverged, so that there is nothing to measure."""

    told: str


class CellResult(Done):
    """A measured cell, by each of the study's yardsticks.

    `evaluations` are what an image cost of each network, `seconds` the time sampling took.
    """

    measurements: tuple[Measurement, ...]
    evaluations: dict[str, float]
    seconds: float

    @property
    def measurement(self) -> Measurement:
        """By the yardstick that settings are ranked by."""
        return self.measurements[0]

    @property
    def fid(self) -> float:
        """The FID that settings are ranked by."""
        return self.measurement.fid

    @property
    def nfe(self) -> float:
        """Network evaluations an image, of all networks together."""
        return sum(self.evaluations.values())

    @property
    def floor(self) -> FloorRecord | None:
        """What real images score, where the reference holds enough of the classes out."""
        return self.measurement.floor


@dataclass(frozen=True)
class Outcome:
    """A cell's result, and its first samples as a PNG file's bytes."""

    result: CellResult
    picture: bytes

    @property
    def cell(self) -> Cell:
        """What was measured."""
        return self.result.cell


def run_cell(
    cell: Cell, bench: Bench, on_images: Callable[[int], object] = lambda images: None
) -> Outcome | Divergence:
    """Draw and measure a cell; its samples' features serve all its metrics."""
    # Before the first image: files that it is made with may be others when the last is drawn.
    identity = cell.identity(bench)
    started = time.perf_counter()
    try:
        samples = generate(
            bench.models[cell.model],
            cell.setting,
            cell.draw,
            precision=bench.precision,
            on_images=on_images,
        )
    except SamplingDivergedError as error:
        return diverged(cell, identity, error)
    return measured(cell, identity, bench, samples, time.perf_counter() - started)


def diverged(cell: Cell, identity: str, error: SamplingDivergedError) -> Divergence:
    """What is kept of a cell that cannot be measured, so that it is not drawn again."""
    return Divergence(
        id=identity,
        model=cell.model,
        setting=cell.setting,
        draw=cell.draw,
        told=str(error),
    )


def measured(
    cell: Cell, identity: str, bench: Bench, samples: SampleSet, seconds: float
) -> Outcome:
    """The outcome of a cell whose samples took so many `seconds` to draw."""
    result = CellResult(
        id=identity,
        model=cell.model,
        setting=cell.setting,
        draw=cell.draw,
        measurements=bench.measured(samples),
        evaluations=samples.protocol["evaluations"],
        seconds=seconds,
    )
    shown = samples.images[:PICTURE_IMAGES]
    return Outcome(result, png_bytes(tile(shown, columns=PICTURE_COLUMNS)))
