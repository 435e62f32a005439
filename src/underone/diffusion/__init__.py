"""The mathematics of diffusion: tensors and callables; no networks, no files, no metrics."""

from collections.abc import Callable

from underone.diffusion.autoguidance import Autoguidance
from underone.diffusion.classifier_guidance import Classifier, ClassifierGuidance
from underone.diffusion.denoiser import (
    Bound,
    Clipped,
    Denoiser,
    DynamicallyThresholded,
    Model,
    NetworkDenoiser,
)
from underone.diffusion.diverged import SamplingDivergedError
from underone.diffusion.evaluations import count_evaluations, listen_to_evaluations, per_image
from underone.diffusion.grid import (
    Explicit,
    Grid,
    Karras,
    Linspace,
    LogSNR,
    Quadratic,
    Trailing,
    Uniform,
    nodes,
)
from underone.diffusion.guidance import AdaptiveProjected, ClassifierFree, Rescaled, branches
from underone.diffusion.inpainting import Inpainted
from underone.diffusion.interpolation import slerp
from underone.diffusion.interval import Interval
from underone.diffusion.node import Estimate, Node, Schedule, node_at, noised, path_at
from underone.diffusion.noise import NoiseStreams
from underone.diffusion.prediction import (
    Data,
    FlowVelocity,
    Noise,
    Preconditioned,
    Prediction,
    Score,
    Velocity,
)
from underone.diffusion.samplers import (
    DDIM,
    DDPM,
    DEIS,
    IPNDM,
    RK45,
    SAMPLERS,
    AnalyticDDPM,
    AnnealedLangevin,
    Consistency,
    DPMSolver,
    Euler,
    Heun,
    PredictorCorrector,
    Sampler,
    SASolver,
    Step,
    Tuned,
    UniPC,
)
from underone.diffusion.sampling import Batch, integrate, no_noise, sample, trajectory
from underone.diffusion.schedule import (
    Cosine,
    Geometric,
    LinearBeta,
    ScaledLinearBeta,
    Straight,
)
from underone.diffusion.variation import path_from

THRESHOLDS: dict[str, Callable[[Denoiser], Denoiser]] = {
    "static": Clipped,
    "dynamic": DynamicallyThresholded,
    "none": lambda denoiser: denoiser,
}

GRIDS: dict[str, Grid] = {
    "uniform": Uniform(),
    "trailing": Trailing(),
    "linspace": Linspace(),
    "quadratic": Quadratic(),
    "log-snr": LogSNR(),
    "karras": Karras(),
}

__all__ = [
    "DDIM",
    "DDPM",
    "DEIS",
    "GRIDS",
    "IPNDM",
    "RK45",
    "SAMPLERS",
    "THRESHOLDS",
    "AdaptiveProjected",
    "AnalyticDDPM",
    "AnnealedLangevin",
    "Autoguidance",
    "Batch",
    "Bound",
    "Classifier",
    "ClassifierFree",
    "ClassifierGuidance",
    "Clipped",
    "Consistency",
    "Cosine",
    "DPMSolver",
    "Data",
    "Denoiser",
    "DynamicallyThresholded",
    "Estimate",
    "Euler",
    "Explicit",
    "FlowVelocity",
    "Geometric",
    "Grid",
    "Heun",
    "Inpainted",
    "Interval",
    "Karras",
    "LinearBeta",
    "Linspace",
    "LogSNR",
    "Model",
    "NetworkDenoiser",
    "Node",
    "Noise",
    "NoiseStreams",
    "Preconditioned",
    "Prediction",
    "PredictorCorrector",
    "Quadratic",
    "Rescaled",
    "SASolver",
    "Sampler",
    "SamplingDivergedError",
    "ScaledLinearBeta",
    "Schedule",
    "Score",
    "Step",
    "Straight",
    "Trailing",
    "Tuned",
    "UniPC",
    "Uniform",
    "Velocity",
    "branches",
    "count_evaluations",
    "integrate",
    "listen_to_evaluations",
    "no_noise",
    "node_at",
    "nodes",
    "noised",
    "path_at",
    "path_from",
    "per_image",
    "sample",
    "slerp",
    "trajectory",
]
