"""A cell of a study: one setting, drawn and measured, kept as one JSON file and one picture."""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from underone.checkpoint import DiffusionModel
from underone.config import Config, parse
from underone.data import save_picture, tile
from underone.files import read_json, write_json
from underone.generation import Draw, Setting, generate
from underone.metrics import Extractor, Measurement, Reference, Yardstick, measure
from underone.metrics.measurement import PROTOCOL_VERSION, FloorRecord

PICTURE_COLUMNS = 10
PICTURE_IMAGES = 2 * PICTURE_COLUMNS


@dataclass(frozen=True)
class Bench:
    """What all cells of a study share: the model, and what it is measured with and against."""

    model: DiffusionModel
    extractor: Extractor
    reference: Reference

    @property
    def yardstick(self) -> Yardstick:
        """What samples are measured with and against."""
        return Yardstick(self.extractor, self.reference)


@dataclass(frozen=True)
class Cell:
    """One setting and the samples it is to draw."""

    setting: Setting
    draw: Draw

    def identity(self, bench: Bench) -> str:
        """A hash of all that decides the result: setting, draw, model, extractor, reference."""
        resolved = {
            "setting": asdict(self.setting),
            "draw": asdict(self.draw),
            "model": bench.model.sha256,
            "extractor": bench.extractor.sha256,
            "reference": bench.reference.sha256,
            "protocol": PROTOCOL_VERSION,
        }
        return hashlib.sha256(json.dumps(resolved, sort_keys=True).encode()).hexdigest()[:16]

    def cost(self, model: DiffusionModel) -> int:
        """Network evaluations the whole cell takes."""
        return self.draw.count * self.setting.evaluations(model)


class CellResult(Config):
    """A measured cell: `seconds` is the time sampling took, `evaluations` what an image cost."""

    id: str
    setting: Setting
    measurement: Measurement
    evaluations: float
    seconds: float

    @property
    def floor(self) -> FloorRecord:
        """What real images score; a study's reference always holds some out."""
        if self.measurement.floor is None:
            raise ValueError(f"cell {self.id} was measured against a reference without a floor")
        return self.measurement.floor


def result_path(folder: Path, identity: str) -> Path:
    """Where a cell's result is kept."""
    return folder / "cells" / f"{identity}.json"


def picture_path(folder: Path, identity: str) -> Path:
    """Where the picture of a cell's first samples is kept."""
    return folder / "cells" / f"{identity}.png"


def finished(folder: Path, identity: str) -> CellResult | None:
    """A cell's result, or None where it has not been measured yet."""
    path = result_path(folder, identity)
    return parse(CellResult, read_json(path), str(path)) if path.exists() else None


def run_cell(
    cell: Cell, bench: Bench, folder: Path, on_images: Callable[[int], object]
) -> CellResult:
    """Draw and measure a cell, and write its picture and then its result."""
    identity = cell.identity(bench)
    started = time.perf_counter()
    samples = generate(bench.model, cell.setting, cell.draw, on_images=on_images)
    seconds = time.perf_counter() - started
    result = CellResult(
        id=identity,
        setting=cell.setting,
        measurement=measure(samples, bench.yardstick),
        evaluations=sum(samples.protocol["evaluations"].values()),
        seconds=seconds,
    )
    shown = samples.images[:PICTURE_IMAGES]
    save_picture(tile(shown, columns=PICTURE_COLUMNS), picture_path(folder, identity))
    write_json(result_path(folder, identity), result.model_dump(mode="json"))
    return result
