"""What a sampler is fitted to: a model, its data, and noise that no sample set is drawn with."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from underone.checkpoint import DiffusionModel
from underone.data import Dataset
from underone.data.images import to_model_range
from underone.diffusion import (
    Bound,
    Denoiser,
    DPMSolver,
    Estimate,
    LogSNR,
    Node,
    NoiseStreams,
    Sampler,
    SASolver,
    UniPC,
    integrate,
    nodes,
)
from underone.tuning.features import FeatureDistance, FeatureStatistics, NetworkFeatures, merged
from underone.tuning.parameters import Parameters
from underone.tuning.placement import placed

BATCH = 64
_REFERENCE_IMAGES, _REFERENCE_BATCH = 10_000, 250
_TEACHER_STEPS, _TEACHER_IMAGES, _TEACHER_LAST = 60, 64, 5.0
# Where grids even in log-SNR may begin and end, as shares of T.
_ENDS = ((1.0, 0.02), (1.0, 0.04), (1.0, 0.08), (0.8, 0.04), (0.65, 0.04), (0.65, 0.08))
# Solvers, each with the eta of its noise; the others are tried on the first two of these grids.
_USUAL_SOLVER: tuple[Sampler, float] = (DPMSolver(2, eta=0.5), 0.5)
_OTHER_SOLVERS: tuple[tuple[Sampler, float], ...] = (
    (SASolver(), 1.0),
    (SASolver(eta=0.5), 0.5),
    (UniPC(2), 0.0),
    (DPMSolver(3, exact=True), 0.0),
)
# Sample sets have seeds below this.
_FIRST_SEED = 2**63
# The first sample of the teacher's noise, far from those of all batches.
_TEACHING = 2**61


@dataclass(frozen=True, eq=False)
class Task:
    """What a sampler is fitted to: a model as it will be sampled, and what it was trained on.

    `denoiser` is `model` guided and bounded. `labelled` says whether it uses labels. `neighbours`
    are the parameters learned for other numbers of steps.
    """

    model: DiffusionModel
    denoiser: Denoiser
    dataset: Dataset
    steps: int
    seed: int
    labelled: bool
    autocast: torch.dtype | None
    neighbours: tuple[Parameters, ...] = ()

    @property
    def features(self) -> NetworkFeatures:
        """The features that the distance compares."""
        return NetworkFeatures(self.model, self.autocast)

    @cached_property
    def reference(self) -> FeatureDistance:
        """The distance to the data."""
        generator = torch.Generator().manual_seed(self.seed)
        count = min(_REFERENCE_IMAGES, len(self.dataset))
        chosen = torch.randperm(len(self.dataset), generator=generator)[:count]
        found = []
        with torch.no_grad():
            for part in chosen.split(_REFERENCE_BATCH):
                x0 = to_model_range(self.dataset.images[part])
                noise = partial(torch.randn, x0.shape, generator=generator)
                found.append(self._statistics(x0, self.dataset.labels[part], noise))
        return FeatureDistance.to(merged(found))

    def _statistics(
        self, x0: Tensor, labels: Tensor, noise: Callable[[], Tensor]
    ) -> FeatureStatistics:
        known = self.labelled and self.model.num_classes is not None
        classes = labels if known else torch.zeros_like(labels)
        return self.features(x0, classes, self.network_labels(labels), noise)

    def network_labels(self, labels: Tensor) -> Tensor | None:
        """The labels that the network is given for images of `labels`; None where it takes none."""
        if self.model.num_classes is None:
            return None
        return labels if self.labelled else torch.full_like(labels, self.model.num_classes)

    def labels(self, first: int, count: int) -> Tensor:
        """Labels (count,), each as frequent as in the data; the same for the same `first`."""
        generator = torch.Generator().manual_seed((self.seed + first) % 2**63)
        chosen = torch.randint(len(self.dataset), (count,), generator=generator)
        return self.dataset.labels[chosen]

    def noise(self, first: int, count: int) -> NoiseStreams:
        """Noise that no sample set is drawn with."""
        keys = [(_FIRST_SEED + self.seed, first + index) for index in range(count)]
        return NoiseStreams(keys, self.model.shape)

    def classical_starts(self) -> list[Parameters]:
        """Classical solvers on steps placed along a fine trajectory, and on steps even in log-SNR.

        The latter end earlier, because the last steps of the network's own trajectory hardly change
        anything that the noise of sampling does not change anyway. Some begin later too, because
        few steps are better spent where there is more than noise.
        """
        schedule = self.model.config.schedule
        noise = self.noise(_TEACHING, _TEACHER_IMAGES)
        fine = LogSNR(last=min(_TEACHER_LAST, schedule.steps / 2))
        path = nodes(fine, schedule, min(schedule.steps, max(_TEACHER_STEPS, self.steps)))
        with torch.no_grad():
            trajectory = list(self._run(DPMSolver(2), path, noise, _TEACHING))
        even = [
            LogSNR(first=first * schedule.steps, last=max(1.0, last * schedule.steps))
            for first, last in _ENDS
        ]
        grids = [nodes(grid, schedule, self.steps)[:-1] for grid in even]
        starts = [(_USUAL_SOLVER, grid) for grid in (placed(trajectory, self.steps), *grids)]
        starts += [(solver, grid) for solver in _OTHER_SOLVERS for grid in grids[:2]]
        return [Parameters.of_solver(*solver, grid, schedule) for solver, grid in starts]

    def learned_starts(self) -> list[Parameters]:
        """What was learned for neighbouring numbers of steps, stretched to this one."""
        return [each.spread(self.steps) for each in self.neighbours]

    def statistics(self, parameters: Parameters, first: int) -> FeatureStatistics:
        """The statistics of the BATCH samples from `first` on, drawn with `parameters`."""
        noise = self.noise(first, BATCH)
        path = parameters.path(self.model.config.schedule)
        *_, last = self._run(parameters.sampler(), path, noise, first)
        # Clamped as when they become uint8. That rounds too, which no gradient would pass.
        return self._statistics(last.x.clamp(-1, 1), self.labels(first, BATCH), noise)

    def _run(
        self, sampler: Sampler, path: Sequence[Node], noise: NoiseStreams, first: int
    ) -> Iterator[Estimate]:
        x = path[0].sigma * noise()
        bound = Bound(self.denoiser, self.network_labels(self.labels(first, len(x))))
        return integrate(bound, sampler, path, x, noise)
