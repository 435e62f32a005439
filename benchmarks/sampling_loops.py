"""The sampling loops whose cost is measured: ours, and those of diffusers and k-diffusion."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import diffusers
import torch
from diffusers.utils.torch_utils import randn_tensor
from measuring import from_tests
from torch import Tensor, nn

from underone.checkpoint import DiffusionModel
from underone.diffusion import (
    GRIDS,
    RK45,
    SAMPLERS,
    AnnealedLangevin,
    Clipped,
    Sampler,
    nodes,
    trajectory,
)
from underone.generation import ANALYTIC, Draw, Setting, sampler_for
from underone.networks.precision import fast_dtype
from underone.zoo import load_model

MODEL = "fashion-mnist"
GRID = "trailing"
# At its usual tolerance RK45 takes minutes a run; the loop is the same at this one.
RK45_TOLERANCE = 1e-2

Run = Callable[[], None]


@dataclass(frozen=True)
class Subject:
    """What every loop is run on: the model, and ready inputs for bare calls of its network."""

    model: DiffusionModel
    steps: int
    dtype: torch.dtype | None
    x: Tensor
    condition: Tensor
    labels: Tensor

    @property
    def batch(self) -> int:
        return len(self.x)

    def autocast(self) -> torch.autocast:
        return torch.autocast("cpu", dtype=self.dtype, enabled=self.dtype is not None)


def make_subject(batch: int, steps: int) -> Subject:
    model = load_model(MODEL)
    assert model.num_classes is not None
    assert model.config.prediction.name == "noise", "their schedulers are told so"
    generator = torch.Generator().manual_seed(0)
    return Subject(
        model,
        steps,
        fast_dtype("cpu"),
        torch.randn(batch, *model.shape, generator=generator),
        torch.linspace(1, model.config.schedule.steps, batch),
        Draw(batch).class_labels(model.num_classes),
    )


@dataclass(frozen=True)
class Loop:
    """A sampling loop: `bind` gives its run on a network."""

    title: str
    bind: Callable[[nn.Module], Run]


# Ours.


def our_samplers(model: DiffusionModel) -> dict[str, Sampler]:
    """All of them; the one with an inner loop at 2 inner steps."""
    return {
        **SAMPLERS,
        ANALYTIC: sampler_for(model, Setting(ANALYTIC)),
        "annealed-langevin": AnnealedLangevin(inner=2),
        "rk45": RK45(RK45_TOLERANCE, RK45_TOLERANCE),
    }


def our_run(subject: Subject, sampler: Sampler, network: nn.Module) -> Run:
    model = replace(subject.model, network=network)
    denoiser = Clipped(model.denoiser(subject.dtype))
    keys = Draw(subject.batch).keys

    def run() -> None:
        path = nodes(GRIDS[GRID], denoiser.schedule, subject.steps)
        with torch.no_grad():
            for _ in trajectory(
                denoiser, sampler, path, shape=model.shape, keys=keys, labels=subject.labels
            ):
                pass

    return run


# Theirs.


def as_function(subject: Subject, network: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """(x, step (B,)) -> noise, in the precision we use; their steps count from 0."""

    def evaluate(x: Tensor, step: Tensor) -> Tensor:
        with subject.autocast():
            output: Tensor = network(x, step.to(torch.float32) + 1, subject.labels)
        return output.to(x.dtype)

    return evaluate


def diffusers_run(
    subject: Subject, scheduler_class: str, options: dict[str, Any], seed_an_image: bool
) -> Callable[[nn.Module], Run]:
    """The loop of diffusers' unconditional pipelines, as a function of the network."""
    scheduler = getattr(diffusers, scheduler_class)(
        beta_schedule="linear",
        beta_start=1e-4,
        beta_end=0.02,
        timestep_spacing=GRID,
        prediction_type="epsilon",
        **options,
    )
    # Their pipelines, too, look whether a scheduler draws noise.
    draws = "generator" in inspect.signature(scheduler.step).parameters

    def bind(network: nn.Module) -> Run:
        evaluate = as_function(subject, network)

        def run() -> None:
            generators = [
                torch.Generator().manual_seed(seed)
                for seed in range(subject.batch if seed_an_image else 1)
            ]
            extra = {"generator": generators if seed_an_image else generators[0]} if draws else {}
            with torch.no_grad():
                scheduler.set_timesteps(subject.steps)
                start = randn_tensor(subject.x.shape, generator=generators)
                x = start * scheduler.init_noise_sigma
                for step in scheduler.timesteps:
                    output = evaluate(
                        scheduler.scale_model_input(x, step), step.expand(subject.batch)
                    )
                    x = scheduler.step(output, step, x, **extra).prev_sample

        return run

    return bind


def k_diffusion_run(
    subject: Subject, function: str, options: dict[str, Any]
) -> Callable[[nn.Module], Run]:
    """A sampling function of k-diffusion on its wrapper for networks that predict noise."""
    sampling, external = (
        from_tests("peers").import_k_diffusion(part) for part in ("sampling", "external")
    )
    alpha_squared = (1 - subject.model.config.schedule.betas()).cumprod(0).float()

    def bind(network: nn.Module) -> Run:
        model = external.DiscreteEpsDDPMDenoiser(
            as_function(subject, network), alpha_squared, quantize=False
        )

        def run() -> None:
            torch.manual_seed(0)
            with torch.no_grad():
                sigmas = model.get_sigmas(subject.steps)
                x = torch.randn(subject.x.shape) * sigmas[0]
                getattr(sampling, function)(model, x, sigmas, disable=True, **options)

        return run

    return bind


@dataclass(frozen=True)
class Peer:
    """What of another library is run beside samplers of ours, and how it is configured."""

    library: str
    name: str
    called: str
    options: dict[str, Any]
    beside: tuple[str, ...]
    seed_an_image: bool = False

    @property
    def title(self) -> str:
        return f"{self.library} {self.name}{', a seed an image' if self.seed_an_image else ''}"

    def loop(self, subject: Subject) -> Loop:
        if self.library == "diffusers":
            bind = diffusers_run(subject, self.called, self.options, self.seed_an_image)
        else:
            bind = k_diffusion_run(subject, self.called, self.options)
        return Loop(self.title, bind)


def of_diffusers(name: str, scheduler: str, *beside: str, **options: Any) -> Peer:
    return Peer("diffusers", name, scheduler, options, beside)


def of_k_diffusion(name: str, *beside: str, **options: Any) -> Peer:
    """Up to its comma the name is the function's."""
    return Peer("k-diffusion", name, f"sample_{name.partition(',')[0]}", options, beside)


_MULTISTEP = "DPMSolverMultistepScheduler"
_SDE = {"algorithm_type": "sde-dpmsolver++"}
_DETERMINISTIC = (
    of_diffusers("DDIM", "DDIMScheduler", "ddim"),
    of_diffusers("Euler", "EulerDiscreteScheduler", "euler"),
    of_diffusers("Heun", "HeunDiscreteScheduler", "heun"),
    of_diffusers("DPM++ 1S", _MULTISTEP, "dpm-solver-1s", solver_order=1),
    of_diffusers("DPM++ 2M", _MULTISTEP, "dpm-solver-2m", solver_order=2),
    of_diffusers("DPM++ 3M", _MULTISTEP, "dpm-solver-3m", "dpm-solver-3m-exact", solver_order=3),
    of_diffusers("UniPC 3", "UniPCMultistepScheduler", "unipc", solver_order=3),
    of_diffusers("DEIS 3", "DEISMultistepScheduler", "deis", solver_order=3),
)
_STOCHASTIC = (
    of_diffusers("DDPM large", "DDPMScheduler", "ddpm-large", variance_type="fixed_large"),
    of_diffusers("DDPM small", "DDPMScheduler", "ddpm-small", variance_type="fixed_small"),
    of_diffusers("Euler ancestral", "EulerAncestralDiscreteScheduler", "ddpm-small"),
    of_diffusers("DPM++ 2M SDE", _MULTISTEP, "dpm-solver-2m-sde", solver_order=2, **_SDE),
    of_diffusers("SA-Solver", "SASolverScheduler", "sa-solver"),
    of_diffusers("DPM++ 3M SDE", _MULTISTEP, "dpm-solver-3m-sde", solver_order=3, **_SDE),
)
# Of the same method and order. Nothing like rk45, ddpm-analytic and the Langevin samplers is there.
PEERS = (
    *_DETERMINISTIC,
    *_STOCHASTIC,
    *(replace(peer, seed_an_image=True) for peer in _STOCHASTIC),
    of_k_diffusion("euler", "euler"),
    of_k_diffusion("heun", "heun"),
    # The churn of our "edm".
    of_k_diffusion("heun, churn 40", "edm", s_churn=40.0, s_tmin=0.05, s_tmax=50.0, s_noise=1.003),
    of_k_diffusion("dpmpp_2m", "dpm-solver-2m"),
    of_k_diffusion("dpmpp_2m_sde", "dpm-solver-2m-sde"),
    of_k_diffusion("dpmpp_3m_sde", "dpm-solver-3m-sde"),
    of_k_diffusion("lms, order 3", "deis", order=3),
    # Adams-Bashforth of the same order, but with weights of its own for unequal steps.
    of_k_diffusion("lms, order 4", "ipndm", order=4),
)
