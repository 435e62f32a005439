"""Checks of the exercises: each says "Right", or "Not yet" with a hint. No solutions are in here.

An answer is compared with what underone's own functions give, and with what is known in closed
form. One that is not right yet stops the notebook with a short message in place of a traceback.
"""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from underone.data import SampleSet
from underone.diffusion import (
    DDIM,
    DDPM,
    Bound,
    ClassifierFree,
    LinearBeta,
    Node,
    Noise,
    Sampler,
    Step,
    Trailing,
    integrate,
    node_at,
    nodes,
    noised,
)
from underone.generation import Setting
from underone.metrics import Measurement, measure
from underone.training.levels import EVERY_STEP
from underone.training.objective import Denoising
from underone.training.objective import noised_at_random_levels as drawn
from underone.zoo import load_yardstick

SCHEDULE = LinearBeta()
T = SCHEDULE.steps
Answer = Callable[..., Any]


class NotYetError(Exception):
    """An answer that is not right yet: what was seen, and a hint."""

    def _render_traceback_(self) -> list[str]:
        """What Jupyter shows of the error: the message alone."""
        return str(self).splitlines()


def _wrong(seen: str, hint: str) -> NotYetError:
    return NotYetError(f"Not yet: {seen}\nHint: {hint}")


def exercise(check: Callable[..., str]) -> Callable[..., None]:
    """A check that prints "Right" or raises `NotYetError`, whatever the answer does."""

    @functools.wraps(check)
    def checked(answer: Answer, *rest: Any) -> None:
        try:
            said = check(_returning(answer), *rest)
        except NotYetError as found:
            raise found from None
        except Exception as error:
            raise _wrong(
                f"{check.__name__} stopped with {type(error).__name__}: {error}",
                "is a blank above still open? If not, call it yourself with small tensors, and "
                "print what it does line by line.",
            ) from None
        print(f"Right: {said}")

    return checked


def _returning(answer: Answer) -> Answer:
    """The answer, checked to return something."""

    @functools.wraps(answer)
    def returning(*arguments: Any, **named: Any) -> Any:
        result = answer(*arguments, **named)
        if result is None or result is Ellipsis:
            raise _wrong(
                f"{answer.__name__} returns nothing.",
                "replace the three dots by your code; its last line begins with `return`.",
            )
        return result

    return returning


def _expect(found: Any, wanted: Tensor, hint: str, what: str = "the result") -> None:
    if not isinstance(found, Tensor):
        raise _wrong(f"{what} is a {type(found).__name__}, not a tensor.", hint)
    if found.shape != wanted.shape:
        raise _wrong(f"{what} has shape {(*found.shape,)}, expected {(*wanted.shape,)}.", hint)
    if not found.isfinite().all():
        raise _wrong(f"{what} holds NaN or infinite values.", hint)
    difference = (found - wanted).abs().max().item()
    if difference > 1e-4:
        raise _wrong(f"{what} is off by up to {difference:.2g}.", hint)


def _images(seed: int, count: int = 6) -> Tensor:
    return torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))


def _node(k: int | Tensor) -> Node:
    return node_at(SCHEDULE, torch.as_tensor(k) / T)


@exercise
def alpha_bars(answer: Answer) -> str:
    """alpha-bar_0, ..., alpha-bar_T from beta_1, ..., beta_T."""
    beta = SCHEDULE.betas()
    found = answer(beta)
    if isinstance(found, Tensor) and found.shape == (T,):
        raise _wrong(
            f"the result has {T} entries, expected {T + 1}: one for each k = 0, ..., T.",
            "at k = 0 nothing has been added yet. What is a product of no factors?",
        )
    hint = "how much of the signal's variance is left after one step? And after k of them?"
    _expect(found, _node(torch.arange(T + 1)).alpha ** 2, hint)
    return (
        f"these are the squares of underone's LinearBeta()(k / T)[0]; the last is {found[-1]:.1e}."
    )


@exercise
def add_noise(answer: Answer) -> str:
    """x_k of x_0 and z, each image at its own step."""
    x0, z = _images(0), _images(1)
    k = torch.tensor([0, 1, 10, 250, 500, 1000])
    none = torch.zeros_like(x0)
    node = _node(k)
    _expect(
        answer(x0, torch.zeros_like(k), z),
        x0,
        "at k = 0 there is no noise yet. Does each image get the coefficient of its own step?",
        "x_0",
    )
    _expect(
        answer(x0, k, none),
        noised(x0, node, none),
        "this is about the signal: alpha-bar is the share of the variance that is left. So what "
        "is x_0 itself multiplied by?",
        "x_k without noise",
    )
    _expect(
        answer(none, k, z),
        noised(none, node, z),
        "this is about the noise: if x_0 has variance 1, so has x_k. What do the squares of "
        "the two coefficients add up to?",
        "x_k of a black image",
    )
    _expect(answer(x0, k, z), noised(x0, node, z), "signal and noise are added.", "x_k")
    return "it equals underone.diffusion.noised."


@exercise
def drop_labels(answer: Answer) -> str:
    """Labels, each replaced by the null label with some probability."""
    c = torch.arange(20_000) % 10
    before = c.clone()
    none, every, some = (answer(c, 10, rate) for rate in (0.0, 1.0, 0.1))
    if not torch.equal(c, before):
        raise _wrong(
            "the given labels have themselves been changed.",
            "make a new tensor: torch.where chooses between two, entry by entry.",
        )
    _expect(none, c, "at rate 0 no label is dropped.", "the result at rate 0")
    _expect(every, torch.full_like(c, 10), "at rate 1 all are.", "the result at rate 1")
    dropped = some == 10
    if not torch.equal(some[~dropped], c[~dropped]):
        raise _wrong("labels that were kept have changed.", "those not dropped stay as they are.")
    share = dropped.double().mean().item()
    if not 0.08 < share < 0.12:
        raise _wrong(
            f"at rate 0.1 the share of dropped labels is {share:.3f}.",
            "toss a coin for each label separately, which shows heads with this probability.",
        )
    return f"at rate 0.1 the share of dropped labels is {share:.3f}."


@exercise
def simple_loss(answer: Answer) -> str:
    """The loss of a noise-predicting network."""
    x0, c = _images(2), torch.arange(6)
    # The same draw as that of the training objective below.
    generator = torch.Generator().manual_seed(0)
    draw = drawn(x0, SCHEDULE, EVERY_STEP, generator)
    k = (draw.node.t * T).round().long()
    network = _Linear()
    same = torch.Generator().manual_seed(0)
    wanted = Denoising(SCHEDULE, Noise(), 0.0, 10)(network, x0, c, same)
    zero = answer(lambda x, k, c: draw.noise, x0, c, k, draw.noise)
    _expect(
        zero,
        torch.tensor(0.0),
        "a network that predicts the noise exactly has no loss, and the loss is one number.",
        "the loss of a perfect network",
    )
    seen = []

    def watched(x: Tensor, k: Tensor, c: Tensor) -> Tensor:
        seen.append((x, k, c))
        return torch.zeros_like(x)

    answer(watched, x0, c, k, draw.noise)
    if not seen:
        raise _wrong("the network is not called.", "the loss is about what model(...) predicts.")
    given_x, given_k, given_c = seen[0]
    _expect(given_x, draw.x, "the network is shown the noisy image x_k.", "what it is given")
    _expect(given_k, k, "give the network k as it is, one per image.", "the step it is given")
    _expect(given_c, c, "the label is its third argument.", "the label it is given")
    _expect(
        answer(network, x0, c, k, draw.noise),
        wanted,
        "a mean over all pixels and images; over what power of the difference?",
        "the loss",
    )
    return "it equals underone's training objective, Denoising, for the same k and z."


class _Linear(nn.Module):
    """A linear network that uses all of its inputs."""

    def forward(self, x: Tensor, k: Tensor, c: Tensor) -> Tensor:
        return 0.5 * x + (k.float() / T + 0.1 * c).reshape(-1, 1, 1, 1)


@exercise
def predicted_x0(answer: Answer) -> str:
    """x_0 as implied by a prediction of the noise."""
    x0, z = _images(3), _images(4)
    for k in (1, 300, 900):
        node = _node(k)
        _expect(
            answer(noised(x0, node, z), k, z),
            x0,
            "put in the noise that was added, and the image must come back: solve the equation "
            "of the forward process for x_0.",
            f"x_0 from x_{k} and its true noise",
        )
        _expect(
            answer(x0, k, z),
            Noise().to_x0(z, x0, node),
            "the equation is linear in x and in eps.",
            f"x_0 at k = {k}",
        )
    return "it equals underone's Noise().to_x0."


@dataclass(frozen=True)
class _Known:
    """A denoiser that knows x_0."""

    x0: Tensor
    schedule: LinearBeta = SCHEDULE

    def __call__(self, x: Tensor, node: Node, label: Tensor | None) -> Tensor:
        return self.x0


def _stepped(sampler: Sampler, x: Tensor, k: int, j: int, x0: Tensor, z: Tensor) -> Tensor:
    """A step of underone's own sampler."""
    path = [_node(k), _node(j)]
    return sampler.step(x, Step(path, 0, (), Bound(_Known(x0), None), lambda: z))[0]


@exercise
def ancestral_step(answer: Answer) -> str:
    """A draw from q(x_j given x_k and x_0), or one with the variance of the forward step."""
    one, none = torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    variances: tuple[Literal["large", "small"], ...] = ("large", "small")
    for k, j in ((500, 499), (500, 400)):
        far = (
            ""
            if k - j == 1
            else " It is right from 500 to 499: what is beta of a step that leaves some out?"
        )
        for variance in variances:

            def both(x: Tensor, x0: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
                theirs = _stepped(DDPM(variance), x, k, j, x0, z)  # noqa: B023
                return answer(x, k, j, x0, z, variance), theirs  # noqa: B023

            where = f"from {k} to {j}, variance {variance!r}"
            _expect(
                *both(none, one, none),
                "read the first term of mu-tilde above again." + far,
                f"{where}: the coefficient of x_0",
            )
            _expect(
                *both(one, none, none),
                "read the second term of mu-tilde above again: the roots are of 1 - beta, not of "
                "alpha-bar." + far,
                f"{where}: the coefficient of x_k",
            )
            mine, theirs = both(none, none, one)
            hint = "which of the two variances is larger, beta or beta-tilde?"
            if isinstance(mine, Tensor) and torch.allclose(mine, theirs**2, rtol=1e-3, atol=0):
                hint = "noise of variance v is the square root of v times z."
            _expect(mine, theirs, hint + far, f"{where}: what z is multiplied by")
    x, x0, z = (_images(seed) for seed in (5, 6, 7))
    _expect(
        answer(x, 700, 650, x0, z, "small"),
        _stepped(DDPM("small"), x, 700, 650, x0, z),
        "mean and noise are added.",
    )
    return 'it equals a step of underone\'s DDPM("large") and DDPM("small").'


@exercise
def ddim_step(answer: Answer) -> str:
    """DDIM's step, from deterministic to ancestral."""
    x, x0, z = (_images(seed) for seed in (8, 9, 10))
    for k, j in ((500, 499), (900, 300)):
        where = f"from {k} to {j}"
        _expect(
            answer(x, k, j, x0, z, 0.0),
            _stepped(DDIM(0.0), x, k, j, x0, z),
            "with eta = 0 nothing is drawn: the noise that x_0 implies in x_k is put back onto "
            "x_0, as much of it as belongs to step j.",
            f"{where}, eta = 0",
        )
        _expect(
            answer(x, k, j, x0, z, 1.0),
            _stepped(DDIM(1.0), x, k, j, x0, z),
            "with eta = 1 it must equal your ancestral step with the small variance. Do the "
            "variances of the implied and of the fresh noise add up to 1 - alpha-bar_j?",
            f"{where}, eta = 1",
        )
        _expect(
            answer(x, k, j, x0, z, 0.5),
            _stepped(DDIM(0.5), x, k, j, x0, z),
            "is eta a factor of the standard deviation, or of the variance?",
            f"{where}, eta = 0.5",
        )
    return "it equals a step of underone's DDIM(eta)."


@dataclass(frozen=True)
class _Shrinking:
    """A model of the noise in closed form, called as in the notebook or as in underone."""

    bound: float | None
    schedule: LinearBeta = SCHEDULE

    @staticmethod
    def noise(x: Tensor, k: float) -> Tensor:
        return (k / T) * torch.tanh(x)

    def __call__(self, x: Tensor, node: Node, label: Tensor | None) -> Tensor:
        x0 = Noise().to_x0(self.noise(x, node.t.item() * T), x, node)
        return x0 if self.bound is None else x0.clamp(-self.bound, self.bound)


@exercise
def sample(answer: Answer) -> str:
    """The loop from x_T to x_0."""
    labels = torch.arange(6)
    for steps, bound in ((1, 1.0), (4, 1.0), (7, 0.3)):
        asked: list[float] = []

        def model(x: Tensor, k: Tensor, c: Tensor) -> Tensor:
            if not isinstance(k, Tensor) or k.shape != (len(x),):
                raise _wrong(
                    "the model was not given one step per image.",
                    "torch.full((len(x),), k) makes a batch of one k.",
                )
            asked.append(float(k.flatten()[0]))  # noqa: B023
            return _Shrinking.noise(x, asked[-1])  # noqa: B023

        def step(x: Tensor, k: int, j: int, x0: Tensor, z: Tensor) -> Tensor:
            return _stepped(DDPM("large"), x, k, j, x0, z)

        states = answer(model, step, steps, labels, _replayed(), bound)
        path = nodes(Trailing(), SCHEDULE, steps)
        wanted = list(
            integrate(
                Bound(_Shrinking(bound), None),
                DDPM("large"),
                path,
                path[0].sigma * (noise := _replayed())(),
                noise,
            )
        )
        if not isinstance(states, list) or len(states) != steps + 1:
            raise _wrong(
                f"{steps} steps do not give a list of {steps + 1} states.",
                "the first is x_T, then one per step; the last is x_0.",
            )
        grid = [round(node.t.item() * T) for node in path[:-1]]
        if asked != grid:
            raise _wrong(
                f"with {steps} steps the model was asked at k = {asked}, expected {grid}.",
                "one evaluation per step, at the k from which the step starts.",
            )
        for index, (mine, theirs) in enumerate(zip(states, wanted, strict=True)):
            hint = "is x_0 predicted, then clamped to the bound, then given to `step`?"
            if index == steps:
                hint = "the last step lands on the predicted x_0, clamped, without noise."
            elif index == 0:
                hint = "x_T is noise."
            _expect(mine, theirs.x, hint, f"state {index} of {steps} steps")
    return "it equals underone's own loop, integrate, state by state."


def _replayed() -> Callable[[], Tensor]:
    generator = torch.Generator().manual_seed(11)
    return lambda: torch.randn(6, 1, 4, 4, generator=generator)


@exercise
def guided(answer: Answer) -> str:
    """Classifier-free guidance of a model."""

    def model(x: Tensor, k: Tensor, c: Tensor) -> Tensor:
        if not isinstance(c, Tensor):
            raise _wrong(
                "the model was given one label, not one per image.",
                "torch.full_like(c, null) makes a batch of them.",
            )
        return x * (1 + c.float()).reshape(-1, 1, 1, 1)

    x, k, c = _images(12), torch.full((6,), 500), torch.arange(6)
    given, without = model(x, k, c), model(x, k, torch.full_like(c, 10))

    def mixed(w: float) -> Any:
        return answer(model, w, 10)(x, k, c)

    if mixed(1.0) is None or mixed(1.0) is Ellipsis:
        raise _wrong("the guided model returns nothing.", "replace the three dots by your code.")
    scale = [torch.allclose(mixed(w), w * given + (1 - w) * without) for w in (1.0, 2.0)]
    if all(scale):
        raise _wrong(
            "at w = 1 this is the conditional model.",
            "that would be the guidance scale of other authors, which is 1 + w. Here w = 0 is "
            "the conditional model.",
        )
    _expect(mixed(0.0), given, "w = 0 is the model given the label, unguided.", "w = 0")
    _expect(
        mixed(-1.0),
        without,
        "w = -1 is the model without the label: each image gets the null label.",
        "w = -1",
    )
    for w in (0.5, 3.0):
        _expect(
            mixed(w),
            ClassifierFree(_Known(x), w, 10).mix(given, without),
            "the two weights add up to 1.",
            f"w = {w:g}",
        )
    return "it equals underone's ClassifierFree."


@exercise
def images_of(answer: Answer, count: int) -> str:
    """The images of a setting, the same seeds and labels for all."""
    asked = Setting("ddim", steps=1), Setting("ddpm-small", steps=1)
    first, second = (answer(setting) for setting in asked)
    for setting, samples in zip(asked, (first, second), strict=True):
        if not isinstance(samples, SampleSet):
            raise _wrong(
                f"that is a {type(samples).__name__}, not a sample set.",
                "underone.generation has one function that makes images.",
            )
        if samples.protocol["sampler"] != setting.sampler:
            raise _wrong(
                f"asked for {setting.sampler}, got {samples.protocol['sampler']}.",
                "the setting given is the one to draw with.",
            )
    if len(first) != count:
        raise _wrong(f"{len(first)} images, expected SAMPLES = {count}.", "see Draw's `count`.")
    if first.seeds is None or not torch.equal(first.seeds, second.seeds):
        raise _wrong("two settings have different seeds.", "only the same seeds can be paired.")
    if first.labels is None or len(first.labels[: min(10, count)].unique()) != min(10, count):
        raise _wrong("not all classes are asked for.", "see Draw's `labels`: what is its default?")
    return f"{count} images of seed {first.protocol['seed']}, whatever the setting."


@exercise
def measured(answer: Answer) -> str:
    """The figures of a sample set."""
    pixels = torch.randint(0, 256, (40, 1, 28, 28), generator=torch.Generator().manual_seed(0))
    # A label policy of their own, so that the floor is always that of as many images.
    labels = (torch.arange(40) % 10).clamp(max=8)
    samples = SampleSet(pixels.to(torch.uint8), labels, None, {"labels": "given"})
    found = answer(samples)
    if not isinstance(found, Measurement):
        raise _wrong(
            f"that is a {type(found).__name__}, not a measurement.",
            "underone.metrics has one function that measures samples with a yardstick.",
        )
    missing = {"fid", "precision", "recall", "consistency"} - found.figures.keys()
    if missing:
        raise _wrong(
            f"{', '.join(sorted(missing))} not measured.", "see above which metrics are wanted."
        )
    wanted = measure(samples, load_yardstick("fashion-mnist")).fid
    if not math.isclose(found.fid, wanted, rel_tol=1e-3):
        raise _wrong(f"FID {found.fid:.3f}, expected {wanted:.3f}.", "which yardstick?")
    floor = math.nan if found.floor is None else found.floor.fid
    return (
        f"40 images of pure noise have FID {found.fid:.0f}, and 40 real ones {floor:.1f}, for FID "
        "falls with their number."
    )


@exercise
def fewest_steps(answer: Answer) -> str:
    """The fewest steps that are as good as the most."""
    hint = "take the fewest steps whose FID is at most that at the most steps plus the margin."
    cases: tuple[tuple[Mapping[int, float], float, int], ...] = (
        ({5: 9.0, 10: 3.0, 20: 2.1, 50: 2.0}, 0.2, 20),
        ({5: 9.0, 10: 3.0, 20: 2.1, 50: 2.0}, 0.0, 50),
        ({50: 2.0, 20: 2.1, 10: 1.5, 5: 9.0}, 0.2, 10),
        ({5: 1.0, 10: 3.0, 20: 2.0}, 0.5, 5),
        ({5: 2.5, 10: 2.0}, 0.5, 5),
    )
    for fid, margin, wanted in cases:
        found = answer(fid, margin)
        if found != wanted:
            raise _wrong(f"for FIDs {dict(fid)} and margin {margin} you return {found}.", hint)
    return "it answers all of the examples."


@exercise
def guided_setting(answer: Answer, sampler: str, steps: int) -> str:
    """The setting of the experiment with a weight."""
    for w in (-1, 0, 2):
        found = answer(w)
        if found != Setting(sampler, steps=steps, guidance=w):
            raise _wrong(
                f"for w = {w} you return {found}.",
                "use GUIDED_SAMPLER and GUIDED_STEPS from above; only the weight changes, and "
                "everything else stays at its default.",
            )
    return "only the weight changes."


@exercise
def same_ranking(answer: Answer) -> str:
    """Whether two sets of FIDs rank the samplers alike."""
    cases = (
        ({"a": 1.0, "b": 2.0, "c": 3.0}, {"a": 10.0, "b": 11.0, "c": 90.0}, True),
        ({"a": 1.0, "b": 2.0, "c": 3.0}, {"c": 3.0, "b": 2.0, "a": 1.0}, True),
        ({"a": 1.0, "b": 2.0, "c": 3.0}, {"a": 3.0, "b": 2.0, "c": 1.0}, False),
        ({"a": 2.0, "b": 1.0, "c": 3.0}, {"a": 1.0, "b": 2.0, "c": 3.0}, False),
    )
    for ours, published, wanted in cases:
        found = answer(ours, published)
        if found is not wanted:
            raise _wrong(
                f"for {ours} and {published} you return {found}.",
                "sort the names of each by their FIDs, and compare the two orders.",
            )
    return "it answers all of the examples."
