"""Studies killed at random moments end as if nothing had happened."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from conftest import ModelFolder
from studies import timeless
from underone.files import whole_files
from underone.study.folder import Folder

# What a run may add, at most, before it is killed: a study of more than so many cells a kill
# is never done before its last kill.
CELLS_A_KILL = 3


@pytest.mark.parametrize(
    "kills",
    [pytest.param(2, marks=pytest.mark.slow), pytest.param(20, marks=pytest.mark.endurance)],
)
def test_killed_at_random_moments_it_ends_as_if_undisturbed(
    kills: int, tmp_path: Path, model_folder: ModelFolder
) -> None:
    """kill -9 before a run's first cell or after it, and a rerun; no complete cell is run again."""
    model = model_folder("ten-steps", steps=10)
    toml = study_of_many_cells(tmp_path / "study.toml", model, min(kills, 10))
    undisturbed, folder = (Folder(tmp_path / name) for name in ("undisturbed", "killed"))
    with running(toml, undisturbed) as process:
        begin = seconds_until(process, lambda: bool(cells_of(undisturbed)))
        assert process.wait() == 0
    assert len(cells_of(undisturbed)) > CELLS_A_KILL * kills
    moments = random.Random(0)
    seen: dict[str, tuple[int, bytes]] = {}
    landed, after_a_cell = 0, 0
    for kill in range(kills):
        with running(toml, folder) as process:
            had = len(cells_of(folder))
            added = partial(cells_added, folder, had)
            # While it begins, and every second time once it has done a cell.
            if kill % 2:
                seconds_until(process, partial(added, 1))
                moment = moments.uniform(0, 0.5)
            else:
                moment = moments.uniform(0, begin)
            seconds_until(process, partial(added, CELLS_A_KILL), moment)
            process.kill()
        landed += process.returncode == -signal.SIGKILL
        after_a_cell += len(cells_of(folder)) > had
        for name, written in cells_of(folder).items():
            assert seen.setdefault(name, written) == written, "a complete cell was run again"
    assert landed == kills, "a run was over before it was killed"
    assert after_a_cell >= kills // 2
    assert len(seen) < len(cells_of(undisturbed))
    with running(toml, folder) as process:
        assert process.wait() == 0
    assert cells_of(folder).items() >= seen.items(), "a complete cell was run again"
    assert all_measured(folder) == all_measured(undisturbed)


def study_of_many_cells(path: Path, model: Path, most_steps: int) -> Path:
    """A study of four settings for each number of steps, and of further blocks of the best."""
    steps = list(range(1, most_steps + 1))
    slices: list[dict[str, object]] = [
        {"name": "samplers", "sampler": ["ddim", "ddpm-small"], "steps": steps},
        {"name": "guidance", "steps": steps, "guidance": [-1, 1]},
    ]
    lines = [
        f"model = {json.dumps(str(model))}",
        "samples = 20",
        'metrics = ["fid", "manifold"]',
        "most_blocks = 3",
        *(
            "[[slices]]\n"
            + "\n".join(f"{key} = {json.dumps(value)}" for key, value in each.items())
            for each in slices
        ),
    ]
    path.write_text("\n".join(lines))
    return path


def running(toml: Path, folder: Folder) -> subprocess.Popen[bytes]:
    """The command that runs a study in that folder, or goes on with it."""
    return subprocess.Popen(
        [sys.executable, "-m", "underone", "study", str(toml), "--out", str(folder.path)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def seconds_until(
    process: subprocess.Popen[bytes], happened: Callable[[], bool], most: float = math.inf
) -> float:
    """Wait for something, for the end of the process or for so many seconds; how long it was."""
    started = time.monotonic()
    while (waited := time.monotonic() - started) < most and process.poll() is None:
        if happened():
            break
        time.sleep(0.01)
    return waited


def cells_added(folder: Folder, had: int, least: int) -> bool:
    """Whether there are so many complete cells more than there were."""
    return len(cells_of(folder)) >= had + least


def cells_of(folder: Folder) -> dict[str, tuple[int, bytes]]:
    """Every complete cell: when it was written, and what it says."""
    paths = whole_files(folder.cells_path, "*.json")
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


def all_measured(folder: Folder) -> dict[str, object]:
    """All that a study has measured and drawn, by the names of its files; without timings."""
    paths = whole_files(folder.cells_path)
    found: dict[str, object] = {
        path.name: timeless(json.loads(path.read_text()))
        if path.suffix == ".json"
        else path.read_bytes()
        for path in paths
    }
    results = json.loads((folder.path / "results.json").read_text())
    return found | {"findings": results["findings"]}
