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
    """A model by its name, a setting, and the samples to draw."""

    model: str
    setting: Setting
    draw: Draw

    def identity(self, bench: Bench) -> str:
        """A hash of what is asked for, and of all that draws and measures it.

        What only changes the rounding (versions, threads, compiled networks) is left out: the plan
        keeps it the same, and it is stated beside every figure.
        """
        resolved = {
            "setting": asdict(self.setting),
            "draw": asdict(self.draw),
            "model": bench.models[self.model].sha256,
            **_made_from(bench.models[self.model], self.setting),
            "extractors": [by.extractor.sha256 for by in bench.yardsticks],
            "references": [by.reference.sha256 for by in bench.yardsticks],
            "judges": [by.judge and by.judge.classifier.sha256 for by in bench.yardsticks],
            "metrics": bench.metrics,
            "precision": bench.precision,
            "protocol": PROTOCOL_VERSION,
        }
        return hashlib.sha256(json.dumps(resolved, sort_keys=True).encode()).hexdigest()[:16]

    def evaluations(self, bench: Bench) -> int:
        """Network evaluations that the whole cell is expected to take, for plans."""
        return self.draw.count * self.setting.evaluations(bench.models[self.model])


def _made_from(model: GenerativeModel, setting: Setting) -> dict[str, str]:
    """What may change under the same names: code, tuned samplers, distillations and guides."""
    own = own_parts(setting.sampler) + own_parts(setting.grid)
    found = {f"code of {each}": source_sha256(each) for each in own}
    if not isinstance(model, DiffusionModel):
        return found
    found |= source_of(setting).identity(model, setting)
    if (partner := setting.partner(model)) is not None:
        found["guided_by"] = partner.sha256
    return found


def files_differ(cell: Cell, where: str) -> UserError:
    """The error that a cell was not drawn with the files that it was planned with."""
    return UserError(
        f"{cell.setting.sampler} at {cell.setting.steps} steps has other files {where} (code of "
        "your own, a tuned sampler, or a model that guides): keep them the same everywhere, from "
        "the first cell of a study to its last"
    )


class Done(Config):
    """A cell that was drawn, under its identity."""

    id: str
    model: str
    setting: Setting
    draw: Draw

    @property
    def cell(self) -> Cell:
        """The cell that was drawn."""
        return Cell(self.model, self.setting, self.draw)


class Divergence(Done):
    """A cell whose sampling has diverged, so that there is nothing to measure."""

    told: str


class CellResult(Done):
    """A cell measured by each of the study's yardsticks.

    `evaluations` are those of each network per image, `seconds` the time that sampling took.
    """

    measurements: tuple[Measurement, ...]
    evaluations: dict[str, float]
    seconds: float

    @property
    def measurement(self) -> Measurement:
        """The measurement by the yardstick that settings are ranked by."""
        return self.measurements[0]

    @property
    def fid(self) -> float:
        """The FID that settings are ranked by."""
        return self.measurement.fid

    @property
    def nfe(self) -> float:
        """Network evaluations per image, of all networks together."""
        return sum(self.evaluations.values())

    @property
    def floor(self) -> FloorRecord | None:
        """The scores of real images, where the reference holds out enough of the classes."""
        return self.measurement.floor


@dataclass(frozen=True)
class Outcome:
    """A cell's result, and its first samples as a PNG file's bytes."""

    result: CellResult
    picture: bytes

    @property
    def cell(self) -> Cell:
        """The cell that was measured."""
        return self.result.cell


def run_cell(
    cell: Cell, bench: Bench, on_images: Callable[[int], object] = lambda images: None
) -> Outcome | Divergence:
    """Draw and measure a cell; its samples' features serve all its metrics."""
    # Before the first image, since files may be replaced while the cell is drawn.
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
    """The record of a cell that cannot be measured, kept so that it is not drawn again."""
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
    """The outcome of a cell whose samples took `seconds` to draw."""
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
