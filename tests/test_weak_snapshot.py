"""The weak model that training keeps early on, for autoguidance: always the same average."""

import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from small_runs import advance
from underone.checkpoint import DiffusionConfig, DiffusionModel, load_checkpoint, load_config
from underone.cli import main
from underone.data import Dataset, load_dataset
from underone.diffusion import Autoguidance, node_at
from underone.errors import UserError
from underone.training.begin import resume, start
from underone.training.recipe import Recipe, load_recipe
from underone.training.run import Run
from underone.zoo import ship

SLICE = Path(__file__).parent / "data" / "fashion-mnist"
CPU = torch.device("cpu")
HORIZON, WEAK = 24, 6
SMALLEST = ("batch_size=4", "network.patch=7", "network.multipliers=[1]", "network.attention=[]")


pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture(scope="module")
def images() -> Dataset:
    return load_dataset("fashion-mnist", "test", SLICE)


def recipe(*changes: str) -> Recipe:
    return load_recipe("tiny", [*SMALLEST, "weak_at=0.25", *changes])


def begin(folder: Path, images: Dataset, *changes: str, steps: int = HORIZON) -> Run:
    return start(folder, "tiny", recipe(*changes), images, CPU, steps=steps)


def go_on(folder: Path, images: Dataset) -> Run:
    return resume(folder, recipe(), images, CPU)


def weak(folder: Path) -> Path:
    return folder / "weak.safetensors"


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, images: Dataset) -> Path:
    """The folder of a run that nothing ever happened to."""
    folder = tmp_path_factory.mktemp("runs") / "straight"
    run = begin(folder, images)
    advance(run, HORIZON)
    run.save()
    return folder


def loaded(folder: Path, weights: str = "model") -> DiffusionModel:
    model = load_checkpoint(folder, weights)  # type: ignore[arg-type]
    assert isinstance(model, DiffusionModel)
    return model


def test_it_is_the_average_at_its_step(tmp_path: Path, images: Dataset, straight: Path) -> None:
    run = begin(tmp_path / "run", images)
    advance(run, WEAK - 1)
    assert not weak(tmp_path / "run").exists()
    advance(run, WEAK)
    assert run.state.average is not None
    average = run.state.average.state_dict()
    kept = load_file(weak(straight))
    assert kept.keys() == average.keys()
    assert all(torch.equal(kept[name], average[name]) for name in kept)
    final = load_file(straight / "model.safetensors")
    assert not torch.equal(kept["stem.weight"], final["stem.weight"])


@pytest.mark.parametrize("stops", [(WEAK - 2,), (WEAK,), (WEAK + 3,), (1, WEAK - 1, WEAK + 1)])
def test_a_run_stopped_anywhere_keeps_the_same(
    tmp_path: Path, images: Dataset, straight: Path, stops: tuple[int, ...]
) -> None:
    folder = tmp_path / "run"
    run = begin(folder, images)
    for stop in stops:
        advance(run, stop)
        run.save()
        run = go_on(folder, images)
        assert weak(folder).exists() == (stop >= WEAK)
        assert load_config(folder).training.weak_steps == (WEAK if stop >= WEAK else None)
    advance(run, HORIZON)
    run.save()
    for name in ("weak", "model"):
        file = f"{name}.safetensors"
        assert (folder / file).read_bytes() == (straight / file).read_bytes()


def test_a_kill_after_it_writes_it_again(tmp_path: Path, images: Dataset, straight: Path) -> None:
    folder = tmp_path / "run"
    run = begin(folder, images)
    advance(run, WEAK - 2)
    run.save()
    advance(run, WEAK + 2)  # and lost
    assert weak(folder).read_bytes() == weak(straight).read_bytes()
    weak(folder).write_bytes(b"not this")
    advance(go_on(folder, images), WEAK + 1)
    assert weak(folder).read_bytes() == weak(straight).read_bytes()


def test_it_is_written_once(tmp_path: Path, images: Dataset) -> None:
    """So a run that had passed that step before snapshots were kept has none, and names none."""
    folder = tmp_path / "run"
    run = begin(folder, images)
    advance(run, WEAK + 1)
    weak(folder).unlink()
    run.save()
    run = go_on(folder, images)
    advance(run, HORIZON)
    run.save()
    assert not weak(folder).exists()
    assert load_config(folder).training.weak_steps is None
    assert "weak" not in (folder / "README.md").read_text()
    with pytest.raises(UserError, match=r"run holds no weak\.safetensors: it was trained before"):
        load_checkpoint(folder, "weak")


@pytest.mark.parametrize(
    ("steps", "share", "expected"),
    [(24, "0.25", 6), (5000, "0.0625", 312), (3, "0.0625", 1), (1, "0.5", 1), (10, "0", None)],
)
def test_its_step_is_the_nearest_and_at_least_the_first(
    tmp_path: Path, images: Dataset, steps: int, share: str, expected: int | None
) -> None:
    run = begin(tmp_path / "run", images, f"weak_at={share}", steps=steps)
    assert run.weak_step == expected


def test_none_is_kept_at_share_0_or_of_a_classifier(tmp_path: Path, images: Dataset) -> None:
    run = begin(tmp_path / "none", images, "weak_at=0", steps=3)
    advance(run, 3)
    run.save()
    small = load_recipe("fashion-mnist-classifier", ["network.widths=[8]", "batch_size=4"])
    classifier = start(tmp_path / "classifier", "c", small, images, CPU, steps=2)
    advance(classifier, 2)
    classifier.save()
    assert classifier.weak_step is None
    assert not list(tmp_path.rglob("weak*"))
    for share in ("-0.1", "1"):
        with pytest.raises(UserError, match="weak_at"):
            recipe(f"weak_at={share}")


def test_a_plan_from_before_goes_on_with_the_default(tmp_path: Path, images: Dataset) -> None:
    given = load_recipe("tiny", SMALLEST)
    run = start(tmp_path / "run", "tiny", given, images, CPU, steps=32)
    advance(run, 1)
    run.save()
    path = tmp_path / "run" / "training" / "plan.json"
    plan = json.loads(path.read_text())
    del plan["recipe"]["weak_at"]
    path.write_text(json.dumps(plan))
    run = resume(tmp_path / "run", given, images, CPU)
    advance(run, 2)
    assert run.weak_step == 2
    assert weak(tmp_path / "run").exists()


def test_it_is_loaded_as_a_model_of_its_own(straight: Path) -> None:
    main_model, weaker = loaded(straight), loaded(straight, "weak")
    assert weaker.weights == "weak"
    assert weaker.sha256 != main_model.sha256
    assert weaker.config == main_model.config
    assert isinstance(weaker.config, DiffusionConfig)
    assert (weaker.config.training.steps, weaker.config.training.weak_steps) == (HORIZON, WEAK)
    assert f"| weak.safetensors | the average after {WEAK} steps |" in (
        straight / "README.md"
    ).read_text(encoding="utf-8")
    node = node_at(main_model.config.schedule, torch.tensor(0.5, dtype=torch.float64))
    x, label = torch.randn(2, 1, 28, 28), torch.tensor([1, 2])
    strong, poor = (model.denoiser()(x, node, label) for model in (main_model, weaker))
    assert not torch.allclose(strong, poor)
    guided = Autoguidance(main_model.denoiser(), weaker.denoiser(), 1.0)(x, node, label)
    torch.testing.assert_close(guided, 2 * strong - poor)


def test_it_is_shipped_rounded(
    tmp_path: Path, straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ship, "zoo_folder", lambda: tmp_path)
    monkeypatch.setattr(ship, "CARD_SETTINGS", ())
    monkeypatch.chdir(tmp_path)
    ship.ship(straight, samples=5000)
    shipped, exact = load_file(weak(tmp_path / "straight")), load_file(weak(straight))
    assert all(torch.equal(shipped[name], exact[name].half()) for name in exact)
    assert loaded(tmp_path / "straight", "weak").config == loaded(straight).config
    assert f"the average after {WEAK} steps" in (tmp_path / "straight/README.md").read_text()
    weights = {path.name for path in (tmp_path / "straight").glob("*.safetensors")}
    assert weights == {"model.safetensors", "weak.safetensors"}


def test_the_command_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: Dataset
) -> None:
    for label in range(10):
        (tmp_path / "data" / f"{label}").mkdir(parents=True)
        image = images.images[images.labels == label][0, 0]
        Image.fromarray(image.numpy()).save(tmp_path / "data" / f"{label}" / "0.png")
    changes = (*SMALLEST, f'data="{tmp_path / "data"}"')
    options = [part for change in changes for part in ("--set", change)]
    arguments = ["underone", "train", "tiny", *options, "--steps", "3", "--out"]
    monkeypatch.setattr(sys, "argv", [*arguments, str(tmp_path / "run")])
    main()
    assert load_config(tmp_path / "run").training.weak_steps == 1
    loaded(tmp_path / "run", "weak")
