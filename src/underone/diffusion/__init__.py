"""The mathematics of diffusion: tensors and callables; no networks, no files, no metrics."""

from underone.diffusion.denoiser import Bound, Clipped, Denoiser, Model, NetworkDenoiser
from underone.diffusion.evaluations import count_evaluations
from underone.diffusion.grid import Grid, Quadratic, Trailing, Uniform, nodes
from underone.diffusion.guidance import ClassifierFree
from underone.diffusion.node import Estimate, Node, Schedule, node_at
from underone.diffusion.noise import NoiseStreams
from underone.diffusion.prediction import Data, Noise, Prediction, Velocity
from underone.diffusion.samplers import DDIM, DDPM, SAMPLERS, Sampler
from underone.diffusion.sampling import Batch, integrate, sample, trajectory
from underone.diffusion.schedule import Cosine, LinearBeta

GRIDS: dict[str, Grid] = {
    "uniform": Uniform(),
    "trailing": Trailing(),
    "quadratic": Quadratic(),
}

__all__ = [
    "DDIM",
    "DDPM",
    "GRIDS",
    "SAMPLERS",
    "Batch",
    "Bound",
    "ClassifierFree",
    "Clipped",
    "Cosine",
    "Data",
    "Denoiser",
    "Estimate",
    "Grid",
    "LinearBeta",
    "Model",
    "NetworkDenoiser",
    "Node",
    "Noise",
    "NoiseStreams",
    "Prediction",
    "Quadratic",
    "Sampler",
    "Schedule",
    "Trailing",
    "Uniform",
    "Velocity",
    "count_evaluations",
    "integrate",
    "node_at",
    "nodes",
    "sample",
    "trajectory",
]
