"""The guide's page: one HTML file that opens offline, and all its numbers as JSON."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from underone.files import write_json, write_text
from underone.generation import Setting
from underone.study.cell import Bench, CellResult, picture_path
from underone.study.charts import fid_against_guidance, fid_against_steps
from underone.study.guide import Guide
from underone.study.plan import GUIDANCE_SAMPLER


@dataclass(frozen=True)
class Tables:
    """A guide's results as its two tables: samplers x steps at w = 0, and the weights."""

    results: Sequence[CellResult]

    @cached_property
    def conditional(self) -> list[CellResult]:
        """The results at w = 0."""
        return [r for r in self.results if r.setting.guidance == 0]

    @cached_property
    def samplers(self) -> list[str]:
        """The rows: samplers by name."""
        return sorted({r.setting.sampler for r in self.conditional})

    @cached_property
    def steps(self) -> list[int]:
        """The columns: step counts."""
        return sorted({r.setting.steps for r in self.conditional})

    def at(self, sampler: str, steps: int) -> CellResult | None:
        """The cell of a row and column."""
        return next(
            (
                r
                for r in self.conditional
                if (r.setting.sampler, r.setting.steps) == (sampler, steps)
            ),
            None,
        )

    @cached_property
    def guidance(self) -> list[CellResult]:
        """The ladder of weights, with the w = 0 cell of the same sampler and steps."""
        guided = [r for r in self.results if r.setting.guidance != 0]
        steps = {r.setting.steps for r in guided}
        same = [
            r
            for r in self.conditional
            if r.setting.sampler == GUIDANCE_SAMPLER and r.setting.steps in steps
        ]
        return sorted([*guided, *same], key=lambda r: r.setting.guidance)

    @cached_property
    def best(self) -> CellResult:
        """The lowest FID."""
        return min(self.results, key=lambda r: r.measurement.fid)


def setting_title(setting: Setting) -> str:
    """A setting in words."""
    weight = "" if setting.guidance == 0 else f", w = {setting.guidance:g}"
    return f"{setting.sampler}, {setting.steps} steps{weight}"


def findings(tables: Tables) -> list[str]:
    """What the numbers say so far, in sentences that claim no more than one seed block can."""
    best = tables.best
    floor = best.floor
    sentences = [
        f"The lowest FID is {best.measurement.fid:.3f}, by {setting_title(best.setting)} "
        f"({best.evaluations:g} network evaluations an image). Real held-out images, "
        f"{floor.count:,} at a time, score {floor.fid:.3f}.",
    ]
    for steps in (tables.steps[0], tables.steps[-1]):
        row = [r for r in tables.conditional if r.setting.steps == steps]
        if len(row) > 1:
            order = sorted(row, key=lambda r: r.measurement.fid)
            listed = ", ".join(f"{r.setting.sampler} {r.measurement.fid:.2f}" for r in order)
            sentences.append(f"At {steps} steps: {listed}.")
    ladder = tables.guidance
    if len(ladder) > 1:
        lowest = min(ladder, key=lambda r: r.measurement.fid)
        sentences.append(
            f"Along the guidance weights, FID is lowest at w = {lowest.setting.guidance:g} "
            f"({lowest.measurement.fid:.3f}). FID rewards diversity as much as looks: compare "
            f"the pictures of w = {ladder[-1].setting.guidance:g} before you believe it."
        )
    sentences.append(
        "All settings share one block of seeds, so differences between them are paired, but this "
        "page has no second block to say how large chance is: do not read small differences."
    )
    if best.measurement.rank_deficient:
        sentences.append(
            "There are no more samples than feature dimensions: take these figures as a first look."
        )
    return sentences


def write_report(guide: Guide, results: Sequence[CellResult]) -> Path:
    """Write `report.html` and `results.json` into the guide's folder; the page's path."""
    tables = Tables(results)
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(
        (files("underone.study") / "report.html.jinja").read_text(encoding="utf-8")
    )
    page = template.render(
        bench=guide.bench,
        plan=guide.plan,
        tables=tables,
        findings=findings(tables),
        title=setting_title,
        steps_chart=fid_against_steps(tables.conditional, tables.samplers),
        guidance_chart=fid_against_guidance(tables.guidance) if len(tables.guidance) > 1 else "",
        picture=lambda result: _data_uri(picture_path(guide.folder, result.id)),
        pictured=sorted(
            results, key=lambda r: (r.setting.guidance, r.setting.sampler, r.setting.steps)
        ),
        class_names=guide.bench.model.config.data.class_names,
        complete=len(results) == len(guide.cells),
    )
    write_json(guide.folder / "results.json", summary(guide.bench, results))
    write_text(guide.folder / "report.html", page)
    return guide.folder / "report.html"


def summary(bench: Bench, results: Sequence[CellResult]) -> dict[str, Any]:
    """All results as one JSON document."""
    return {
        "model": {"name": bench.model.name, "sha256": bench.model.sha256},
        "cells": [result.model_dump(mode="json") for result in results],
    }


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
