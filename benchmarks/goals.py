"""The question: how far are the shipped models from what the title promises?

    python benchmarks/goals.py           # draws and measures what is missing
    python benchmarks/goals.py table     # the result as Markdown

For every goal the best of a few settings, which the published study put first, is chosen by FID on
2,000 balanced samples of some seeds, and measured on 10,000 of others: FID and intra-class FID in
the classifier's features, FID in those of the two other extractors, each beside what as many real
images score, and the seconds that 1,000 images took. Everything is kept in `goals.json` once it is
measured: stopped at any moment, the same command goes on. Measure on an idle machine.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from measuring import environment, run_and_tell

from underone.files import write_json
from underone.generation import Draw, Setting, compiled, generate
from underone.metrics import measure
from underone.study.words import setting_title
from underone.zoo import load_model, load_yardstick

RESULTS = Path(__file__).with_suffix(".json")
CHOSEN_ON, MEASURED_ON = Draw(2000, seed=800), Draw(10_000, seed=801)
EXTRACTORS = ("fashion-mnist", "fashion-mnist-transformer", "fashion-mnist-encoder")
PLAIN, BEST = "fashion-mnist", "fashion-mnist-preconditioned"
GRID = "log-snr,last=20"


@dataclass(frozen=True)
class Goal:
    """An FID to be reached by a model, with one of these settings."""

    title: str
    fid: float
    model: str
    settings: tuple[Setting, ...]


GOALS = (
    Goal(
        "the plain DDPM",
        0.6,
        PLAIN,
        (
            Setting("ddim,eta=0.5", 50),
            Setting("ddpm-small", 50),
            Setting("ddpm-analytic", 50),
            Setting("sa-solver", 20, GRID),
        ),
    ),
    Goal(
        "the best model",
        0.15,
        BEST,
        (
            Setting("sa-solver", 20, GRID),
            Setting("dpm-solver-2m-sde", 20, GRID),
            Setting("dpm-solver-3m-sde", 20, GRID),
        ),
    ),
    Goal(
        "10 evaluations",
        0.2,
        BEST,
        (
            Setting("sa-solver", 10, GRID),
            Setting("dpm-solver-3m-exact", 10, GRID),
            Setting("dpm-solver-3m-exact", 8, GRID),
            Setting("dpm-solver-3m-sde", 10, GRID),
            Setting("tuned", 8),
        ),
    ),
    Goal("5 evaluations", 0.3, BEST, (Setting("tuned", 5), Setting("unipc", 5, GRID))),
    Goal(
        "1,000 images in 12 seconds",
        0.3,
        BEST,
        (Setting("tuned", 6), Setting("tuned", 7), Setting("unipc", 7, GRID)),
    ),
)


def screen(goal: Goal, fids: dict[str, float], save: Callable[[], None]) -> Setting:
    """The setting with the lowest FID on the first seeds; `fids` fills, saved after each."""
    by_title = {setting_title(setting): setting for setting in goal.settings}
    model, by = load_model(goal.model), load_yardstick(EXTRACTORS[0])
    for title in [title for title in by_title if title not in fids]:
        fids[title] = measure(generate(model, by_title[title], CHOSEN_ON), by).fid
        print(f"{goal.title}: {title}: {fids[title]:.3f}", flush=True)
        save()
    return by_title[min(fids, key=lambda title: fids[title])]


def measured(goal: Goal, setting: Setting) -> dict[str, Any]:
    """Everything that is told of the setting, on seeds that it was not chosen on."""
    model = compiled(load_model(goal.model))
    started = time.perf_counter()
    samples = generate(model, setting, MEASURED_ON)
    seconds = time.perf_counter() - started
    figures: dict[str, dict[str, float | None]] = {}
    for name in EXTRACTORS:
        metrics = ("fid", "intra-fid") if name == EXTRACTORS[0] else ("fid",)
        result = measure(samples, load_yardstick(name), metrics)
        real = {} if result.floor is None else result.floor.figures
        for metric in metrics:
            floor = real.get(metric)
            figures[f"{metric}@{name}"] = {
                "value": result.figures[metric].value,
                "real": None if floor is None else floor.value,
            }
    return {
        "setting": asdict(setting),
        "title": setting_title(setting),
        "evaluations": sum(samples.protocol["evaluations"].values()),
        "seconds_per_1000": 1000 * seconds / MEASURED_ON.count,
        "figures": figures,
    }


def run(results: dict[str, Any]) -> None:
    results.setdefault("environment", environment())
    goals = results.setdefault("goals", {})
    for goal in GOALS:
        kept = goals.setdefault(goal.title, {"fid": goal.fid, "chosen_by": {}})
        if "measured" not in kept:
            setting = screen(goal, kept["chosen_by"], lambda: write_json(RESULTS, results))
            kept["measured"] = measured(goal, setting)
            write_json(RESULTS, results)
            print(row(goal.title, kept), flush=True)


def row(title: str, kept: dict[str, Any]) -> str:
    """A goal's row of the table."""
    found = kept["measured"]
    figures = (f"{each['value']:.3f} ({each['real']:.3f})" for each in found["figures"].values())
    cells = (
        title,
        f"{kept['fid']:g}",
        found["title"],
        f"{found['evaluations']:g}",
        *figures,
        f"{found['seconds_per_1000']:.0f}",
    )
    return f"| {' | '.join(cells)} |"


def table(results: dict[str, Any]) -> str:
    """All goals; in brackets what as many real images score."""
    figures = ("FID (real images)", "intra-FID", *(f"FID@{name}" for name in EXTRACTORS[1:]))
    heads = ("goal", "FID at most", "setting", "evaluations", *figures, "seconds for 1,000")
    rows = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    done = (row(title, kept) for title, kept in results["goals"].items() if "measured" in kept)
    return "\n".join([*rows, *done])


if __name__ == "__main__":
    run_and_tell(str(__doc__), RESULTS, run, table)
