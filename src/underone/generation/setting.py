"""Settings: how a model is sampled, and the denoiser, sampler and grid that this takes."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import torch

from underone.analytic import data_variance, is_known
from underone.checkpoint import (
    Checkpoint,
    DiffusionModel,
    DistillationRecord,
    GenerativeModel,
    VAEModel,
)
from underone.diffusion import THRESHOLDS, AnalyticDDPM, Denoiser, Grid, Sampler, nodes
from underone.errors import UserError, unknown
from underone.guides import Form, form_named, guided
from underone.named import MADE_FOR_A_MODEL, grid_named, sampler_named
from underone.networks.precision import fast_dtype
from underone.tuned import Purpose, TunedSampler, tuned_names, tuned_sampler

# The samplers that are made for a model, from what is kept with it, and that of every VAE.
ANALYTIC, TUNED, DECODER, DISTILLED = MADE_FOR_A_MODEL
# The grid that comes with a tuned or distilled sampler, and that of a decoder, which has no steps.
OWN_GRIDS = LEARNED, NO_GRID = "learned", "none"
# About what an adaptive sampler takes at its default tolerance, used in plans alone.
_ADAPTIVE_EVALUATIONS = 450
Precision = Literal["auto", "float32"]


@dataclass(frozen=True)
class Setting:
    """How to sample a model, whichever samples are drawn.

    `sampler` and `grid` are names as `underone.named` reads them. Some samplers are made for a
    model: "ddpm-analytic"; "tuned" and "distilled", whose grid is "learned" and may be left out;
    and a VAE's "decoder", which takes 1 step and no grid and leaves nothing else to choose.

    `guidance` is the weight w, `form`, a name of `underone.guides.FORMS`, how it acts, and
    `interval` the (low, high] of sigma / alpha outside which it does not, None for everywhere.
    `threshold`, a name of `THRESHOLDS`, bounds x0 after guidance: "static" to [-1, 1], "dynamic" by
    a quantile of its own, "none" not at all.
    """

    sampler: str = "ddim"
    steps: int = 20
    grid: str = "trailing"
    guidance: float = 0.0
    threshold: str = "static"
    form: str = "classifier-free"
    interval: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.sampler not in MADE_FOR_A_MODEL:
            sampler_named(self.sampler)
        if self.sampler in (TUNED, DISTILLED):
            self._take_learned_grid()
        elif self.sampler == DECODER:
            self._take_one_pass()
        else:
            grid_named(self.grid)
        form_named(self.form)
        if self.threshold not in THRESHOLDS:
            raise unknown("threshold", self.threshold, THRESHOLDS)
        if self.interval is not None and not 0 <= self.interval[0] < self.interval[1]:
            low, high = self.interval
            raise UserError(
                f"a guidance interval of sigma / alpha needs 0 <= low < high, got {low:g}:{high:g}"
            )

    def _take_learned_grid(self) -> None:
        if self.grid not in (LEARNED, Setting.grid):
            raise UserError(
                f"a {self.sampler} sampler has a grid of its own: leave out --grid {self.grid}"
            )
        object.__setattr__(self, "grid", LEARNED)

    def _take_one_pass(self) -> None:
        own = {"steps": 1, "grid": NO_GRID}
        for field in fields(self)[1:]:
            given = getattr(self, field.name)
            if given not in (field.default, own.get(field.name)):
                raise UserError(
                    f"the {DECODER} of a VAE draws an image in one pass, and has neither steps nor "
                    f"grid, guidance or threshold to choose: leave out {field.name} = {given}"
                )
        for name, value in own.items():
            object.__setattr__(self, name, value)

    @property
    def options(self) -> dict[str, Any]:
        """The fields that differ from the defaults, or from what the sampler implies.

        The sampler itself is among them where it is not the default.
        """
        usual = asdict(Setting(self.sampler)) | {"sampler": Setting.sampler}
        return {name: value for name, value in asdict(self).items() if value != usual[name]}

    @property
    def purpose(self) -> Purpose:
        """What a sampler must have been tuned for to be used with this setting."""
        setting = self.effective
        if setting.interval is not None and setting.interval[1] == float("inf"):
            raise UserError("a tuned sampler needs an interval with a finite end, like 0.2:100")
        return Purpose.model_validate(setting, from_attributes=True)

    @property
    def effective(self) -> "Setting":
        """The same setting without options that have no effect.

        At w = 0 and w = -1 a single model is evaluated, at all noise levels: the interval has no
        effect. Nor has the form, except at w = -1 if it uses labels there.
        """
        if self.guidance not in (0, -1):
            return self
        form = self.form if self.guidance == -1 and self.uses_labels else Setting.form
        return replace(self, form=form, interval=None)

    @property
    def guide(self) -> Form:
        """How the weight acts."""
        return form_named(self.form)

    def partner(self, model: GenerativeModel) -> Checkpoint | None:
        """The checkpoint that guides `model` in this setting, if another one does."""
        if self.guidance == 0 or not self.uses_labels or not isinstance(model, DiffusionModel):
            return None
        return self.guide.partner(model)

    @property
    def uses_labels(self) -> bool:
        """Whether samples of a conditional model are of the classes asked for."""
        return self.guide.uses_labels(self.guidance)

    def check(self, model: GenerativeModel) -> None:
        """A `UserError` where `model` cannot be sampled with this setting."""
        if isinstance(model, VAEModel):
            if self.sampler != DECODER:
                raise UserError(
                    f"{model.name} is a VAE, which has no steps to sample in: use {DECODER} in "
                    f"place of {self.sampler}"
                )
            return
        if self.sampler == DECODER:
            raise UserError(
                f"{DECODER} is the sampler of a VAE, and {model.name} is a diffusion model: use "
                f"another, like {Setting.sampler}"
            )
        most = model.config.schedule.steps
        if not 1 <= self.steps <= most:
            raise UserError(f"steps must lie in 1..{most} for {model.name}, got {self.steps}")
        if model.distillation is not None and self.guidance != 0:
            raise UserError(
                f"{model.name} was distilled, with the guidance of its teacher in it: leave out "
                f"--guidance {self.guidance:g}"
            )
        denoiser_for(model, self)
        grid_for(model, self)(model.config.schedule, self.steps)
        if self.sampler == ANALYTIC and self.guidance != 0:
            raise UserError(
                f"{ANALYTIC} holds at w = 0 only, not at guidance {self.guidance:g}, where the "
                "mixed x0 is no conditional mean: use ddpm-small or ddpm-large"
            )

    def evaluations(self, model: GenerativeModel) -> int:
        """Network evaluations per image, for plans; the true number is counted while drawing."""
        return sum(self.evaluations_of_each(model).values())

    def evaluations_of_each(self, model: GenerativeModel) -> dict[str, int]:
        """The same for each network; exact for samplers that evaluate once a step."""
        declared = self.declared_evaluations
        total = _ADAPTIVE_EVALUATIONS if declared is None else declared
        second = self.guide.second_pass
        branchless = model.num_classes is None and second == "model"
        if self.guidance == 0 or branchless or isinstance(model, VAEModel):
            return {"model": total}
        if self.guidance == -1:
            return {second if self.uses_labels else "model": total}
        inside = round(total * self._share_inside(model))
        return {"model": total, second: inside + (total if second == "model" else 0)}

    def _share_inside(self, model: DiffusionModel) -> float:
        """The share of the steps that begin inside the interval."""
        if self.interval is None:
            return 1.0
        low, high = self.interval
        path = nodes(grid_for(model, self), model.config.schedule, self.steps)[:-1]
        return sum(low < node.noise_ratio.item() <= high for node in path) / len(path)

    @property
    def declared_evaluations(self) -> int | None:
        """The evaluations that the sampler declares without guidance; None if it is adaptive."""
        if self.sampler in MADE_FOR_A_MODEL:
            return self.steps
        return sampler_named(self.sampler).evaluations(self.steps)


def usual_setting(model: GenerativeModel) -> Setting:
    """The setting that a model is sampled with by default."""
    if isinstance(model, VAEModel):
        return Setting(DECODER)
    if model.distillation is not None:
        return Setting(DISTILLED, len(model.distillation.paths[0]))
    return Setting()


def denoiser_for(
    model: DiffusionModel, setting: Setting, precision: Precision = "auto"
) -> Denoiser:
    """The denoiser that a sampler is given: the network, then guidance, then a threshold on x0."""
    autocast = autocast_of(model, setting, precision)
    denoiser = guided(model, setting.guide, setting.guidance, setting.interval, autocast)
    return THRESHOLDS[setting.threshold](denoiser)


@dataclass(frozen=True)
class SamplerSource:
    """Where the sampler and the grid of a setting come from.

    `identity` tells apart samplers and grids of the same name, such as one tuned anew.
    `is_ready` is whether a model has what they are made from.
    """

    sampler: Callable[[DiffusionModel, Setting], Sampler]
    grid: Callable[[DiffusionModel, Setting], Grid]
    identity: Callable[[DiffusionModel, Setting], dict[str, str]]
    is_ready: Callable[[DiffusionModel], bool]


def sampler_for(model: DiffusionModel, setting: Setting) -> Sampler:
    """The sampler of a setting, by its name or made for the model from what is kept beside it."""
    return source_of(setting).sampler(model, setting)


def grid_for(model: DiffusionModel, setting: Setting) -> Grid:
    """The grid of a setting; tuned samplers and distilled models have their own."""
    return source_of(setting).grid(model, setting)


def source_of(setting: Setting) -> SamplerSource:
    """Where the sampler and the grid of a setting come from: the model, or their names."""
    return MADE.get(setting.sampler, _NAMED)


def _named_sampler(model: DiffusionModel, setting: Setting) -> Sampler:
    return sampler_named(setting.sampler)


def _named_grid(model: DiffusionModel, setting: Setting) -> Grid:
    return grid_named(setting.grid)


def _tuned(model: DiffusionModel, setting: Setting) -> TunedSampler:
    return tuned_sampler(model, setting.purpose)


def _distillation(model: DiffusionModel) -> DistillationRecord:
    if model.distillation is None:
        raise UserError(
            f"{model.name} is not {DISTILLED}: use another sampler, like {Setting.sampler}, or "
            "make a model of few steps from it with underone distill"
        )
    return model.distillation


def _distilled_grid(model: DiffusionModel, setting: Setting) -> Grid:
    distillation = _distillation(model)
    path = distillation.path(setting.steps)
    if path is None:
        known = " or ".join(str(len(each)) for each in distillation.paths)
        raise UserError(f"{model.name} is distilled to {known} steps, not {setting.steps}")
    return path


_NAMED = SamplerSource(
    sampler=_named_sampler,
    grid=_named_grid,
    identity=lambda model, setting: {},
    is_ready=lambda model: True,
)
# The samplers that are made for a diffusion model.
MADE: Mapping[str, SamplerSource] = {
    DISTILLED: SamplerSource(
        sampler=lambda model, setting: _distillation(model).own_sampler,
        grid=_distilled_grid,
        identity=lambda model, setting: {"distilled": repr(_distilled_grid(model, setting))},
        is_ready=lambda model: model.distillation is not None,
    ),
    TUNED: SamplerSource(
        sampler=lambda model, setting: _tuned(model, setting).sampler,
        grid=lambda model, setting: _tuned(model, setting).placement,
        identity=lambda model, setting: {"tuned": _tuned(model, setting).sha256},
        is_ready=lambda model: bool(tuned_names(model)),
    ),
    ANALYTIC: SamplerSource(
        sampler=lambda model, setting: AnalyticDDPM(data_variance(model)),
        grid=_named_grid,
        identity=lambda model, setting: {},
        is_ready=is_known,
    ),
}


def autocast_of(
    model: GenerativeModel, setting: Setting, precision: Precision
) -> torch.dtype | None:
    """The dtype of mixed precision; None without, as for adaptive samplers."""
    adaptive = setting.declared_evaluations is None
    return fast_dtype(model.device) if precision == "auto" and not adaptive else None


def precision_name(model: GenerativeModel, setting: Setting, precision: Precision) -> str:
    """The precision that the network multiplies in, as protocols state it."""
    dtype = autocast_of(model, setting, precision)
    return "float32" if dtype is None else str(dtype).removeprefix("torch.")
