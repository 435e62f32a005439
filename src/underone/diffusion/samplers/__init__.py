"""The samplers, one family a file, and the names users call them by."""

from underone.diffusion.samplers.consistency import Consistency
from underone.diffusion.samplers.ddim import DDIM
from underone.diffusion.samplers.ddpm import DDPM, AnalyticDDPM
from underone.diffusion.samplers.dpm_solver import DPMSolver
from underone.diffusion.samplers.edm import Euler, Heun
from underone.diffusion.samplers.langevin import AnnealedLangevin, PredictorCorrector
from underone.diffusion.samplers.multistep import DEIS, IPNDM
from underone.diffusion.samplers.rk45 import RK45
from underone.diffusion.samplers.sa_solver import SASolver
from underone.diffusion.samplers.sampler import Sampler, Step
from underone.diffusion.samplers.tuned import Tuned
from underone.diffusion.samplers.unipc import UniPC

# AnalyticDDPM, Consistency and Tuned are not among them: they are made for a model.
SAMPLERS: dict[str, Sampler] = {
    "ddpm-large": DDPM("large"),
    "ddpm-small": DDPM("small"),
    "ddim": DDIM(),
    "euler": Euler(),
    "heun": Heun(),
    # The churn of EDM's own ImageNet-64 results.
    "edm": Heun(churn=40, churn_min=0.05, churn_max=50, churn_noise=1.003),
    "dpm-solver-1s": DPMSolver(1),
    "dpm-solver-2m": DPMSolver(2),
    "dpm-solver-3m": DPMSolver(3),
    "dpm-solver-3m-exact": DPMSolver(3, exact=True),
    "dpm-solver-2m-sde": DPMSolver(2, eta=1),
    "dpm-solver-3m-sde": DPMSolver(3, eta=1),
    "sa-solver": SASolver(),
    "unipc": UniPC(),
    "deis": DEIS(),
    "ipndm": IPNDM(),
    "annealed-langevin": AnnealedLangevin(),
    "ncsnv2": AnnealedLangevin(inner=5, rate=None, published=True),
    "predictor-corrector": PredictorCorrector(),
    "rk45": RK45(),
}

__all__ = [
    "DDIM",
    "DDPM",
    "DEIS",
    "IPNDM",
    "RK45",
    "SAMPLERS",
    "AnalyticDDPM",
    "AnnealedLangevin",
    "Consistency",
    "DPMSolver",
    "Euler",
    "Heun",
    "PredictorCorrector",
    "SASolver",
    "Sampler",
    "Step",
    "Tuned",
    "UniPC",
]
