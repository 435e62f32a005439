"""Tuned samplers: where they start, what they are fitted to, and that a run can be resumed."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from conftest import ModelFolder
from helpers import draws, each_schedule, normal, run
from test_architecture import ORDER, SOURCE, imported_rooms
from underone.checkpoint import DiffusionModel, load_checkpoint, load_config, save_config
from underone.conformance.oracles import SingleImage, plane_mixture
from underone.data import Dataset, load_dataset
from underone.data.images import to_model_range
from underone.diffusion import (
    DDIM,
    Bound,
    DPMSolver,
    LinearBeta,
    LogSNR,
    Node,
    NoiseStreams,
    Schedule,
    Tuned,
    integrate,
    node_at,
    nodes,
)
from underone.errors import UserError
from underone.generation import TUNED, Draw, Setting, generate
from underone.metrics.frechet import Gaussian, frechet_distance
from underone.tuned import Purpose, TunedSampler, TuningRecord, keep, tuned_sampler
from underone.tuning.descent import descend, initial_state, validation_distance
from underone.tuning.features import (
    ClassMeanDistance,
    FeatureDistance,
    FeatureStatistics,
    FrechetDistance,
    NetworkFeatures,
    merged,
)
from underone.tuning.parameters import Parameters
from underone.tuning.placement import jump_errors, shortest_path
from underone.tuning.task import BATCH
from underone.tuning.tune import draft_path, set_up

DATA = Path(__file__).parent / "data" / "fashion-mnist"


# The sampler.


@each_schedule
def test_without_noise_memory_or_shift_it_is_ddim(schedule: Schedule) -> None:
    path = nodes(LogSNR(last=20, first=900), schedule, 6)
    plain = Tuned(torch.zeros(5, dtype=torch.float64), *_first_order(6))
    x = normal(7, 2)
    denoiser = plane_mixture(schedule)
    mine = run(denoiser, plain, path, x, draws(7, 2))
    other = run(denoiser, DDIM(), path, x, draws(7, 2))
    for a, b in zip(mine, other, strict=True):
        torch.testing.assert_close(a.x, b.x, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(a.x0, b.x0, rtol=1e-9, atol=1e-9)


def _first_order(steps: int) -> tuple[Tensor, Tensor]:
    weights = torch.zeros(steps, 3, dtype=torch.float64)
    weights[:, 0] = 1
    return weights, torch.zeros(steps, dtype=torch.float64)


@each_schedule
@pytest.mark.parametrize("steps", [1, 2, 3, 7])
@pytest.mark.parametrize("first", [1000, 650])
def test_it_starts_as_a_classical_solver_on_the_steps_it_was_given(
    schedule: Schedule, steps: int, first: int
) -> None:
    path = nodes(LogSNR(first=first, last=20), schedule, steps)
    start = Parameters.classical(path[:-1], schedule)
    for placed, given in zip(start.path(schedule), path, strict=True):
        # At T there is no room before the first node, and a little is kept there to grow from.
        torch.testing.assert_close(placed.t, given.t, rtol=1e-5, atol=1e-9)
    x, denoiser = normal(7, 2), plane_mixture(schedule)
    mine = run(denoiser, start.sampler(), start.path(schedule), x, draws(7, 2))
    solver = run(denoiser, DPMSolver(2, eta=0.5), path, x, draws(7, 2))
    torch.testing.assert_close(mine[-1].x, solver[-1].x, rtol=1e-4, atol=1e-5)


@each_schedule
def test_what_was_learned_spreads_over_other_numbers_of_steps(schedule: Schedule) -> None:
    path = nodes(LogSNR(first=800, last=20), schedule, 5)[:-1]
    generator = torch.Generator().manual_seed(0)
    classical = Parameters.classical(path, schedule).sampler()
    sampler = replace(
        classical,
        etas=torch.rand(4, generator=generator).double(),
        shifts=torch.rand(5, generator=generator).double(),
    )
    learned = Parameters.learned(path, sampler, schedule)
    for back in (learned, learned.spread(5)):
        for node, given in zip(back.path(schedule)[:-1], path, strict=True):
            torch.testing.assert_close(node.t, given.t)
        for mine, its in zip(vars(back.sampler()).values(), vars(sampler).values(), strict=True):
            torch.testing.assert_close(mine, its)
    for steps in (2, 4, 6, 9):
        spread = learned.spread(steps)
        placed = spread.path(schedule)[:-1]
        torch.testing.assert_close(placed[0].t, path[0].t)
        torch.testing.assert_close(placed[-1].t, path[-1].t)
        gaps = torch.stack([node.log_snr for node in placed]).diff()
        torch.testing.assert_close(gaps, gaps.mean().expand(steps - 1))
        assert spread.sampler().steps == steps
        assert sampler.etas.min() <= spread.sampler().etas.min()
        assert spread.shifts[0] == sampler.shifts[0]
        assert spread.shifts[-1] == sampler.shifts[-1]


@dataclass(frozen=True)
class Listening:
    """A denoiser that remembers what it was told."""

    schedule: Schedule
    told: list[tuple[Tensor, Node]]

    def __call__(self, x: Tensor, node: Node, label: Tensor | None) -> Tensor:
        self.told.append((x, node))
        return torch.zeros_like(x)


def test_a_shift_changes_what_the_network_is_told_and_nothing_else() -> None:
    denoiser = Listening(LinearBeta(), [])
    path = nodes(LogSNR(last=20, first=900), denoiser.schedule, 2)
    weights, shifts = _first_order(2)
    sampler = Tuned(torch.zeros(1, dtype=torch.float64), weights, shifts + 0.25)
    x = normal(3, 2)
    run(denoiser, sampler, path, x, draws(3, 2))
    (seen, node), _ = denoiser.told
    assert node.log_snr.item() == pytest.approx(path[0].log_snr.item() + 0.25)
    # x / alpha, of which noise is a part of sigma / alpha, stays as it is.
    torch.testing.assert_close(seen / node.alpha, x / path[0].alpha)


def test_gradients_reach_every_number_and_agree_with_differences() -> None:
    schedule = LinearBeta()
    # It begins below T, where the noise that it begins with depends on the first node; and between
    # whole steps, where the schedule has kinks, and which side of one a node is on is rounding.
    grid = LogSNR(first=500.5, last=20.5)
    start = Parameters.classical(nodes(grid, schedule, 4)[:-1], schedule)
    bound = Bound(plane_mixture(schedule), None)
    z = 0.3 * normal(5, 2)

    def loss(*tensors: Tensor) -> Tensor:
        parameters = Parameters(*tensors)
        path = parameters.path(schedule)
        *_, last = integrate(bound, parameters.sampler(), path, path[0].sigma * z, draws(5, 2))
        return last.x.square().sum()

    leaves = [tensor.clone().requires_grad_() for tensor in start.tensors()]
    # Off the kinks of the schedule and of the first steps, which have no earlier estimates.
    with torch.no_grad():
        leaves[3] += 0.05
        leaves[3][0] = 0.02
    loss(*leaves).backward()
    for which, leaf in enumerate(leaves):
        flat = leaf.grad.flatten() if leaf.grad is not None else torch.zeros(leaf.numel())
        for index in range(leaf.numel()):
            ends = []
            for change in (1e-5, -1e-5):
                moved = [other.detach().clone() for other in leaves]
                moved[which].flatten()[index] += change
                ends.append(loss(*moved).item())
            difference = (ends[0] - ends[1]) / 2e-5
            assert flat[index].item() == pytest.approx(difference, rel=2e-3, abs=2e-4)


# Placement.


@pytest.mark.parametrize("growth", [1.0, 1.15])
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 6])
def test_the_shortest_path_is_the_best_of_all(steps: int, growth: float) -> None:
    states = 7
    errors = torch.full((states, states), math.inf, dtype=torch.float64)
    upper = torch.triu_indices(states, states, 1)
    errors[upper[0], upper[1]] = normal(len(upper[0]), seed=steps).abs()

    def cost(path: tuple[int, ...]) -> float:
        return sum(
            growth**index * errors[a, b].item()
            for index, (a, b) in enumerate(itertools.pairwise(path))
        )

    every = [
        (0, *between, states - 1)
        for between in itertools.combinations(range(1, states - 1), steps - 1)
    ]
    assert tuple(shortest_path(errors, steps, growth)) == min(every, key=cost)


def test_more_jumps_than_states_are_refused() -> None:
    for steps in (0, 4):
        with pytest.raises(ValueError, match="3 jumps at most"):
            shortest_path(torch.ones(4, 4), steps)


def test_jumps_along_a_straight_flow_have_no_error_and_along_a_bent_one_grow() -> None:
    schedule = LinearBeta()
    path = nodes(LogSNR(last=5), schedule, 12)
    x = path[0].sigma * normal(50, 2)
    straight = run(SingleImage(schedule, normal(2)), DDIM(), path, x, draws(50, 2))
    errors = jump_errors(straight)
    assert errors[errors.isfinite()].max() < 1e-12
    bent = jump_errors(run(plane_mixture(schedule), DDIM(), path, x, draws(50, 2)))
    assert bent[0, 1] < 1e-12  # the jump that was made
    assert (bent.triu(2)[2] > 0).sum() == len(path) - 4
    assert bent[2, -1] > bent[9, -1] > 0


# The distance.


def test_the_distance_is_that_of_fid_and_has_its_gradient() -> None:
    mixing = normal(6, 6, seed=5)
    one, other = normal(400, 6, seed=1) @ mixing, normal(300, 6, seed=2) + 0.3
    distance = FrechetDistance.to(one)
    mine = distance(other).item()
    gaussians = [Gaussian(x.mean(0), torch.cov(x.T)) for x in (one, other)]
    assert mine == pytest.approx(frechet_distance(*gaussians), rel=1e-9)
    assert distance(one).item() == pytest.approx(0, abs=1e-6)
    leaf = other[:50].clone().requires_grad_()
    assert torch.autograd.gradcheck(distance, leaf, atol=1e-6)


def statistics(pooled: list[Tensor], maps: list[Tensor], labels: Tensor) -> FeatureStatistics:
    """With the first of the pooled features for the errors, too."""
    classes = torch.nn.functional.one_hot(labels, 3).double()
    sums = tuple(classes.T @ each for each in maps)
    squares = tuple(each.square().sum() for each in maps)
    return FeatureStatistics(tuple(pooled), sums, squares, classes.sum(0), pooled[0][:, :1])


def test_no_feature_counts_for_more_because_its_numbers_are_larger() -> None:
    labels, others = torch.arange(500) % 3, torch.arange(300) % 3
    data = [normal(500, 4, seed=1), normal(500, 3, seed=2)]
    other = [0.5 + normal(300, 4, seed=3), normal(300, 3, seed=4)]

    def distance(scale: float) -> Tensor:
        one, two = (
            statistics([each[0], scale * each[1]], [scale * each[1]], classes)
            for each, classes in ((data, labels), (other, others))
        )
        return FeatureDistance.to(one)(two)

    torch.testing.assert_close(distance(1), distance(100))


def test_data_are_like_themselves_and_parts_are_like_the_whole() -> None:
    labels = torch.arange(600) % 3
    pooled, maps = [normal(600, 4, seed=1)], [normal(600, 20, seed=2) + 2.0 * labels[:, None]]
    data = statistics(pooled, maps, labels)
    distance = FeatureDistance.to(data)
    # No gap to the very same images: what chance would make of as many others is taken off.
    assert distance(data).item() == pytest.approx(-5.0 / 200, abs=1e-6)
    halves = [
        statistics([each[part] for each in pooled], [each[part] for each in maps], labels[part])
        for part in (slice(0, 100), slice(100, 600))
    ]
    whole = merged(halves)
    torch.testing.assert_close(distance(whole), distance(data))
    assert not any(each.requires_grad for each in whole.detached().sums)


def test_images_that_are_harder_to_denoise_are_seen() -> None:
    labels, pooled = torch.arange(600) % 3, normal(600, 4, seed=1)
    data = statistics([pooled], [pooled], labels)
    distance = FeatureDistance.to(data)
    harder = replace(data, errors=data.errors + 0.5)
    expected = 0.25 / data.errors.var()
    torch.testing.assert_close(distance(harder) - distance(data), expected)
    varied = replace(data, errors=2 * data.errors - data.errors.mean())
    torch.testing.assert_close(
        distance(varied) - distance(data), torch.ones((), dtype=torch.float64)
    )


def test_an_error_is_what_the_model_makes_of_an_image_noised_again(
    model: DiffusionModel, dataset: Dataset
) -> None:
    x0, labels = to_model_range(dataset.images[:3]), dataset.labels[:3]
    noise = normal(*x0.shape, seed=3).float()
    seen = NetworkFeatures(model, None)(x0, labels, labels, lambda: noise)
    node = node_at(model.config.schedule, torch.tensor(0.2, dtype=torch.float64))
    x = (node.alpha * x0 + node.sigma * noise).float()
    missed = model.denoiser()(x, node, labels) - x0
    expected = missed.double().flatten(1).square().sum(1).log()
    torch.testing.assert_close(seen.errors.flatten(), expected)


def test_swapped_classes_are_seen_and_chance_is_not() -> None:
    labels = torch.arange(3000) % 3

    def images(seed: int) -> Tensor:
        return normal(3000, 20, seed=seed) + labels[:, None]

    pooled = [normal(3000, 2, seed=9)]
    distance = ClassMeanDistance(*_class_means(images(1), labels), torch.ones(3, dtype=torch.bool))
    chance = [distance(*_sums(images(seed), labels)).item() for seed in range(2, 12)]
    # 1 / 1000 of variance is chance, of the data's means and of the samples'; one is taken off.
    assert sum(chance) / len(chance) == pytest.approx(1e-3, abs=4e-4)
    assert distance(*_sums(images(2), labels.flip(0))).item() > 0.05
    swapped = statistics(pooled, [images(2)], labels.flip(0))
    whole = FeatureDistance.to(statistics(pooled, [images(1)], labels))
    assert whole(swapped) > whole(statistics(pooled, [images(2)], labels)) + 0.2


def _sums(maps: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    classes = torch.nn.functional.one_hot(labels, 3).double()
    return classes.T @ maps, classes.sum(0)


def _class_means(maps: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    sums, counts = _sums(maps, labels)
    means = sums / counts[:, None]
    return means, (maps - means[labels]).square().sum() / len(maps)


def test_a_class_without_images_does_not_count() -> None:
    maps, labels = normal(300, 5), torch.arange(300) % 3
    means = _class_means(maps, labels)
    distance = ClassMeanDistance(*means, torch.ones(3, dtype=torch.bool))
    two = labels < 2
    without = distance(*_sums(maps[two], labels[two]))
    assert without.item() == pytest.approx(-1 / 100)
    # Nor does one that the data have no image of, whatever is made of it.
    unknown = ClassMeanDistance(*means, torch.tensor([True, True, False]))
    strange = torch.where(two[:, None], maps, maps + 100)
    assert unknown(*_sums(strange, labels)).item() == pytest.approx(-1 / 100)


def test_images_that_do_not_vary_within_a_class_are_refused() -> None:
    labels = torch.arange(30) % 3
    alike = normal(3, 20)[labels]
    with pytest.raises(UserError, match="several different images a class"):
        FeatureDistance.to(statistics([normal(30, 2)], [alike], labels))


# The whole.


# Batches that a start is chosen by, and those that the descent is validated by.
SELECTION_BATCHES, VALIDATION_BATCHES = 1, 6


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the usual, and fewer: what is tuned here has few features to be seen by."""
    for module in ("task", "descent", "tune"):
        monkeypatch.setattr(f"underone.tuning.{module}.BATCH", BATCH // 2)
    monkeypatch.setattr("underone.tuning.descent._QUEUE_BATCHES", 8)
    monkeypatch.setattr("underone.tuning.descent.SELECTION_BATCHES", SELECTION_BATCHES)
    for module in ("descent", "tune"):
        monkeypatch.setattr(f"underone.tuning.{module}.VALIDATION_BATCHES", VALIDATION_BATCHES)
    monkeypatch.setattr("underone.tuning.task._TEACHER_IMAGES", 16)


@pytest.fixture
def dataset() -> Dataset:
    found = load_dataset("fashion-mnist", "test", DATA)
    return replace(found, images=found.images[:300], labels=found.labels[:300])


@pytest.fixture
def model(model_folder: ModelFolder, dataset: Dataset) -> DiffusionModel:
    folder = model_folder("tunable")
    config = load_config(folder)
    data = config.data.model_copy(update={"sha256": dataset.sha256})
    save_config(folder, config.model_copy(update={"data": data}))
    loaded = load_checkpoint(folder)
    assert isinstance(loaded, DiffusionModel)
    return loaded


SETTING = Setting("ddim", 2)


@pytest.mark.slow
def test_tuning_comes_nearer_to_the_data(model: DiffusionModel, dataset: Dataset) -> None:
    tuning = set_up(model, SETTING, dataset, minutes=1, seed=0)
    start = tuning.state.start
    for _ in itertools.islice(descend(tuning.task, tuning.state, budget=3600), 12):
        pass
    before, after = (
        validation_distance(tuning.task, each, VALIDATION_BATCHES)
        for each in (start, tuning.state.parameters)
    )
    assert before == tuning.state.before
    assert after < before


@pytest.mark.slow
def test_it_is_stopped_found_again_and_used(model: DiffusionModel, dataset: Dataset) -> None:
    first = set_up(model, SETTING, dataset, minutes=0.05, seed=3)
    first.run(lambda: True, lambda progress: None)
    assert (first.state.iterations, first.done) == (1, False)
    second = set_up(model, SETTING, dataset, minutes=0.05, seed=3)
    assert second.state.iterations == 1
    assert second.state.seconds == first.state.seconds
    assert second.state.before == first.state.before
    for a, b in zip(
        second.state.parameters.tensors(), first.state.parameters.tensors(), strict=True
    ):
        assert torch.equal(a, b)
    second.run(lambda: False, lambda progress: None)
    assert second.done
    assert second.state.iterations > 1
    tuned = second.finish()
    assert not draft_path(model, tuned.purpose).exists()
    assert tuned_sampler(model, SETTING.purpose) == tuned
    chosen = Setting("tuned", 2)
    assert chosen.grid == "learned"
    samples = generate(model, chosen, Draw(4))
    assert samples.protocol["evaluations"] == {"model": 2.0}
    again = generate(model, chosen, Draw(4), batch_size=1)
    assert (samples.images.int() - again.images.int()).abs().max() <= 2
    assert "exists" in refusal(lambda: set_up(model, SETTING, dataset, minutes=1, seed=3))


@pytest.mark.slow
def test_it_begins_with_the_best_start_and_never_ends_with_worse(
    model: DiffusionModel, dataset: Dataset
) -> None:
    tuning = set_up(model, SETTING, dataset, minutes=1, seed=4)
    task, state = tuning.task, tuning.state
    judgements = [
        validation_distance(task, start, SELECTION_BATCHES) for start in task.classical_starts()
    ]
    assert len(judgements) == 7
    assert (
        validation_distance(task, state.start, SELECTION_BATCHES)
        == min(judgements)
        < max(judgements)
    )
    state.average, state.averaged = Parameters(*(3 + each for each in state.start.tensors())), 1
    tuned = tuning.finish()
    assert tuned.learning.distance_after == tuned.learning.distance_before
    assert torch.equal(tuned.sampler.etas, state.start.sampler().etas)


@pytest.mark.slow
def test_it_may_begin_where_another_number_of_steps_ended(
    model: DiffusionModel, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Judging all starts takes long, and is done once below.
    monkeypatch.setattr("underone.tuning.tune.initial_state", lambda task: None)

    def starts() -> list[Parameters]:
        return set_up(model, SETTING, dataset, minutes=1, seed=4).task.learned_starts()

    for steps, count in ((4, 0), (3, 1), (1, 1)):  # of one step there is too little to spread
        keep(model, kept(model, Purpose(steps=steps)))
        assert len(starts()) == count
    task = set_up(model, SETTING, dataset, minutes=1, seed=4).task
    (start,) = task.learned_starts()
    assert len(start.path(model.config.schedule)) == 3
    best = min(task.classical_starts(), key=lambda each: validation_distance(task, each, 5))
    state = initial_state(task)
    nearer = validation_distance(task, start, 5) < validation_distance(task, best, 5)
    assert state.learned == nearer
    assert torch.equal(state.start.gaps, start.gaps if nearer else best.gaps)
    keep(model, kept(model, Purpose(steps=3)).model_copy(update={"model_sha256": "of another"}))
    assert starts() == []


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(UserError) as refused:
        act()
    return str(refused.value)


def kept(model: DiffusionModel, purpose: Purpose) -> TunedSampler:
    """A hand-made tuned sampler."""
    steps = purpose.steps
    return TunedSampler(
        model_sha256=model.sha256,
        purpose=purpose,
        grid=tuple(1000.0 - 10 * step for step in range(steps)),
        etas=(0.1,) * (steps - 1),
        weights=((1.0, 0.0),) * steps,
        shifts=(0.0,) * steps,
        learning=TuningRecord(
            seed=0,
            batch_size=1,
            iterations=1,
            minutes=1,
            distance_before=1,
            distance_after=1,
        ),
    )


def test_it_is_used_for_nothing_else_than_what_it_was_tuned_for(model: DiffusionModel) -> None:
    keep(model, kept(model, Purpose(steps=3)))
    Setting("tuned", 3).check(model)
    for other in (
        Setting("tuned", 4),
        Setting("tuned", 3, guidance=1),
        Setting("tuned", 3, threshold="none"),
    ):
        text = refusal(lambda other=other: other.check(model))  # type: ignore[misc]
        assert "underone tune" in text
        assert "3-steps" in text
    changed = replace(model, sha256="0" * 64)
    assert "other weights" in refusal(lambda: Setting("tuned", 3).check(changed))
    assert "leave out --grid" in refusal(lambda: Setting("tuned", 3, "karras"))
    assert "unknown grid" in refusal(lambda: Setting("ddim", 3, "learned"))


def test_an_interval_without_an_end_is_refused_in_a_line() -> None:
    endless = Setting("tuned", 3, guidance=1.0, interval=(0.2, math.inf))
    with pytest.raises(UserError, match="finite end"):
        _ = endless.purpose


def test_a_purpose_has_nothing_in_it_that_changes_nothing() -> None:
    plain = Setting(TUNED, 3).purpose
    assert Setting(TUNED, 3, form="rescaled", interval=(0.2, 5)).purpose == plain
    forms = ("rescaled", "projected", "auto")
    purposes = [Setting(TUNED, 3, guidance=-1, form=form).purpose for form in forms]
    # Without labels all forms are one model; a weaker one that guides has them still.
    assert [purpose.form for purpose in purposes] == ["classifier-free", "classifier-free", "auto"]


def test_what_is_not_tuned_to_the_end_is_not_called_tuned(model: DiffusionModel) -> None:
    found = keep(model, kept(model, Purpose(steps=2)))
    found.with_name("5-steps.draft.json").write_text("{}")
    with pytest.raises(UserError, match=r"choose another sampler \(tuned are 2-steps\)"):
        tuned_sampler(model, Purpose(steps=3))


def test_every_purpose_has_a_file_of_its_own() -> None:
    purposes = [
        Purpose(steps=3),
        Purpose(steps=4),
        Purpose(steps=3, guidance=1),
        Purpose(steps=3, guidance=1.5),
        Purpose(steps=3, guidance=1, form="rescaled,phi=0.5"),
        Purpose(steps=3, guidance=1, form="rescaled,phi=0.7"),
        Purpose(steps=3, guidance=1, interval=(0.2, 3)),
        Purpose(steps=3, threshold="none"),
    ]
    names = {purpose.file_name for purpose in purposes}
    assert len(names) == len(purposes)
    assert all(name.isascii() and "/" not in name for name in names)
    assert Purpose(steps=3).file_name == "3-steps.json"


@pytest.mark.slow
def test_what_cannot_be_tuned_is_refused(model: DiffusionModel, dataset: Dataset) -> None:
    def with_(**changes: object) -> str:
        options = {"minutes": 1.0, "seed": 0} | changes
        return refusal(lambda: set_up(model, SETTING, dataset, **options))  # type: ignore[arg-type]

    for minutes in (0, -1, math.nan, math.inf):
        assert "minutes" in with_(minutes=minutes)
    assert "seed" in with_(seed=-1)
    other = replace(dataset, images=dataset.images.flip(0))
    assert "--root" in refusal(lambda: set_up(model, SETTING, other, minutes=1, seed=0))
    set_up(model, SETTING, dataset, minutes=1, seed=0).save()
    assert "seed" in with_(seed=1)


@pytest.mark.slow
def test_no_sample_set_is_drawn_with_the_noise_of_tuning(
    model: DiffusionModel, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("underone.tuning.tune.initial_state", lambda task: None)
    task = set_up(model, SETTING, dataset, minutes=1, seed=5).task
    mine = task.noise(7, 2)()
    assert torch.equal(mine, NoiseStreams([(2**63 + 5, 7), (2**63 + 5, 8)], model.shape)())
    assert "seeds" in refusal(lambda: Draw(1, seed=2**63))


def test_tuning_cannot_know_of_a_metric() -> None:
    for path in (SOURCE / "tuning").glob("*.py"):
        assert not imported_rooms(path, ORDER) & {"metrics", "zoo", "evaluation"}, path
