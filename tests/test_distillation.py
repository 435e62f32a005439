"""Distillation: what students minimise, the steps they take, and the command."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from conftest import Run, without_pictures
from helpers import AsNetwork, SmoothNetwork, draws, float64, normal
from underone.checkpoint import (
    DiffusionConfig,
    DiffusionModel,
    DistillationRecord,
    load_checkpoint,
    load_config,
    save_config,
    save_weights,
)
from underone.conformance.oracles import Mixture
from underone.data import load_dataset
from underone.data.images import to_model_range
from underone.diffusion import (
    DDIM,
    Bound,
    Clipped,
    Consistency,
    DPMSolver,
    Karras,
    LinearBeta,
    LogSNR,
    NetworkDenoiser,
    Node,
    Noise,
    Preconditioned,
    integrate,
    node_at,
    nodes,
)
from underone.errors import UserError
from underone.generation import DISTILLED, Draw, Setting, generate, usual_setting
from underone.study.bench import Bench
from underone.study.cell import Cell
from underone.training.begin import resume, start
from underone.training.distillation import AgreeingAlongTheFlow, FollowingTrajectories, Student
from underone.training.likeness import Resemblance
from underone.training.recipe import (
    ConsistencyTuning,
    DistillationRecipe,
    Trajectories,
    load_recipe,
)
from underone.training.run import Run as TrainingRun
from underone.training.teaching import distillation_recipe, objective_with_teacher
from underone.tuning.features import NetworkFeatures

DATA = Path(__file__).parent / "data" / "fashion-mnist"
SCHEDULE = LinearBeta()
DEVIATION = 0.7
SMALL_BATCH = 16
CPU = torch.device("cpu")
STUDENT = Student(SCHEDULE, Preconditioned(DEVIATION), conditional=True, autocast=None)


def no_noise() -> Tensor:
    raise AssertionError


def one_image(shape: tuple[int, ...] = (1, 1, 4, 4)) -> Mixture:
    """Data that are a single image: whatever x is, its x0 is that."""
    image = 0.8 * torch.tanh(normal(*shape).float())
    return Mixture(SCHEDULE, image, float64([1e-9]), float64([1.0]), torch.tensor([0]))


def as_network(oracle: Mixture) -> nn.Module:
    return AsNetwork(oracle, Preconditioned(DEVIATION))


def following(teacher: NetworkDenoiser, evaluations: int, inner: int) -> FollowingTrajectories:
    path = nodes(Karras(), SCHEDULE, evaluations * (inner + 1))
    return FollowingTrajectories(STUDENT, Clipped(teacher), path, inner + 1)


def smooth_denoiser(network: nn.Module) -> NetworkDenoiser:
    return NetworkDenoiser(network, SCHEDULE, Preconditioned(DEVIATION))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Trajectories.


@pytest.mark.parametrize("evaluations", [1, 2, 3])
def test_one_image_is_followed_without_loss(evaluations: int) -> None:
    oracle = one_image()
    path = nodes(Karras(), SCHEDULE, 4 * evaluations)
    objective = FollowingTrajectories(STUDENT, oracle, path, 4)
    images = oracle.means.expand(6, 1, 4, 4)
    loss = objective(as_network(oracle), images, torch.zeros(6, dtype=torch.int64), generator())
    assert loss.item() < 1e-4


def test_the_loss_is_the_distance_to_the_teachers_states() -> None:
    teacher, student = SmoothNetwork(0), SmoothNetwork(1)
    objective = following(smooth_denoiser(teacher), 2, 3)
    images, labels = torch.zeros(5, 1, 6, 6), torch.arange(5) % 3
    loss = objective(student, images, labels, generator(7))

    x = objective.path[0].sigma * torch.randn(images.shape, generator=generator(7))
    known = Bound(Clipped(smooth_denoiser(teacher)), labels)
    states = [e.x for e in integrate(known, DPMSolver(3), objective.path, x, no_noise)]
    coarse = [objective.path[0], objective.path[4], objective.path[8]]
    taken = Bound(Clipped(smooth_denoiser(student)), labels)
    steps = [e.x for e in integrate(taken, DDIM(), coarse, x, no_noise)]
    assert len(states) == 9
    expected = sum((steps[k] - states[4 * k]).abs().mean() for k in (1, 2))
    torch.testing.assert_close(loss, expected)


def test_no_gradient_passes_through_an_earlier_step() -> None:
    student = SmoothNetwork(1)
    objective = following(smooth_denoiser(SmoothNetwork(0)), 2, 1)
    images, labels = torch.zeros(4, 1, 6, 6), torch.arange(4) % 3
    objective(student, images, labels, generator()).backward()
    found = [parameter.grad for parameter in student.parameters()]

    x = objective.path[0].sigma * torch.randn(images.shape, generator=generator())
    denoiser = Bound(Clipped(smooth_denoiser(student)), labels)
    targets = objective._targets(x, labels)
    total = [torch.zeros_like(parameter) for parameter in student.parameters()]
    for k in range(2):
        here, there = objective.path[2 * k], objective.path[2 * k + 2]
        *_, last = integrate(denoiser, DDIM(), (here, there), x, no_noise)
        loss = (last.x - targets[k + 1].x).abs().mean()
        gradients = torch.autograd.grad(loss, list(student.parameters()))
        total = [a + b for a, b in zip(total, gradients, strict=True)]
        x = last.x.detach()
    for a, b in zip(found, total, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.slow
def test_a_student_ends_nearer_to_the_teachers_end_than_its_teacher_in_as_few_steps() -> None:
    """On noise it has not seen."""
    teacher = SmoothNetwork(0)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.mul_(2)
    student = SmoothNetwork(0)
    student.load_state_dict(teacher.state_dict())
    objective = following(smooth_denoiser(teacher), 2, 7)
    optimizer = torch.optim.Adam(student.parameters(), lr=3e-3)
    draw = generator(1)
    for _ in range(200):
        labels = torch.randint(3, (32,), generator=draw)
        optimizer.zero_grad()
        objective(student, torch.zeros(32, 1, 6, 6), labels, draw).backward()
        optimizer.step()

    labels = torch.arange(64) % 3
    x = objective.path[0].sigma * torch.randn(64, 1, 6, 6, generator=generator(2))
    end = objective._targets(x, labels)[-1].x

    @torch.no_grad()
    def distance(network: nn.Module) -> float:
        bound = Bound(Clipped(smooth_denoiser(network)), labels)
        *_, last = integrate(bound, DDIM(), objective.path[::8], x, no_noise)
        return (last.x - end).abs().mean().item()

    assert distance(student) < 0.5 * distance(teacher)


def test_with_likeness_the_ends_are_compared_with_the_batch(small_model: DiffusionModel) -> None:
    student = SmoothNetwork(1)
    plain = following(smooth_denoiser(SmoothNetwork(0)), 2, 1)
    resemblance = Resemblance(NetworkFeatures(small_model, None))
    both = replace(plain, likeness=3.0, resemblance=resemblance)
    images, labels = 0.5 * normal(6, 1, 28, 28).float(), torch.arange(6) % 3
    draw = generator(4)
    expected = plain(student, images, labels, draw)
    x = plain.path[0].sigma * torch.randn(images.shape, generator=generator(4))
    denoiser = Bound(Clipped(smooth_denoiser(student)), labels)
    *_, last = integrate(denoiser, DDIM(), plain.path[::2], x, no_noise)
    expected = expected + 3 * resemblance(last.x.clamp(-1, 1), images, labels, draw)
    torch.testing.assert_close(both(student, images, labels, generator(4)), expected)


# Consistency.


def tuning(closeness: float = 256.0) -> AgreeingAlongTheFlow:
    return AgreeingAlongTheFlow(STUDENT, DEVIATION, -1.1, 2.0, closeness)


def test_where_there_is_one_image_every_estimate_agrees_already() -> None:
    oracle = one_image()
    images = oracle.means.expand(64, 1, 4, 4)
    labels = torch.zeros(64, dtype=torch.int64)
    assert tuning(4)(as_network(oracle), images, labels, generator()).item() < 1e-3


def test_compared_with_the_image_itself_it_is_a_denoiser_in_another_norm() -> None:
    """So far apart that every lower level is 0."""
    network, images = SmoothNetwork(0), 0.5 * normal(32, 1, 6, 6).float()
    labels = torch.arange(32) % 3
    objective = tuning(closeness=1.0)
    loss = objective(network, images, labels, generator(3))
    draw = generator(3)
    levels = objective._levels(32, draw)
    noise = torch.randn(images.shape, generator=draw)
    node = objective._node(levels)
    x = node.alpha.float()[:, None, None, None] * images
    x = x + node.sigma.float()[:, None, None, None] * noise
    distance = (smooth_denoiser(network)(x, node, labels) - images).flatten(1).norm(dim=1)
    torch.testing.assert_close(loss, (distance / levels).mean().float())


def test_levels_are_log_normal_in_units_of_twice_the_data_and_within_the_schedule() -> None:
    objective = tuning()
    levels = objective._levels(4096, generator())
    noisiest = node_at(SCHEDULE, float64(1.0)).noise_ratio / (2 * DEVIATION)
    assert (levels > 0).all()
    assert levels.max() <= noisiest
    assert levels.median().log().item() == pytest.approx(-1.1, abs=2e-3)
    logs = levels.log().sort().values
    assert (logs[3447] - logs[648]).item() / 2 == pytest.approx(2.0, abs=0.01)  # +- 1 deviation
    inside = levels[(levels > 0.02) & (levels < 50)]
    node = objective._node(inside)
    torch.testing.assert_close(node.noise_ratio, inside * 2 * DEVIATION)


def test_the_lower_level_is_the_published_one() -> None:
    """t (1 - n(t) / q), n(t) = 1 + 8 sigmoid(-t): how far apart two levels are compared."""
    asked: list[Node] = []

    class Watched(SmoothNetwork):
        def forward(self, x: Tensor, condition: Tensor, label: Tensor | None) -> Tensor:
            asked.append(node_at(SCHEDULE, condition.double() / 1000))
            return super().forward(x, condition, label)

    images = torch.zeros(256, 1, 4, 4)
    tuning(16.0)(Watched(), images, torch.zeros(256, dtype=torch.int64), generator())
    low, high = (node.noise_ratio / (2 * DEVIATION) for node in asked)
    chosen = (low > 0.02) & (high < 50)
    high, low = high[chosen], low[chosen]
    expected = high * (1 - (1 + 8 / (1 + high.exp())) / 16)
    assert len(high) > 100
    torch.testing.assert_close(low, expected, rtol=1e-3, atol=1e-5)


def test_nearly_equal_estimates_are_compared_in_float32(teacher: Path, root: Path) -> None:
    """What bfloat16 would round away is most of their difference."""
    recipe = distillation_recipe(str(teacher), ConsistencyTuning(2), "fashion-mnist")
    objective = objective_with_teacher(recipe, torch.device("cpu"))
    images = load_dataset("fashion-mnist", "train", root).images[:8]
    batch = to_model_range(images), torch.arange(8) % 10
    network = loaded(teacher).network
    plain = objective(network, *batch, generator())
    with torch.autocast("cpu", dtype=torch.bfloat16):  # as the loop does
        rounded = objective(network, *batch, generator())
    assert torch.equal(plain, rounded)


def test_the_second_estimate_is_the_goal_not_the_student() -> None:
    """No gradient passes through it, and both drop the same features."""

    class Dropping(SmoothNetwork):
        def forward(self, x: Tensor, condition: Tensor, label: Tensor | None) -> Tensor:
            masks.append(torch.rand(5))
            differentiable.append(torch.is_grad_enabled())
            return super().forward(x, condition, label)

    masks: list[Tensor] = []
    differentiable: list[bool] = []
    tuning()(Dropping(), torch.zeros(4, 1, 4, 4), torch.zeros(4, dtype=torch.int64), generator())
    assert torch.equal(*masks)
    assert differentiable == [False, True]


def test_consistency_sampling_noises_every_estimate_again() -> None:
    """Of one image x_s is alpha_s y + sigma_s z with z fresh: independent from step to step."""
    oracle = one_image((1, 1, 2, 2))
    path = nodes(LogSNR(last=100), SCHEDULE, 3)
    bound = Bound(oracle, None)
    x = path[0].sigma * normal(20_000, 1, 2, 2)
    drawn = draws(20_000, 1, 2, 2, seed=1)
    states = [e.x for e in integrate(bound, Consistency(), path, x, drawn)]
    noises = []
    for node, state in zip(path[:-1], states[:-1], strict=True):
        noises.append((state - node.alpha * oracle.means[0].double()) / node.sigma)
    flat = torch.stack([noise.flatten() for noise in noises[1:]])
    assert flat.mean(1).abs().max() < 0.02
    torch.testing.assert_close(torch.cov(flat), torch.eye(2).double(), atol=0.02, rtol=0)
    torch.testing.assert_close(states[-1][0], oracle.means[0].double(), atol=1e-6, rtol=0)


# Students in their folders.


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real images under the names of training images."""
    folder = tmp_path_factory.mktemp("root")
    for path in DATA.iterdir():
        if path.name.startswith("t10k"):
            shutil.copy(path, folder / path.name.replace("t10k", "train"))
            shutil.copy(path, folder / path.name)
    return folder


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command's students learn from fewer images an update: how well is not asked here."""

    def smaller(*given: Any) -> DistillationRecipe:
        return distillation_recipe(*given).model_copy(update={"batch_size": SMALL_BATCH})

    # By its path: what the package calls so is the command.
    monkeypatch.setattr(sys.modules["underone.cli.distill"], "distillation_recipe", smaller)


@pytest.fixture(scope="module")
def trained(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher trained for a few updates, in the way consistency needs."""
    changes = (
        "prediction.name=preconditioned",
        f"prediction.data_deviation={DEVIATION}",
        f"batch_size={SMALL_BATCH}",
    )
    images = load_dataset("fashion-mnist", "train", root)
    folder = tmp_path_factory.mktemp("trained") / "teacher"
    run = start(folder, "tiny", load_recipe("tiny", changes), images, CPU, steps=4)
    with without_pictures():
        advance(run, 4)
        run.finish(None)
    return folder


@pytest.fixture
def teacher(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "teacher"))


def advance(run: TrainingRun, until: int) -> None:
    for _ in run.advance(lambda: run.state.step >= until):
        pass


def distilled(run: Run, teacher: Path, root: Path, out: Path, *options: object) -> str:
    status, _, told = run("distill", teacher, "--root", root, "--out", out, *options)
    assert status == 0, told
    return told


def record_of(folder: Path) -> DistillationRecord:
    config = load_config(folder)
    assert isinstance(config, DiffusionConfig)
    assert config.distillation is not None
    return config.distillation


def loaded(folder: Path) -> DiffusionModel:
    model = load_checkpoint(folder)
    assert isinstance(model, DiffusionModel)
    return model


@pytest.mark.slow
def test_a_student_is_sampled_by_its_own_steps(
    run: Run, teacher: Path, root: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "student"
    told = distilled(run, teacher, root, folder, "--nfe", 2, "--steps", 2)
    assert f"underone sample {folder}" in told
    record = record_of(folder)
    fine = Karras()(SCHEDULE, 8) * 1000
    assert record.paths == ((fine[0].item(), fine[4].item()),)
    assert (record.sampler, record.method) == ("ddim", "trajectories")
    assert record.teacher_sha256 == loaded(teacher).sha256
    out = tmp_path / "samples.npz"
    status, printed, _ = run("sample", folder, "--count", 4, "--out", out, "--json")
    assert status == 0
    said = json.loads(printed)
    assert (said["sampler"], said["steps"], said["grid"]) == (DISTILLED, 2, "learned")
    assert said["evaluations"] == {"model": 2.0}
    steps = ":".join(str(k) for k in record.paths[0])
    by_name = generate(loaded(folder), Setting("ddim", 2, f"explicit,steps={steps}"), Draw(4))
    again = generate(loaded(folder), usual_setting(loaded(folder)), Draw(4))
    assert torch.equal(by_name.images, again.images)
    assert (folder / "preview.png").exists()


def test_a_consistency_model_takes_one_step_or_two(
    run: Run, teacher: Path, root: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "student"
    options = ("--nfe", 2, "--steps", 2, "--method", "consistency")
    distilled(run, teacher, root, folder, *options)
    (first, second), alone = record_of(folder).paths
    assert (first, alone) == (1000, (1000,))
    node = node_at(SCHEDULE, float64(second / 1000))
    assert node.noise_ratio.item() == pytest.approx(0.821 * 2 * DEVIATION, rel=1e-6)
    model = loaded(folder)
    assert usual_setting(model) == Setting(DISTILLED, 2)
    for steps in (1, 2):
        samples = generate(model, Setting(DISTILLED, steps), Draw(3))
        assert samples.protocol["evaluations"] == {"model": float(steps)}
    with pytest.raises(UserError, match="distilled to 2 or 1 steps, not 3"):
        generate(model, Setting(DISTILLED, 3), Draw(3))


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(Trajectories(2), marks=pytest.mark.slow),
        ConsistencyTuning(2),
        pytest.param(Trajectories(2, likeness=1), marks=pytest.mark.slow),
    ],
    ids=["trajectories", "consistency", "likeness"],
)
def test_a_run_that_was_stopped_goes_on_bitwise(
    teacher: Path, root: Path, tmp_path: Path, method: Trajectories | ConsistencyTuning
) -> None:
    recipe = distillation_recipe(str(teacher), method, "fashion-mnist")
    recipe = recipe.model_copy(update={"batch_size": SMALL_BATCH})
    images = load_dataset("fashion-mnist", "train", root)
    whole = start(tmp_path / "whole", "student", recipe, images, CPU, steps=4)
    first = start(tmp_path / "stopped", "student", recipe, images, CPU, steps=4)
    with without_pictures():
        advance(whole, 4)
        whole.save()
        advance(first, 2)
        first.save()
        second = resume(first.folder, recipe, images, CPU)
        assert second.state.step == 2
        advance(second, 4)
        second.save()
    for name in ("training/state", "model", "raw"):
        one, other = (load_file(run.folder / f"{name}.safetensors") for run in (whole, second))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), name


@pytest.mark.slow
def test_guidance_is_in_the_student_and_asked_for_no_more(
    run: Run, teacher: Path, root: Path, tmp_path: Path
) -> None:
    strangers = loaded(teacher).network.state_dict()
    for name, tensor in strangers.items():  # to whom classes mean something
        strangers[name] = 0.1 * torch.randn(tensor.shape, generator=generator())
    save_weights(teacher, strangers)
    folder = tmp_path / "guided"
    distilled(run, teacher, root, folder, "--nfe", 1, "--steps", 2, "--guidance", 3)
    plain = tmp_path / "plain"
    distilled(run, teacher, root, plain, "--nfe", 1, "--steps", 2)
    assert record_of(folder).guidance == 3
    assert loaded(folder).sha256 != loaded(plain).sha256
    status, _, told = run("sample", folder, "--guidance", 1, "--out", tmp_path / "x.npz")
    assert (status, "was distilled" in told) == (2, True)
    status, _, told = run("export", folder, "--to", "diffusers", "--out", tmp_path / "there")
    assert (status, "export its teacher" in told) == (2, True)


@pytest.mark.slow
def test_another_student_is_another_cell(
    run: Run, teacher: Path, root: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "student"
    distilled(run, teacher, root, folder, "--nfe", 1, "--steps", 1)
    before = loaded(folder)
    config = before.config
    assert isinstance(config, DiffusionConfig)
    assert config.distillation is not None
    other = config.distillation.model_copy(update={"paths": ((900.0,),)})
    after = replace(before, config=config.model_copy(update={"distillation": other}))
    cell = Cell("student", Setting(DISTILLED, 1), Draw(4))
    one, two = (cell.identity(Bench({"student": model}, ())) for model in (before, after))
    assert one != two


def refused(run: Run, *arguments: object) -> str:
    status, _, told = run(*arguments)
    assert status == 2, told
    assert told.count("\n") == 1
    return told


def test_what_cannot_be_distilled_is_refused(
    run: Run,
    teacher: Path,
    root: Path,
    tmp_path: Path,
    model_folder: Callable[..., Path],
) -> None:
    out, few = tmp_path / "out", ("--nfe", 2, "--steps", 1)

    def told(model: object, *options: object) -> str:
        return refused(run, "distill", model, "--root", root, "--out", out, *few, *options)

    by_noise = model_folder()
    assert "preconditioned prediction" in told(by_noise, "--method", "consistency")
    assert "1 or 2 evaluations" in told(teacher, "--method", "consistency", "--nfe", 3)
    assert "--guidance, --form, --grid" in told(teacher, "--method", "consistency", "--guidance", 1)
    assert "--likeness" in told(teacher, "--method", "consistency", "--likeness", 1)
    assert "likeness must be finite and at least 0" in told(teacher, "--likeness", -1)
    assert "classifier" in told("fashion-mnist-classifier")
    assert "other data" in told(by_noise)
    assert "unknown grid" in told(teacher, "--grid", "nowhere")
    assert "choose at most --nfe 250" in told(teacher, "--nfe", 400)
    assert not out.exists()
    student = tmp_path / "student"
    distilled(run, teacher, root, student, *few)
    assert "is distilled itself" in told(student)
    assert "already holds a model" in refused(
        run, "distill", teacher, "--root", root, "--out", student, *few
    )


def test_a_teacher_that_has_changed_is_refused(
    run: Run, teacher: Path, root: Path, tmp_path: Path
) -> None:
    arguments = ("distill", teacher, "--root", root, "--out", tmp_path / "student", "--nfe", 1)
    assert run(*arguments, "--steps", 1)[0] == 0
    tensors = loaded(teacher).network.state_dict()
    save_weights(teacher, {name: 1.01 * tensor for name, tensor in tensors.items()})
    assert "another recipe (teacher_sha256" in refused(run, *arguments, "--resume")


def test_only_students_are_sampled_as_students(small_model: DiffusionModel) -> None:
    with pytest.raises(UserError, match="underone distill"):
        generate(small_model, Setting(DISTILLED, 2), Draw(1))
    with pytest.raises(UserError, match="leave out --grid karras"):
        Setting(DISTILLED, 2, "karras")


def test_a_students_paths_lead_down(teacher: Path, tmp_path: Path) -> None:
    config = load_config(teacher)
    record = {
        "teacher": "x",
        "teacher_sha256": "0",
        "method": "trajectories",
        "sampler": "ddim",
        "paths": [[10.0, 20.0]],
    }
    folder = tmp_path / "broken"
    save_config(folder, config)
    document = json.loads((folder / "config.json").read_text()) | {"distillation": record}
    (folder / "config.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match="from noisy to clean"):
        load_config(folder)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Trajectories(0), "at least 1 evaluation"),
        (lambda: Trajectories(1, inner=-1), "0 or more within"),
        (lambda: ConsistencyTuning(3), "1 or 2 evaluations"),
        (lambda: ConsistencyTuning(1, closeness=1.0), "closeness must be above 1"),
    ],
)
def test_methods_are_checked(make: Callable[[], object], told: str) -> None:
    with pytest.raises(UserError, match=told):
        make()


def test_noise_prediction_is_distilled_too() -> None:
    """Along trajectories any prediction will do."""
    student = Student(SCHEDULE, Noise(), conditional=False, autocast=None)
    network = SmoothNetwork(0)
    path = nodes(Karras(), SCHEDULE, 1)
    teacher = Clipped(NetworkDenoiser(network, SCHEDULE, Noise()))
    objective = FollowingTrajectories(student, teacher, path, 1)
    images, labels = torch.zeros(4, 1, 6, 6), torch.zeros(4, dtype=torch.int64)
    loss = objective(network, images, labels, generator())
    # One step of the teacher's solver is DDIM's.
    assert loss.item() == 0
