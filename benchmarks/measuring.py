"""What the benchmarks share: spreads of repeated measurements, the machine, packages to compare."""

import argparse
import importlib
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from click.testing import CliRunner

from underone.checkpoint import DiffusionModel
from underone.cli import underone_command


@dataclass(frozen=True)
class Spread:
    """The median of repeated measurements, and their quartiles."""

    lower: float
    median: float
    upper: float


def spread(values: Sequence[float]) -> Spread:
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    return Spread(*statistics.quantiles(values, n=4, method="inclusive"))


def compiled(model: DiffusionModel) -> DiffusionModel:
    """The model with its network compiled, channels last."""
    network = torch.compile(model.network.to(memory_format=torch.channels_last))
    return replace(model, network=network)


def from_tests(name: str) -> ModuleType:
    """A module of the test suite: how peers are imported, and arithmetic in long double."""
    folder = str(Path(__file__).parent.parent / "tests")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)


def asked(*words: str) -> Any:
    """What a command of underone answers with --json; pictures go nowhere that is kept."""
    runner = CliRunner()
    with runner.isolated_filesystem():
        done = runner.invoke(underone_command, [*words, "--json"], catch_exceptions=False)
    return json.loads(done.stdout)


def run_and_tell(
    about: str,
    path: Path,
    run: Callable[[dict[str, Any]], None],
    told: Callable[[dict[str, Any]], str],
) -> None:
    """The command of a script that fills its JSON, or with `table` only prints what is there."""
    parser = argparse.ArgumentParser(description=about.partition("\n")[0])
    parser.add_argument("what", nargs="?", choices=["table"])
    results = json.loads(path.read_text()) if path.exists() else {}
    if parser.parse_args().what != "table":
        run(results)
    print(told(results))


def environment(*installed: str) -> dict[str, Any]:
    """The machine, how busy it was before, and the versions of packages."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average_before": os.getloadavg()[0],
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numpy", *installed)},
    }


def _cpu_model() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
