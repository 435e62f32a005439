"""Recipes: what decides a training run, read strictly and changed from the command line."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from underone.diffusion import Cosine, Velocity
from underone.errors import UserError
from underone.training.recipe import (
    ClassifierRecipe,
    DiffusionRecipe,
    load_recipe,
    parse_recipe,
    shipped_recipes,
)
from underone.training.stop import stop_on_signals


def refusal(name: str, *changes: str) -> str:
    with pytest.raises(UserError) as caught:
        load_recipe(name, changes)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A user's own recipe."""
    path = tmp_path / "own.toml"
    path.write_text(
        'kind = "diffusion"\ndata = "fashion-mnist"\nsteps = 5\n'
        "[network]\nimage_size = 28\nchannels = 1\nclasses = 10\nattention = [14]\n"
        '[schedule]\nname = "cosine"\n[prediction]\nname = "velocity"\n'
    )
    return path


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_recipe_survives_being_written_down_in_a_plan(name: str) -> None:
    recipe = load_recipe(name)
    document = json.loads(json.dumps(recipe.model_dump(mode="json")))
    assert parse_recipe(document, "plan.json") == recipe


def test_a_users_own_file_is_read(file: Path) -> None:
    recipe = load_recipe(str(file))
    assert isinstance(recipe, DiffusionRecipe)
    assert (recipe.schedule, recipe.prediction) == (Cosine(), Velocity())
    assert (recipe.steps, recipe.label_dropout, recipe.moving_average) == (5, 0.1, 0.1)


def test_changes_reach_their_place_and_no_other() -> None:
    plain = load_recipe("tiny")
    changed = load_recipe(
        "tiny",
        [
            "steps=7",
            "network.multipliers=[1, 1]",
            "schedule.name=cosine",
            'prediction={name="velocity"}',
            " augmentation.flip = true",
            "optimisation.betas=[0.8, 0.9]",
            "data=fashion-mnist",
        ],
    )
    assert isinstance(plain, DiffusionRecipe)
    assert isinstance(changed, DiffusionRecipe)
    assert changed.steps == 7
    assert changed.network.multipliers == (1, 1)
    assert (changed.schedule, changed.prediction) == (Cosine(), Velocity())
    assert changed.augmentation.flip
    assert changed.optimisation.betas == (0.8, 0.9)
    assert changed.data == plain.data
    assert changed.optimisation.learning_rate == plain.optimisation.learning_rate
    assert load_recipe("tiny") == plain


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("steps", "KEY=VALUE"),
        ("=3", "KEY=VALUE"),
        ("network.=3", "KEY=VALUE"),
        ("network.widht=8", "'widht': did you mean 'width'?"),
        ("netwrk.width=8", "'netwrk': did you mean 'network'?"),
        ("steps.more=1", "steps is a value, not a section"),
        ("network=3", "network"),
        ("steps=-1", "steps"),
        ("steps=many", "'many'"),
        ("steps=", "steps"),
        ("batch_size=0", "batch_size"),
        ("seed=-1", "seed"),
        ("log_every=0", "log_every"),
        ("checkpoint_minutes=0", "checkpoint_minutes"),
        ("moving_average=0.3", "moving_average"),
        ("moving_average=0", "moving_average"),
        ("label_dropout=1", "label_dropout"),
        ("optimisation.learning_rate=0", "learning_rate"),
        ("optimisation.learning_rate=nan", "learning_rate"),
        ("optimisation.learning_rate=inf", "learning_rate"),
        ("optimisation.betas=[0.9]", "betas"),
        ("optimisation.betas=[0.9,1.0]", "betas"),
        ("augmentation.shift=-1", "shift"),
        ("network.heads=0", "heads"),
        ("network.attention=[5]", "never reached"),
        ("schedule.name=cosin", "'linear-beta', 'scaled-linear-beta', 'cosine'"),
        ("schedule.beta_min=0.5", "beta_min <= beta_max"),
        ("schedule={name='linear-beta',beta_min=0.5,beta_max=0.9}", "predict velocity or data"),
        ("prediction.name=nois", "'noise', 'data', 'velocity'"),
        (
            "kind=diffuse",
            "kind must be one of diffusion, distillation, classifier, encoder, "
            "noisy-classifier, vae, got 'diffuse'",
        ),
        ("kind=[1]", "kind must be one of"),
        ("kind=classifier", "recipe tiny"),
        ("format=1", "'format'"),
    ],
)
def test_an_impossible_change_is_refused_in_one_line(change: str, expected: str) -> None:
    assert expected in refusal("tiny", change)


def test_an_unknown_recipe_names_the_nearest() -> None:
    assert refusal("fashion-mnst") == (
        "unknown recipe 'fashion-mnst': did you mean 'fashion-mnist'?"
    )
    assert all(name in refusal("zzz") for name in shipped_recipes())


def test_a_file_that_is_no_recipe_is_named(tmp_path: Path, file: Path) -> None:
    assert "absent.toml" in refusal(str(tmp_path / "absent.toml"))
    (tmp_path / "folder.toml").mkdir()
    assert "folder.toml" in refusal(str(tmp_path / "folder.toml"))
    whole = file.read_bytes()
    for content, expected in (
        (b"", "kind must be one of"),
        (whole[:30], "not valid TOML"),
        (b"\xff\xfe" + whole, "not valid TOML"),
        (whole.replace(b"steps = 5", b""), "steps: Field required"),
        (whole.replace(b"steps = 5", b"stesp = 5\nsteps = 5"), "did you mean 'steps'"),
        (whole.replace(b"diffusion", b"gan"), "got 'gan'"),
    ):
        file.write_bytes(content)
        text = refusal(str(file))
        assert expected in text
        assert "own.toml" in text


def test_each_kind_has_its_own_settings() -> None:
    recipe = load_recipe("fashion-mnist-classifier")
    assert isinstance(recipe, ClassifierRecipe)
    assert "label_dropout" in refusal("fashion-mnist-classifier", "label_dropout=0.1")
    assert "label_smoothing" in refusal("tiny", "label_smoothing=0.1")


@pytest.fixture
def interrupted_by_sigint() -> Iterator[None]:
    """As in a terminal: what a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupted_by_sigint")
def test_the_first_signal_asks_and_the_second_ends() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stop_on_signals() as request:
        assert vars(request) == {"signal": None}
        signal.raise_signal(signal.SIGINT)
        assert request.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    with stop_on_signals() as request:
        signal.raise_signal(signal.SIGTERM)
        assert request.signal == signal.SIGTERM
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
