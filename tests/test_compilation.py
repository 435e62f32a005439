"""Networks compiled where that repays itself: the same images, decided from measured times."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from conftest import ModelFolder
from helpers import SmoothNetwork
from studies import small_study
from underone.checkpoint import DiffusionModel
from underone.files import read_json, write_json
from underone.generation import Draw, Setting, compiled, generate, repays_compiling
from underone.generation.compilation import Speed
from underone.networks.fixed_batches import InFixedBatches
from underone.study.bench import open_bench
from underone.study.engine import WorkerSetup
from underone.study.run import open_run

SETTING = Setting("ddim", 2)


def silent(told: str) -> None:
    raise AssertionError(told)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("UNDERONE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "compiled.json"


@pytest.mark.slow
def test_batches_of_any_size_are_as_the_plain_network_makes_them() -> None:
    network = SmoothNetwork()
    fast = InFixedBatches(network, 4)
    x = torch.randn(11, 1, 6, 6)
    condition, labels = torch.rand(11) * 1000, torch.arange(11) % 3
    with torch.no_grad():
        for count in (1, 4, 11):
            for told in (labels[:count], None):
                found = fast(x[:count], condition[:count], told)
                plain = network(x[:count], condition[:count], told)
                torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-5)
    fast(x, condition, labels).sum().backward()
    assert network.stem.weight.grad is not None
    assert [name for name, _ in fast.named_parameters()] == [
        f"network.{name}" for name, _ in network.named_parameters()
    ]


@pytest.mark.parametrize(
    ("compiled_seconds", "compiling", "batches", "repays"),
    [
        (0.5, 60.0, 121, True),
        (0.5, 60.0, 119, False),
        (1.1, 0.0, 1000, False),
        (None, 0.0, 1000, False),
    ],
)
def test_it_repays_itself_when_what_is_saved_is_more_than_it_takes(
    compiled_seconds: float | None, compiling: float, batches: float, repays: bool
) -> None:
    assert (
        Speed(plain=1.0, compiled=compiled_seconds, compiling=compiling).repays(batches) is repays
    )


def test_little_work_is_not_worth_finding_out_about(
    small_model: DiffusionModel, cache: Path
) -> None:
    assert not repays_compiling(small_model, 1000, silent)
    assert not cache.exists()


@pytest.fixture
def known(
    small_model: DiffusionModel, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[float, float], None]:
    """Measures once for real, and then says that a compiled batch takes so many seconds."""

    def say(seconds: float, compiling: float) -> None:
        for limit in ("_LEAST_SECONDS", "_LEAST_BATCHES"):
            monkeypatch.setattr(f"underone.generation.compilation.{limit}", 0)
        told: list[str] = []
        repays_compiling(small_model, 1, told.append)
        assert "to see how much faster" in told[0]
        document = read_json(cache)
        assert isinstance(document, dict)
        ((key, speed),) = document["speeds"].items()
        assert speed["plain"] > 0
        assert speed["compiled"] > 0
        assert speed["compiling"] > 0
        document["speeds"][key] = {"plain": 1.0, "compiled": seconds, "compiling": compiling}
        write_json(cache, document)

    return say


@pytest.mark.endurance
def test_what_was_measured_decides_from_then_on(
    small_model: DiffusionModel, known: Callable[[float, float], None]
) -> None:
    known(0.5, 60.0)
    assert repays_compiling(small_model, 128 * 121, silent)
    assert not repays_compiling(small_model, 128 * 119, silent)


def test_a_broken_file_of_times_is_as_good_as_none(
    small_model: DiffusionModel, cache: Path
) -> None:
    cache.parent.mkdir()
    for text in ("[", "[1]", '{"speeds": {"x": {"plain": "fast"}}}'):
        cache.write_text(text)
        assert not repays_compiling(small_model, 1000, silent)


@pytest.mark.endurance
def test_a_long_study_is_drawn_by_compiled_networks_wherever_its_cells_run(
    model_folder: ModelFolder, known: Callable[[float, float], None], tmp_path: Path
) -> None:
    known(0.0, 1.0)
    study = small_study(
        model_folder("compiled"),
        samples=130,
        slices=[
            {"name": "all", "sampler": "ddim", "steps": 2, "guidance": [0, 1]},
        ],
    )
    bench = open_bench(study)
    run, _ = open_run(tmp_path / "study", study, bench)
    (name,) = bench.models
    assert run.plan.compiled == (name,)
    again, continued = open_run(tmp_path / "study", study, bench)
    assert (continued, again.plan.compiled) == (True, (name,))
    setup = WorkerSetup.of(study, bench, 1, run.plan.compiled)
    fast = setup.opened("a worker").models[name]
    assert isinstance(fast, DiffusionModel)
    plain = bench.models[name]
    assert isinstance(plain, DiffusionModel)
    for setting in (SETTING, Setting("ddim", 2, guidance=1.0)):
        mine = generate(fast, setting, Draw(130))
        theirs = generate(plain, setting, Draw(130))
        assert (mine.protocol["compiled"], theirs.protocol["compiled"]) == (True, False)
        exact = generate(plain, setting, Draw(130), precision="float32").images.int()
        rounded = (theirs.images.int() - exact).abs().float().mean().item()
        # In bfloat16 both round, each in its own way; in float32 neither does but for a grey level.
        off = (mine.images.int() - exact).abs().float().mean().item()
        assert off <= max(0.01, 1.2 * rounded)
        assert mine.protocol["evaluations"] == theirs.protocol["evaluations"]


@pytest.mark.slow
def test_nothing_else_about_a_model_changes(small_model: DiffusionModel) -> None:
    fast = compiled(small_model)
    assert (fast.sha256, fast.name) == (small_model.sha256, small_model.name)
    shown = (torch.zeros(2, *small_model.shape), torch.full((2,), 9.0), torch.tensor([0, 1]))
    maps = [each.network.feature_maps(*shown) for each in (fast, small_model)]  # type: ignore[operator]
    for mine, theirs in zip(*maps, strict=True):
        assert torch.equal(mine, theirs)
