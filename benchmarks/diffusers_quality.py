"""The claim: at the best FID of diffusers' recipe, ours takes a tenth of its time an image.

    python benchmarks/diffusers_quality.py --minutes 45

Both are trained for the same minutes of the same two cores, each on its own: ours by
`fashion-mnist-preconditioned`; theirs is the network of `diffusers_speed.py`, of as many FLOPs, by
diffusers' own example (`train_unconditional.py`: noise prediction, 1,000 linear steps, AdamW at
1e-4 with 500 updates of warm-up and a cosine decay, batches of 16, EMA), with classes. Then both
are drawn at 2,000 balanced samples, theirs by its DDIM and DPM-Solver++ loops, and by those of its
schedulers that `nfe_quality` found best at few evaluations. The setting with the lowest FID of each
is drawn again with other seeds, which is told; and the fewest evaluations of ours that are as good
as theirs, of which one candidate after the other is drawn with those seeds: how many is told.

Stopped at any moment it goes on where it was: both trainings resume, and every setting is kept
beside them once measured. It needs the test requirements.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers_speed import CLASSES, LAYOUTS, SIDE, WIDTHS, Peer, faster, flops, peer
from machine_share import BATCH, RECIPE, Subject
from measuring import environment
from torch import Tensor, nn
from torch.nn import functional
from trained import advance, begun

from underone.cli.console import note, progress_bar
from underone.data import SampleSet, load_dataset, to_uint8
from underone.data.images import to_model_range
from underone.files import write_atomically, write_json
from underone.generation import Draw, Setting, generate
from underone.metrics import measure
from underone.training.recipe import DiffusionRecipe, load_recipe
from underone.training.stop import StopRequest, stop_on_signals
from underone.zoo import load_model, load_yardstick

RESULTS = Path(__file__).with_suffix(".json")
COUNT, CHOOSING, TELLING = 2000, 700, 800
PEER_BATCH, WARMUP, SAVE_SECONDS = 16, 500, 120.0
OURS = tuple(
    Setting(sampler, steps, "log-snr,last=35")
    for steps in (3, 4, 5, 6, 8, 10, 15, 20)
    for sampler in ("dpm-solver-2m", "sa-solver")
)


@dataclass(frozen=True)
class Theirs:
    """One of diffusers' schedulers at a number of steps."""

    kind: str
    steps: int

    @property
    def name(self) -> str:
        return f"{self.kind}, {self.steps} steps"

    def scheduler(self) -> Any:
        return SCHEDULERS[self.kind]()


SCHEDULERS: dict[str, Callable[[], Any]] = {
    "DDIM": lambda: diffusers.DDIMScheduler(1000, timestep_spacing="trailing"),
    "DPM-Solver++": lambda: diffusers.DPMSolverMultistepScheduler(
        1000, timestep_spacing="trailing", algorithm_type="dpmsolver++", solver_order=2
    ),
    "DPM-Solver++ SDE": lambda: diffusers.DPMSolverMultistepScheduler(
        1000, timestep_spacing="leading", algorithm_type="sde-dpmsolver++", solver_order=2
    ),
    "SA-Solver": lambda: diffusers.SASolverScheduler(1000, timestep_spacing="leading"),
}
THEIRS = tuple(Theirs(kind, steps) for kind in SCHEDULERS for steps in (5, 8, 10, 20, 50, 100))


class PeerRun:
    """The peer's training, in a folder; a state of its own is read back there."""

    def __init__(self, folder: Path, width: int, minutes: float) -> None:
        self.file, self.minutes = folder / "state.pt", minutes
        self.layout, self.peer = faster(width)
        self.seconds, self.step = 0.0, 0
        data = load_dataset("fashion-mnist")
        self.images, self.labels = to_model_range(data.images), data.labels
        self.horizon = 0
        folder.mkdir(parents=True, exist_ok=True)
        if self.file.exists():
            self._restore()
        else:
            self.horizon = max(WARMUP + 1, int(60 * minutes / self._seconds_an_update()))
        self.schedule = get_cosine_schedule_with_warmup(
            self.peer.optimizer, WARMUP, self.horizon, last_epoch=-1
        )
        for _ in range(self.step):
            self.schedule.step()

    @property
    def done(self) -> bool:
        return self.step >= self.horizon

    def update(self) -> None:
        generator = torch.Generator().manual_seed(self.step)
        chosen = torch.randint(len(self.images), (PEER_BATCH,), generator=generator)
        x0 = self.images[chosen]
        noise = torch.randn(x0.shape, generator=generator)
        times = torch.randint(0, 1000, (PEER_BATCH,), generator=generator)
        noisy = self.peer.scheduler.add_noise(x0, noise, times)
        with self.peer.autocast():
            output = self.peer.network(noisy, times, self.labels[chosen]).sample
        functional.mse_loss(output.float(), noise).backward()
        nn.utils.clip_grad_norm_(self.peer.network.parameters(), 1.0)
        self.peer.optimizer.step()
        self.peer.optimizer.zero_grad()
        self.peer.average.step(self.peer.network.parameters())

    def advance(self, stop: StopRequest) -> None:
        self.peer.network.train()
        saved = time.monotonic()
        with progress_bar() as bar:
            task = bar.add_task("diffusers", total=self.horizon, completed=self.step)
            while not self.done and stop.signal is None:
                started = time.monotonic()
                self.update()
                self.schedule.step()
                self.step += 1
                self.seconds += time.monotonic() - started
                bar.update(task, completed=self.step)
                if time.monotonic() - saved > SAVE_SECONDS:
                    self.save()
                    saved = time.monotonic()
        self.save()

    def save(self) -> None:
        state = {
            "network": self.peer.network.state_dict(),
            "average": self.peer.average.state_dict(),
            "optimizer": self.peer.optimizer.state_dict(),
            "numbers": (self.step, self.horizon, self.seconds),
        }
        write_atomically(self.file, lambda path: torch.save(state, path))

    def averaged(self) -> Peer:
        """The peer with its averaged weights."""
        self.peer.average.copy_to(self.peer.network.parameters())
        self.peer.network.eval()
        return self.peer

    def _restore(self) -> None:
        state = torch.load(self.file, weights_only=True)
        self.peer.network.load_state_dict(state["network"])
        self.peer.average.load_state_dict(state["average"])
        self.peer.optimizer.load_state_dict(state["optimizer"])
        for group in self.peer.optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        self.step, self.horizon, self.seconds = state["numbers"]

    def _seconds_an_update(self) -> float:
        width = self.peer.network.config["block_out_channels"][0]
        trial = Peer(width, LAYOUTS[self.layout])
        trial.images, trial.labels = trial.images[:PEER_BATCH], trial.labels[:PEER_BATCH]
        for _ in range(3):
            trial.update()
        started = time.monotonic()
        for _ in range(10):
            trial.update()
        return (time.monotonic() - started) / 10


@torch.inference_mode()
def drawn(subject: Peer, by: Theirs, seed: int) -> tuple[SampleSet, float]:
    """2,000 balanced samples, and the seconds an image took."""
    images, labels = [], torch.arange(COUNT) % CLASSES
    started = time.monotonic()
    for first in range(0, COUNT, BATCH):
        part = labels[first : first + BATCH]
        generator = torch.Generator().manual_seed(seed * COUNT + first)
        x: Tensor = torch.randn(len(part), 1, SIDE, SIDE, generator=generator)
        scheduler = by.scheduler()
        scheduler.set_timesteps(by.steps)
        for t in scheduler.timesteps:
            with subject.autocast():
                output = subject.network(x, t, part).sample
            x = scheduler.step(output.float(), t, x, generator=generator).prev_sample
        images.append(to_uint8(x))
    seconds = (time.monotonic() - started) / COUNT
    return SampleSet(torch.cat(images), labels), seconds


class Record:
    """Every measurement, kept in a file as soon as it is made."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        self.yardstick = load_yardstick("fashion-mnist")

    def fid(
        self, who: str, name: str, seed: int, draw: Callable[[], tuple[SampleSet, float]]
    ) -> float:
        cells = self.found.setdefault(who, {})
        key = f"{name}, seed {seed}"
        if key not in cells:
            samples, seconds = draw()
            result = measure(samples, self.yardstick)
            floor = None if result.floor is None else result.floor.fid
            cells[key] = {"fid": result.fid, "floor": floor, "seconds_an_image": seconds}
            write_json(self.file, self.found)
            note(f"{who}, {key}: FID {result.fid:.3f}, {1e3 * seconds:.1f} ms an image")
        return float(cells[key]["fid"])

    def seconds(self, who: str, name: str, seed: int) -> float:
        return float(self.found[who][f"{name}, seed {seed}"]["seconds_an_image"])


def title(setting: Setting) -> str:
    return f"{setting.sampler}, {setting.steps} steps"


def compared(ours: Path, theirs: Peer, record: Record) -> dict[str, Any]:
    """Both at their best, and ours where it first is as good as theirs."""
    model = load_model(str(ours))

    def mine(setting: Setting, seed: int) -> tuple[SampleSet, float]:
        started = time.monotonic()
        samples = generate(model, setting, Draw(COUNT, seed=seed))
        return samples, (time.monotonic() - started) / COUNT

    def of_theirs(by: Theirs, seed: int) -> float:
        return record.fid("diffusers", by.name, seed, lambda: drawn(theirs, by, seed))

    def of_mine(setting: Setting, seed: int) -> float:
        return record.fid("ours", title(setting), seed, lambda: mine(setting, seed))

    peers_best = min(THEIRS, key=lambda by: of_theirs(by, CHOOSING))
    goal = of_theirs(peers_best, TELLING)
    best = min(OURS, key=lambda setting: of_mine(setting, CHOOSING))
    as_good = [each for each in OURS if of_mine(each, CHOOSING) <= goal]
    found: dict[str, Any] = {
        "diffusers_best": {"setting": peers_best.name, "fid": goal},
        "ours_best": {"setting": title(best), "fid": of_mine(best, TELLING)},
        "times_less": math.nan,
    }
    for tried, setting in enumerate(sorted(as_good, key=lambda each: each.steps), start=1):
        fid = of_mine(setting, TELLING)
        if fid <= goal:
            ratio = record.seconds("diffusers", peers_best.name, TELLING) / record.seconds(
                "ours", title(setting), TELLING
            )
            as_good_as = {"setting": title(setting), "fid": fid, "tried": tried}
            found |= {"ours_as_good": as_good_as, "times_less": ratio}
            break
    return found


def table(results: dict[str, Any]) -> str:
    """Both at their best, and ours where it is as good as theirs."""
    rows = [
        f"After {results['minutes']:g} minutes of training each:",
        "",
        "| | setting | FID | ms an image |",
        "| --- " * 4 + "|",
    ]
    for title, who, key in (
        ("diffusers at its best", "diffusers", "diffusers_best"),
        ("ours at its best", "ours", "ours_best"),
        ("ours, as good as theirs", "ours", "ours_as_good"),
    ):
        if found := results.get(key):
            cell = results[who][f"{found['setting']}, seed {TELLING}"]
            seconds = 1000 * cell["seconds_an_image"]
            rows.append(f"| {title} | {found['setting']} | {found['fid']:.3f} | {seconds:.1f} |")
    tried = results.get("ours_as_good", {}).get("tried", 0)
    times = f"Times less time an image: {results['times_less']:.1f}"
    return "\n".join([*rows, "", f"{times}; candidates of ours drawn for it: {tried}."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=45.0)
    parser.add_argument("--runs", type=Path, default=Path("runs/diffusers-quality"))
    arguments = parser.parse_args()
    recipe = load_recipe(RECIPE)
    assert isinstance(recipe, DiffusionRecipe)
    flops_of_ours = Subject(recipe, compiled=False).flops["sampling"] // BATCH
    width = min(WIDTHS, key=lambda each: abs(flops(peer(each)) - flops_of_ours))
    minutes = f"{arguments.minutes:g}-minutes"
    record = Record(arguments.runs / f"cells-{minutes}.json")
    ours = begun(arguments.runs / "ours", RECIPE, recipe, arguments.minutes)
    with stop_on_signals() as stop:
        advance(ours, "ours", stop)
        theirs = PeerRun(arguments.runs / f"diffusers-{minutes}", width, arguments.minutes)
        if stop.signal is None:
            theirs.advance(stop)
    if not (ours.done and theirs.done):
        note("stopped and saved; the same command goes on")
        sys.exit(130)
    record.found |= {
        "minutes": arguments.minutes,
        "training_seconds": {"ours": ours.state.seconds, "diffusers": theirs.seconds},
        "diffusers_layout": theirs.layout,
        "environment": environment("diffusers"),
        **compared(ours.folder, theirs.averaged(), record),
    }
    write_json(RESULTS, record.found)


if __name__ == "__main__":
    main()
