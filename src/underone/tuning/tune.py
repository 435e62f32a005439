"""One tuning from start to finish: found where it was left, saved as it goes, kept when done."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from underone.checkpoint import DiffusionModel
from underone.config import Config, parse
from underone.data import Dataset
from underone.diffusion import nodes
from underone.errors import UserError
from underone.files import read_json, write_json
from underone.generation import Setting, denoiser_for
from underone.networks.precision import fast_dtype
from underone.tuned import (
    DRAFT,
    Purpose,
    TunedSampler,
    TuningRecord,
    keep,
    tuned_path,
    tuned_sampler,
)
from underone.tuning.descent import (
    Progress,
    State,
    descend,
    initial_state,
    lerp,
    validation_distance,
)
from underone.tuning.parameters import Parameters
from underone.tuning.task import BATCH, Task

_SAVE_SECONDS = 20.0


class StoredParameters(Config):
    """Parameters as JSON holds them."""

    gaps: tuple[float, ...]
    roots: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    shifts: tuple[float, ...]

    @classmethod
    def of(cls, parameters: Parameters) -> "StoredParameters":
        """Those of `parameters`."""
        gaps, roots, weights, shifts = (tensor.tolist() for tensor in parameters.tensors())
        rows = tuple(tuple(row) for row in weights)
        return cls(gaps=tuple(gaps), roots=tuple(roots), weights=rows, shifts=tuple(shifts))

    @property
    def parameters(self) -> Parameters:
        """The same as tensors."""
        every = (self.gaps, self.roots, self.weights, self.shifts)
        return Parameters(*(torch.tensor(values, dtype=torch.float64) for values in every))


class Draft(Config):
    """A tuning as it stands, kept beside what it will become; `freedoms` are its parameters."""

    model_sha256: str
    purpose: Purpose
    seed: int
    start: StoredParameters
    learned: bool
    freedoms: StoredParameters
    average: StoredParameters
    averaged: int
    iterations: int
    seconds: float
    before: float | None

    @property
    def state(self) -> State:
        """Where it stands."""
        return State(
            self.start.parameters,
            self.learned,
            self.freedoms.parameters,
            self.average.parameters,
            self.averaged,
            self.iterations,
            self.seconds,
            self.before,
        )


@dataclass(eq=False)
class Tuning:
    """A tuning that is set up: `run` it, which saves on the way, then `finish`."""

    task: Task
    purpose: Purpose
    state: State
    minutes: float

    @property
    def draft_path(self) -> Path:
        """Where it is saved on the way."""
        return draft_path(self.task.model, self.purpose)

    @property
    def done(self) -> bool:
        """Whether its time is over."""
        return self.state.seconds >= 60 * self.minutes

    def run(
        self, should_stop: Callable[[], bool], on_progress: Callable[[Progress], object]
    ) -> None:
        """Descend until the time is over or `should_stop`, saving every few seconds."""
        last_save = time.monotonic()
        for progress in descend(self.task, self.state, 60 * self.minutes):
            on_progress(progress)
            if should_stop():
                break
            if time.monotonic() - last_save > _SAVE_SECONDS:
                self.save()
                last_save = time.monotonic()
        self.save()

    def save(self) -> None:
        """Write all that a resumed tuning needs, atomically."""
        state = self.state
        draft = Draft(
            model_sha256=self.task.model.sha256,
            purpose=self.purpose,
            seed=self.task.seed,
            start=StoredParameters.of(state.start),
            learned=state.learned,
            freedoms=StoredParameters.of(state.parameters),
            average=StoredParameters.of(state.average),
            averaged=state.averaged,
            iterations=state.iterations,
            seconds=state.seconds,
            before=state.before,
        )
        write_json(self.draft_path, draft.model_dump(mode="json"))

    def finish(self) -> TunedSampler:
        """Validate what was learned, and keep it beside the model in the place of the draft."""
        state, model = self.state, self.task.model
        before = state.before
        if before is None:
            before = validation_distance(self.task, state.start)
        end = state.average if state.averaged else state.parameters
        # After too few iterations the start may be better, or what lies halfway.
        others = (lerp(state.start, end, 0.5), end)
        candidates = [(validation_distance(self.task, each), each) for each in others]
        after, parameters = min([(before, state.start), *candidates], key=lambda each: each[0])
        sampler = parameters.sampler()
        path = parameters.path(model.config.schedule)[:-1]
        tuned = TunedSampler(
            model_sha256=model.sha256,
            purpose=self.purpose,
            grid=tuple(node.t.item() * model.config.schedule.steps for node in path),
            etas=tuple(sampler.etas.tolist()),
            weights=tuple(tuple(row) for row in sampler.weights.tolist()),
            shifts=tuple(sampler.shifts.tolist()),
            learning=TuningRecord(
                seed=self.task.seed,
                batch_size=BATCH,
                iterations=state.iterations,
                minutes=round(state.seconds / 60, 2),
                distance_before=before,
                distance_after=after,
            ),
        )
        keep(model, tuned)
        self.draft_path.unlink(missing_ok=True)
        return tuned


def usual_minutes(steps: int) -> float:
    """How long to learn unless said otherwise: about as many iterations for any number of steps.

    An iteration takes the features of its images, whose cost is that of about 4 steps, and the
    steps themselves.
    """
    return 3 + 0.7 * steps


def set_up(
    model: DiffusionModel, setting: Setting, dataset: Dataset, *, minutes: float, seed: int
) -> Tuning:
    """A tuning for `setting`, whose sampler and grid are what it will find, from where it was left.

    `dataset` is what the model was trained on. A `UserError` where it is another, where the purpose
    has been tuned for already, or where its draft is of other weights or another seed.
    """
    if not 0 < minutes < float("inf"):
        raise UserError(f"tuning needs a finite number of minutes above 0, got {minutes}")
    if not 0 <= seed < 2**62:
        raise UserError(f"the seed must lie in 0..2^62 - 1, got {seed}")
    if not model.may_be_of(dataset):
        raise UserError(
            f"{model.name} was trained on other data than the {dataset.name} found here, which a "
            "sampler is tuned by: name them with --root"
        )
    if model.device.type != "cpu":
        raise UserError(f"a sampler is tuned on the CPU, but {model.name} is on {model.device}")
    setting.check(model)
    purpose = setting.purpose
    if tuned_path(model, purpose).exists():
        raise UserError(f"{tuned_path(model, purpose)} exists: remove it to tune anew")
    task = Task(
        model,
        denoiser_for(model, setting),
        dataset,
        setting.steps,
        seed,
        setting.uses_labels,
        fast_dtype(model.device),
        tuple(_neighbours(model, purpose)),
    )
    return Tuning(task, purpose, _draft_state(task, purpose) or initial_state(task), minutes)


def draft_path(model: DiffusionModel, purpose: Purpose) -> Path:
    """Where a tuning is saved on the way."""
    return tuned_path(model, purpose).with_suffix(f"{DRAFT}.json")


def _neighbours(model: DiffusionModel, purpose: Purpose) -> Iterator[Parameters]:
    """The parameters learned for one step less and for one step more, if there are any."""
    schedule = model.config.schedule
    for steps in (purpose.steps - 1, purpose.steps + 1):
        if min(steps, purpose.steps) < 2:  # of one step there is too little to spread
            continue
        with suppress(UserError):  # none is tuned, or it is for other weights
            found = tuned_sampler(model, purpose.model_copy(update={"steps": steps}))
            path = nodes(found.placement, schedule, steps)[:-1]
            yield Parameters.learned(path, found.sampler, schedule)


def _draft_state(task: Task, purpose: Purpose) -> State | None:
    path = draft_path(task.model, purpose)
    if not path.exists():
        return None
    draft = parse(Draft, read_json(path), str(path))
    if (draft.model_sha256, draft.purpose, draft.seed) != (task.model.sha256, purpose, task.seed):
        raise UserError(f"{path} is of other weights, options or seed: remove it to start anew")
    return draft.state
