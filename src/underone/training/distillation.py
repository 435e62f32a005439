"""The losses of distillation: for a student that samples in very few evaluations."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from underone.diffusion import (
    DDIM,
    Bound,
    Clipped,
    Denoiser,
    DPMSolver,
    Estimate,
    NetworkDenoiser,
    Node,
    Prediction,
    Schedule,
    integrate,
    no_noise,
    node_at,
    noised,
)
from underone.diffusion.node import expand
from underone.training.energy_distance import EnergyDistance
from underone.training.levels import stratified


@dataclass(frozen=True)
class Student:
    """How the student's network is called and read: as its teacher's."""

    schedule: Schedule
    prediction: Prediction
    conditional: bool
    autocast: torch.dtype | None

    def denoiser(self, network: nn.Module) -> NetworkDenoiser:
        """The network as a denoiser."""
        return NetworkDenoiser(
            network, self.schedule, self.prediction, name="student", autocast=self.autocast
        )

    def told(self, labels: Tensor) -> Tensor | None:
        """The labels of a batch as the network is given them: None if it is unconditional."""
        return labels if self.conditional else None


@dataclass(frozen=True)
class TrajectoryDistillation:
    """sum_k mean |x_(k+1) - y_(k+1)|, x by one step of the student, y on the teacher's trajectory.

    Simple and fast distillation, SFD (Zhou et al. 2024, arXiv 2409.19681, Algorithm 1): y are the
    states of the third-order multistep solver along `path`, guided and bounded as the teacher is,
    and every `stride`-th node of the path is one of the student's. From each the student takes one
    step of DDIM, starting where its own previous step ended, through which no gradient passes.

    With an `energy_distance` a last term is added, `likeness` times the distance of the student's
    final images from those of the batch: what few steps cannot follow, they are to replace by
    something of the same kind.
    """

    student: Student
    teacher: Denoiser
    path: Sequence[Node]
    stride: int
    likeness: float = 0.0
    energy_distance: EnergyDistance | None = None

    def __call__(
        self, network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The loss of a batch: one trajectory for each of `images`, with its label."""
        noise = torch.randn(images.shape, generator=generator).to(images.device)
        x = self.path[0].sigma * noise
        told = self.student.told(labels)
        targets = self._targets(x, told)
        student = Bound(Clipped(self.student.denoiser(network)), told)
        nodes = self.path[:: self.stride]
        losses = []
        for here, there, target in zip(nodes[:-1], nodes[1:], targets[1:], strict=True):
            *_, last = integrate(student, DDIM(), (here, there), x, no_noise)
            losses.append((last.x - target.x).abs().mean())
            x = last.x.detach()
        if self.energy_distance is not None:
            # Clamped as when they become uint8. That rounds too, which no gradient would pass.
            made = last.x.clamp(-1, 1)
            distance = self.energy_distance(made, images, labels, generator)
            losses.append(self.likeness * distance)
        return torch.stack(losses).sum()

    @torch.no_grad()
    def _targets(self, x: Tensor, labels: Tensor | None) -> list[Estimate]:
        """The teacher's states at the student's nodes."""
        trajectory = integrate(Bound(self.teacher, labels), DPMSolver(3), self.path, x, no_noise)
        return list(trajectory)[:: self.stride]


@dataclass(frozen=True)
class EasyConsistencyTuning:
    """E |D(x_t, t) - D(x_r, r)| / (t - r), with r < t and no gradient through the second.

    Easy consistency tuning, ECT (Geng et al. 2024, arXiv 2406.14548). Here t and r are noise levels
    sigma / alpha, in units in which the data's standard deviation (`data_deviation`, the paper's
    sigma_data) is 1/2, and x_t and x_r hold the same noise; log t ~ N(`mean`, `deviation`^2), the
    paper's P_mean and P_std, stratified over the batch, and with q = `closeness`

        r = max(0, t (1 - (1 + 8 / (1 + exp(t))) / q)).

    At r = 0 the second estimate is the image itself. The norm is over all elements of an image. No
    teacher is evaluated: the student starts as a copy of it, whose estimates are means, and ends
    with estimates that are samples.
    """

    student: Student
    data_deviation: float
    mean: float
    deviation: float
    closeness: float

    def __call__(
        self, network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The loss of a batch."""
        high = self._levels(len(images), generator)
        low = (high * (1 - (1 + 8 * torch.sigmoid(-high)) / self.closeness)).clamp(min=0)
        noise = torch.randn(images.shape, generator=generator).to(images.device)
        denoiser = self.student.denoiser(network)
        # Both passes drop the same features, if any.
        seed = int(torch.randint(2**62, (), generator=generator))

        def estimate(levels: Tensor) -> Tensor:
            node = self._node(levels)
            torch.manual_seed(seed)
            return denoiser(noised(images, node, noise), node, self.student.told(labels))

        with torch.no_grad():
            known = expand(low == 0, images).bool()
            target = torch.where(known, images, estimate(low))
        distance = (estimate(high) - target).flatten(1).norm(dim=1)
        return (distance / (high - low).to(distance)).mean()

    def _levels(self, batch: int, generator: torch.Generator) -> Tensor:
        normal = torch.special.ndtri(stratified(batch, generator))
        levels = torch.exp(self.mean + self.deviation * normal)
        return levels.clamp(max=self._level_at(1.0))

    def _node(self, levels: Tensor) -> Node:
        """The nodes (B,) of these levels; the step k = 1 stands for what lies below it."""
        schedule = self.student.schedule
        least = self._level_at(1 / schedule.steps)
        times = schedule.time(-torch.log(levels.clamp(min=least) * self._unit))
        return node_at(schedule, times)

    def _level_at(self, t: float) -> float:
        node = node_at(self.student.schedule, torch.tensor(t, dtype=torch.float64))
        return node.noise_ratio.item() / self._unit

    @property
    def _unit(self) -> float:
        return 2 * self.data_deviation
