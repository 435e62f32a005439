"""From a distillation's recipe to its teacher, its loss, and the steps its student will take."""

from dataclasses import replace

import torch

from underone.checkpoint import (
    DiffusionConfig,
    DiffusionModel,
    DistillationRecord,
    ForeignConfig,
)
from underone.config import parse
from underone.diffusion import LogSNR, Preconditioned, Schedule, nodes
from underone.errors import UserError
from underone.generation import Setting, denoiser_for
from underone.interop.names import load_named
from underone.named import grid_named
from underone.networks.precision import fast_dtype, place
from underone.training.distillation import EasyConsistencyTuning, Student, TrajectoryDistillation
from underone.training.energy_distance import EnergyDistance
from underone.training.objective import Objective
from underone.training.recipe import ConsistencyTuning, DistillationRecipe, Trajectories
from underone.tuning.features import NetworkFeatures

# Students begin as trained networks: they need few updates, and small ones.
_STEPS = 4000
_OPTIMISATION = {"learning_rate": 2e-4, "warmup_steps": 50, "decay": "linear"}


def distillation_recipe(
    teacher: str, method: Trajectories | ConsistencyTuning, data: str, seed: int = 0
) -> DistillationRecipe:
    """The recipe of a student of the model called `teacher`; a `UserError` where none can be."""
    model, config = _teacher(teacher)
    if isinstance(method, Trajectories):
        if _fine_steps(method) > config.schedule.steps:
            most = config.schedule.steps // (method.inner + 1)
            raise UserError(
                f"{teacher} has {config.schedule.steps} steps, and takes {method.inner + 1} for "
                f"each of its student's: choose at most --nfe {most}"
            )
        _setting(method).check(model)
    elif isinstance(config.prediction, Preconditioned):
        method = replace(method, data_deviation=config.prediction.data_deviation)
    else:
        raise UserError(
            "consistency tuning needs a model of preconditioned prediction, whose estimate at "
            f"little noise is nearly its input, not {config.prediction.name}: leave out --method "
            "for a student that follows trajectories"
        )
    return parse(
        DistillationRecipe,
        {
            "kind": "distillation",
            "teacher": teacher,
            "teacher_sha256": model.sha256,
            "method": method,
            "network": config.network,
            "schedule": config.schedule,
            "prediction": config.prediction,
            "data": data,
            "augmentation": {"flip": model.trained_on_flips},
            "steps": _STEPS,
            "seed": seed,
            "optimisation": _OPTIMISATION,
        },
        "distillation",
    )


def teacher_of(recipe: DistillationRecipe) -> DiffusionModel:
    """The teacher itself, which must have the weights it had when the recipe was made."""
    model, _ = _teacher(recipe.teacher)
    if model.sha256 != recipe.teacher_sha256:
        raise UserError(
            f"{recipe.teacher} has other weights now than when this distillation was begun: "
            "choose another --out, or give the teacher its weights back"
        )
    return model


def objective_with_teacher(recipe: DistillationRecipe, device: torch.device) -> Objective:
    """The loss that the student minimises."""
    conditional = recipe.network.classes is not None
    student = Student(recipe.schedule, recipe.prediction, conditional, fast_dtype(device))
    method = recipe.method
    if isinstance(method, ConsistencyTuning):
        return EasyConsistencyTuning(
            # The loss divides the difference of two nearly equal estimates by a small number:
            # bfloat16 would round away more than half of it.
            replace(student, autocast=None),
            method.data_deviation,
            method.mean,
            method.deviation,
            method.closeness,
        )
    model = teacher_of(recipe)
    place(model.network, device)
    path = nodes(grid_named(method.grid), recipe.schedule, _fine_steps(method))
    features = NetworkFeatures(model, fast_dtype(device))
    return TrajectoryDistillation(
        student,
        denoiser_for(model, _setting(method)),
        path,
        method.inner + 1,
        method.likeness,
        EnergyDistance(features) if method.likeness > 0 else None,
    )


def distillation_record(recipe: DistillationRecipe) -> DistillationRecord:
    """What a student's config.json says about its teacher and how it is sampled."""
    method = recipe.method
    if isinstance(method, ConsistencyTuning):
        return DistillationRecord(
            teacher=recipe.teacher,
            teacher_sha256=recipe.teacher_sha256,
            method=method.name,
            sampler="consistency",
            paths=tuple(
                _consistency_path(method, recipe.schedule, evaluations)
                for evaluations in range(method.evaluations, 0, -1)
            ),
        )
    times = grid_named(method.grid)(recipe.schedule, _fine_steps(method))
    path = (times * recipe.schedule.steps)[:: method.inner + 1]
    return DistillationRecord(
        teacher=recipe.teacher,
        teacher_sha256=recipe.teacher_sha256,
        method=method.name,
        guidance=method.guidance,
        form=method.form,
        sampler="ddim",
        paths=(tuple(path.tolist()),),
    )


def _consistency_path(
    method: ConsistencyTuning, schedule: Schedule, evaluations: int
) -> tuple[float, ...]:
    """From t = 1 to the level `middle`, evenly in log-SNR."""
    ratio = torch.tensor(2 * method.data_deviation * method.middle, dtype=torch.float64)
    last = schedule.time(-ratio.log()).item() * schedule.steps
    return tuple((LogSNR(last=last)(schedule, evaluations) * schedule.steps).tolist())


def _setting(method: Trajectories) -> Setting:
    """How the teacher is sampled."""
    steps = _fine_steps(method)
    return Setting("dpm-solver-3m", steps, method.grid, method.guidance, form=method.form)


def _fine_steps(method: Trajectories) -> int:
    return method.evaluations * (method.inner + 1)


def _teacher(name: str) -> tuple[DiffusionModel, DiffusionConfig]:
    model = load_named(name)
    if not isinstance(model, DiffusionModel):
        raise UserError(f"{name} is {model.what}: name a diffusion model to learn from")
    if isinstance(model.config, ForeignConfig):
        raise UserError(
            f"{name} is another package's network, which is not trained here: distil a model "
            "that underone has trained"
        )
    if model.distillation is not None:
        raise UserError(f"{name} is distilled itself: name its teacher, or another model")
    return model, model.config
