"""A study's cells are the same wherever they are run, and whichever process dies meanwhile."""

import json
import math
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from conftest import ModelFolder
from underone.cli import main
from underone.data import SampleSet
from underone.errors import UserError
from underone.generation import DEFAULT_BATCH_SIZE, Draw, Setting, generate
from underone.metrics.moments import Moments
from underone.study.bench import Bench, open_bench
from underone.study.cell import Cell, Divergence
from underone.study.definition import Study, load_study
from underone.study.engine import LocalEngine, WorkerSetup
from underone.study.ranks import merged, share
from underone.study.run import StudyRun, open_run

if TYPE_CHECKING:
    from underone.study.ray_engine import RayEngine

# Two batches, so that two ranks have work; the second is not a whole one.
SAMPLES = DEFAULT_BATCH_SIZE + 32
STUDY = f"""
model = "model"
samples = {SAMPLES}
metrics = "fid"
most_blocks = 2

[[slices]]
name = "samplers"
sampler = ["ddim", "ddpm-small"]
steps = 2

[[slices]]
name = "guidance"
steps = 2
guidance = [-1, 1]
"""
ALONE = {"RAY_ADDRESS": "local", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def place(model_folder: ModelFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study, and the model that it names relative to it."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "model").symlink_to(model_folder("ten-steps", steps=10))
    (folder / "study.toml").write_text(STUDY)
    return folder


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    for name, value in ALONE.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def study(place: Path) -> Study:
    return load_study(str(place / "study.toml"))


@pytest.fixture(scope="module")
def bench(place: Path, study: Study) -> Bench:
    return open_bench(study.model_copy(update={"model": str(place / "model")}))


@pytest.fixture(scope="module")
def local(place: Path) -> dict[str, Any]:
    """The study's results in one process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        study = load_study("study.toml")
        run, _ = open_run(place / "local", study, open_bench(study))
        engine = LocalEngine(run.bench, run.plan.threads)
        for _ in run.advance(engine, lambda cell, images: None):
            pass
    assert len(run.known) >= 6  # four settings, and a second block of those not told apart
    return contents(place / "local")


def contents(folder: Path) -> dict[str, Any]:
    """All that a study has measured, by the names of its files; without the time it took."""
    cells = folder / "cells"
    results = {path.name: json.loads(path.read_text()) for path in cells.glob("*.json")}
    for result in results.values():
        del result["seconds"]
    return results | {path.name: path.read_bytes() for path in cells.glob("*.png")}


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Two processes that run the command together."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    return subprocess.run(
        [*command, "-m", "underone", *arguments], capture_output=True, text=True, timeout=300
    )


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.mark.slow
def test_two_ranks_measure_the_same_and_the_first_alone_speaks(
    place: Path, local: dict[str, Any]
) -> None:
    done = torchrun("study", "study.toml", "--out", "ranks", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == len(local) / 2
    assert done.stderr.count("cells of") == 1
    assert contents(place / "ranks") == local


@pytest.mark.slow
def test_all_ranks_end_with_the_first(place: Path) -> None:
    done = torchrun("study", "study.toml", "--dry-run", "--out", "dry")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("evaluations, about") == 1
    done = torchrun("study", "study.toml", "--engine", "ray")
    assert done.returncode != 0
    assert done.stderr.count("underone: ") == 1
    assert "underone: torchrun's processes are the engine here" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux")
def test_no_thread_of_the_ranks_outlives_them() -> None:
    program = """
import os
from underone.study.ranks import _process_group

def threads():
    return [open(f"/proc/self/task/{each}/comm").read() for each in os.listdir("/proc/self/task")]

before = len(threads())
with _process_group():
    import torch.distributed.nn.functional
    assert len(threads()) > before
assert len(threads()) == before, threads()
"""
    alone = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | alone | {"RANK": "0", "WORLD_SIZE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_rank_with_another_model_is_refused(
    place: Path, model_folder: ModelFolder, tmp_path: Path
) -> None:
    (tmp_path / "study.toml").write_text(STUDY)
    (tmp_path / "model").symlink_to(model_folder("others", steps=20))
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "underone", "study", "study.toml", "--out", "refused"],
            cwd=folder,
            env=os.environ | address | {"RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, folder in enumerate((place, tmp_path))
    ]
    (first, second) = (rank.communicate(timeout=120)[1] for rank in ranks)
    assert "underone: rank 1 on " in first
    assert "has another model model than where the study was begun" in first
    assert "Traceback" not in first
    assert second == ""
    assert [rank.returncode for rank in ranks] == [2, 0]


@pytest.mark.parametrize(
    "setting",
    [
        Setting("ddim", 2),
        Setting("ddpm-small", 2, guidance=-1),
        Setting("ddpm-small", 2, guidance=1, interval=(0.5, 2)),
        # It adapts its steps to the whole batch.
        pytest.param(Setting("rk45,relative=0.1,absolute=0.1", 2), marks=pytest.mark.slow),
    ],
    ids=lambda setting: f"{setting.sampler}{setting.guidance:+g}",
)
def test_shares_make_up_the_draw(bench: Bench, setting: Setting) -> None:
    draw = Draw(2 * DEFAULT_BATCH_SIZE + 1, seed=3, first=7, labels="random")
    (name,) = bench.models
    cell = Cell(name, setting, draw)
    whole = generate(bench.models[name], setting, draw, precision=bench.precision)
    zero, one = (share(cell, bench, rank, 2) for rank in range(2))
    assert [len(batch) for batch in (*zero, *one)] == [DEFAULT_BATCH_SIZE, 1, DEFAULT_BATCH_SIZE]
    assert_same(merged([zero[0], one[0], zero[1]]), whole)
    assert share(cell, bench, 3, 4) == []


def assert_same(a: SampleSet, b: SampleSet) -> None:
    assert torch.equal(a.images, b.images)
    assert (a.labels is None) == (b.labels is None)
    assert a.labels is None or b.labels is None or torch.equal(a.labels, b.labels)
    assert a.seeds is not None
    assert b.seeds is not None
    assert torch.equal(a.seeds, b.seeds)
    assert a.protocol == b.protocol


def test_moments_of_shards_merge_to_those_of_one_process(bench: Bench) -> None:
    images = generate(next(iter(bench.models.values())), Setting(steps=2), Draw(600)).images
    features = bench.yardsticks[0].extractor(images).values
    whole = Moments.of(features)
    ranks = [[Moments.of(batch) for batch in features.split(128)[rank::3]] for rank in range(3)]
    shards = []
    for first, *others in ranks:
        for other in others:
            first = first.merged(other)
        shards.append(first)
    found = shards[2].merged(shards[0]).merged(shards[1])
    assert found.count == whole.count
    for mine, theirs in ((found.mean, whole.mean), (found.covariance, whole.covariance)):
        assert torch.linalg.norm(mine - theirs) <= 1e-12 * torch.linalg.norm(theirs)


def test_a_worker_with_other_files_is_refused(study: Study, bench: Bench) -> None:
    setup = WorkerSetup(study, 1, {"model model": "another hash"})
    with pytest.raises(UserError, match=r"^the worker on mars has another model model than"):
        setup.opened("the worker on mars")
    nowhere = study.model_copy(update={"model": "nowhere"})
    with pytest.raises(UserError, match=r"^the worker on mars: .*nowhere"):
        WorkerSetup.of(nowhere, bench, 1).opened("the worker on mars")


@pytest.mark.slow
def test_ray_measures_the_same(
    place: Path,
    local: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("ray")
    arguments = ["study", "study.toml", "--out", "ray", "--engine", "ray", "--json"]
    monkeypatch.setattr(sys, "argv", ["underone", *arguments])
    main()
    assert len(json.loads(capsys.readouterr().out)) == len(local) / 2
    assert contents(place / "ray") == local


@pytest.mark.slow
def test_a_killed_ray_worker_loses_nothing(
    place: Path, study: Study, local: dict[str, Any]
) -> None:
    pytest.importorskip("ray")
    from underone.study.ray_engine import open_ray

    run, _ = open_run(place / "killed", study, open_bench(study))
    with open_ray(WorkerSetup.of(study, run.bench, 1), workers=1) as engine:
        processes = worker_processes(engine)
        results = run.advance(engine, lambda cell, images: None)
        next(results)
        # There is more due, so each worker is at a cell.
        for process in processes:
            os.kill(process, signal.SIGKILL)
        rest = list(results)
        diverging = Cell("model", Setting("ddim", 2, guidance=3e38, threshold="none"), Draw(2))
        (gone,) = engine.run([diverging], lambda cell, images: None)
    assert isinstance(gone, Divergence)
    assert re.match(r"sampling with ddim .* has diverged", gone.told)
    assert 1 + len(rest) == len(run.known)
    assert contents(place / "killed") == local


def worker_processes(engine: "RayEngine") -> list[int]:
    import ray

    return ray.get([worker.__ray_call__.remote(lambda _: os.getpid()) for worker in engine.workers])


@pytest.mark.endurance
def test_20_kills_of_ray_workers_at_random_moments_lose_nothing(
    place: Path, study: Study, local: dict[str, Any]
) -> None:
    pytest.importorskip("ray")
    from underone.study.ray_engine import open_ray

    moments = random.Random(0)
    bench = open_bench(study)
    total = sum(name.endswith(".json") for name in local)
    with open_ray(WorkerSetup.of(study, bench, 1)) as engine:
        for attempt in range(20):
            run, _ = open_run(place / f"killed-{attempt}", study, bench)
            victim = moments.choice(worker_processes(engine))
            # At the latest two cells later, so that there is more due.
            after = moments.randrange(total - 3)
            kill = Kill(victim, run, after, moments.uniform(0, 2))
            kill.start()
            done = [result.id for result in run.advance(engine, lambda cell, images: None)]
            kill.join()
            assert kill.known is not None
            assert after <= kill.known < total, "a run was over before its worker was killed"
            assert victim not in worker_processes(engine)
            assert len(done) == len(set(done)) == len(run.known), "a complete cell was run again"
            assert contents(run.folder.path) == local


class Kill(threading.Thread):
    """Kills a worker some seconds after so many cells are done, or when two more are.

    `known` is then how many are.
    """

    def __init__(self, victim: int, run: StudyRun, after: int, seconds: float) -> None:
        super().__init__(daemon=True)
        self.victim, self.run_of, self.after, self.seconds = victim, run, after, seconds
        self.known: int | None = None

    def run(self) -> None:
        self._wait(self.after)
        self._wait(self.after + 2, self.seconds)
        os.kill(self.victim, signal.SIGKILL)
        self.known = len(self.run_of.known)

    def _wait(self, cells: int, most: float = math.inf) -> None:
        deadline = time.monotonic() + most
        while len(self.run_of.known) < cells and time.monotonic() < deadline:
            time.sleep(0.005)


def test_a_cluster_that_is_not_there_is_told_at_once(
    study: Study, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    from underone.study.ray_engine import open_ray

    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(UserError, match=r"nothing answers at 127\.0\.0\.1:1"):
        open_ray(WorkerSetup.of(study, bench, 1)).__enter__()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "ray"], "underone: --engine ray needs Ray: pip install underone[ray]"),
        (["--workers", "2"], "underone: --workers are those of Ray: add --engine ray"),
    ],
)
def test_a_mistake_is_one_line(
    options: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "underone.study.ray_engine", raising=False)
    monkeypatch.setattr(sys, "argv", ["underone", "study", "study.toml", *options])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"{message}\n"
