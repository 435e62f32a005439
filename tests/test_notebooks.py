"""The notebooks run, the exercise is made from the guide, and its checks tell right from wrong."""

import copy
import importlib
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from shown_commands import assert_understood

FOLDER = Path(__file__).parent.parent / "notebooks"
SMALL = "SAMPLES = 20\nSTEPS = [5, 10]\nUPDATES = 100"
# What else is smaller where the guide is run whole, by cell: all of it is still run and checked.
SMALLER = {
    "data": [("spiral(1200)", "spiral(150)")],
    "picture-reverse": [("arange(1200)", "arange(150)")],
    "exercise-guided-setting": [('"ddim", 10', '"ddim", 2'), ("0, 0.25, 0.5, 1, 2, 4]", "0, 1]")],
    "gallery-variety-code": [("(0, 1, 4)", "(0, 1)")],
    "equal-images-code": [("step, 10, c", "step, 3, c"), ("steps=10", "steps=3")],
}
# Of the features that distances are taken to, a tenth: FID does not use them.
FEW_FEATURES = """
from dataclasses import replace
import torch
import underone.zoo

whole = underone.zoo.load_yardstick

def with_few_features(name):
    by = whole(name)
    kept = by.reference.kept.at(torch.arange(1000))
    return replace(by, reference=replace(by.reference, kept=kept))

underone.zoo.load_yardstick = with_few_features
"""
GUIDE = nbformat.read(FOLDER / "guide.ipynb", as_version=4)
EXERCISE = nbformat.read(FOLDER / "exercise.ipynb", as_version=4)
BLANK = "...  # your code"
EXERCISES = [c.id.removeprefix("exercise-") for c in GUIDE.cells if c.id.startswith("exercise-")]
SETUP = ("parameters", "setup-imports", "setup-shipped", "setup-yardstick")

# What a student may write in place of a solution, and what the check then says.
WRONG = [
    ("alpha-bars", "return (1 - beta).cumprod(0)", "expected 1001"),
    ("alpha-bars", "return torch.cat([torch.ones(1), beta.cumprod(0)])", "variance is left"),
    ("add-noise", "return alpha_bar[5].sqrt() * x0 + z", "no noise yet"),
    ("add-noise", "return column(alpha_bar[k], x0) * x0", "x_0 itself multiplied"),
    (
        "add-noise",
        "a = column(alpha_bar[k], x0)\n    return a.sqrt() * x0 + (1 - a) * z",
        "squares of the two coefficients",
    ),
    ("add-noise", "return alpha_bar[k].sqrt() * x0", "stopped with RuntimeError"),
    ("simple-loss", "return (model(x0, k, c) - z).square().mean()", "noisy image"),
    ("simple-loss", "return (model(add_noise(x0, k, z), k, c) - z).abs().mean()", "what power"),
    ("simple-loss", "return (model(add_noise(x0, k, z), k, c) - z).square()", "one number"),
    ("simple-loss", "return (model(add_noise(x0, k, z), k, c) - x0).square().mean()", "exactly"),
    ("drop-labels", "return c", "at rate 1 all are"),
    ("drop-labels", "return torch.full_like(c, null)", "at rate 0 no label"),
    ("drop-labels", "c[torch.rand(len(c)) < rate] = null\n    return c", "themselves been changed"),
    ("drop-labels", "return c if torch.rand(()) >= rate else torch.full_like(c, null)", "a coin"),
    ("predicted-x0", "return (x - (1 - alpha_bar[k]) * eps) / alpha_bar[k].sqrt()", "come back"),
    ("predicted-x0", "return x - eps", "come back"),
    ("ancestral-step", "return x0", "first term"),
    ("ancestral-step", "return x", "first term"),
    ("sample", "states.append(x)", "asked at k"),
    (
        "sample",
        "eps = model(x, torch.full((len(x),), k), c)\n        states.append(eps)",
        "clamped",
    ),
    (
        "sample",
        "eps = model(x, torch.full((len(x),), k), c)\n"
        "        x0 = predicted_x0(x, k, eps)\n"
        "        states.append(x0 if j == 0 else step(x, k, j, x0, noise()))",
        "clamped",
    ),
    ("sample", "pass", "do not give a list"),
    ("ddim-step", "return alpha_bar[j].sqrt() * x0", "put back"),
    ("ddim-step", "return ancestral_step(x, k, j, x0, z, 'small')", "nothing is drawn"),
    ("guided", "return model(x, k, c)", "stopped with|gets the null label"),
    (
        "guided",
        "return w * model(x, k, c) + (1 - w) * model(x, k, torch.full_like(c, null))",
        "guidance scale",
    ),
    ("guided", "return (1 + w) * model(x, k, c) - w * model(x, k, null)", "one label, not one"),
    (
        "simple-loss",
        "return (model(add_noise(x0, k, z), k / T, c) - z).square().mean()",
        "the step",
    ),
    ("simple-loss", "return (model(add_noise(x0, k, z), k, k) - z).square().mean()", "the label"),
    ("sample", "eps = model(x, k, c)", "one step per image"),
    ("images-of", "return generate(model, setting, Draw(7))", "expected SAMPLES"),
    (
        "images-of",
        "return generate(model, setting, Draw(SAMPLES, seed=len(setting.sampler)))",
        "paired",
    ),
    ("images-of", "return generate(model, setting, Draw(SAMPLES, labels='3'))", "not all classes"),
    ("images-of", "return generate(model, Setting('ddim', steps=1), Draw(SAMPLES))", "asked for"),
    ("measured", "return measure(samples, yardstick)", "not measured"),
    ("measured", "return 0.0", "not a measurement"),
    ("same-ranking", "return ours == published", "two orders"),
    ("same-ranking", "return min(ours) == min(published)", "two orders"),
    ("guided-setting", "return Setting(GUIDED_SAMPLER, steps=GUIDED_STEPS)", "only the weight"),
    ("fewest-steps", "return min(fid, key=fid.get)", "plus the margin"),
    ("fewest-steps", "return max(fid)", "plus the margin"),
]
# The same by what is changed in the solution.
CHANGED = [
    ("ancestral-step", "small).sqrt()", "small)", "square root"),
    ("ancestral-step", '"large" else', '"small" else', "is larger"),
    ("ancestral-step", "alpha_bar[k] / alpha_bar[j]", "alpha_bar[k] / alpha_bar[k - 1]", "leaves"),
    ("ancestral-step", "* (1 - alpha_bar[j]) / (1", "/ (1", "second term"),
    ("ddim-step", "eta**2", "eta", "standard deviation, or"),
    ("ddim-step", "- variance)", ")", "add up to"),
    ("sample", "x0 if j == 0 else step", "step", "the last step|NaN"),
    ("guided", "- w *", "+ w *", "null label"),
    ("measured", "yardstick, METRICS", "load_yardstick('fashion-mnist'), METRICS", "not measured"),
    ("measured", "yardstick, METRICS", "other, METRICS", "which yardstick"),
]


def source(notebook: Any, name: str) -> str:
    (cell,) = [cell for cell in notebook.cells if cell.id == name]
    return str(cell.source)


def helper(name: str) -> Any:
    """A module beside the notebooks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        return importlib.import_module(name)


def solution(name: str) -> str:
    found = helper("make_exercise").SOLUTION.search(source(GUIDE, f"exercise-{name}"))
    return str(found["body"]).strip()


def filled(name: str, answer: str) -> str:
    """A cell of the exercise with an answer in its blank."""
    cell = source(EXERCISE, f"exercise-{name}")
    assert cell.count(BLANK) == 1
    return cell.replace(BLANK, answer)


@pytest.fixture(scope="module")
def known() -> dict[str, Any]:
    """What a kernel knows once the exercise has been solved, without its runs and pictures."""
    helper("checks"), helper("pictures")
    names: dict[str, Any] = {}
    for cell in GUIDE.cells:
        if cell.id in SETUP or cell.id.startswith("exercise-"):
            exec(SMALL if cell.id == "parameters" else cell.source, names)  # noqa: S102
    names["other"] = names["replace"](
        names["load_yardstick"]("fashion-mnist-encoder"), judge=names["yardstick"].judge
    )
    return names


def checked(known: dict[str, Any], name: str, cell: str) -> None:
    """Answer an exercise and run its check."""
    before = known.copy()
    try:
        exec(cell, known)  # noqa: S102
        exec(source(EXERCISE, f"check-{name}"), known)  # noqa: S102
    finally:
        known.update(before)


# So the guide running is the exercise, solved, passing all of its checks.
def test_the_exercise_with_its_solutions_is_the_guide() -> None:
    marks = re.compile(r"^ *# (end of )?solution(\n|$)", re.M)
    for cell in GUIDE.cells:
        if cell.cell_type != "code":
            continue
        answered = source(EXERCISE, cell.id)
        if cell.id.startswith("exercise-"):
            name = cell.id.removeprefix("exercise-")
            answered = filled(name, solution(name))
        assert answered == marks.sub("", cell.source).rstrip("\n"), cell.id


@pytest.mark.slow
def test_the_guide_runs_at_a_small_size(monkeypatch: pytest.MonkeyPatch) -> None:
    # Beside other tests, threads cost more in waiting for each other than they save.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    guide = copy.deepcopy(GUIDE)
    for cell in guide.cells:
        if cell.id == "parameters":
            cell.source = SMALL + FEW_FEATURES
        for old, new in SMALLER.get(cell.id, ()):
            assert old in cell.source, cell.id
            cell.source = cell.source.replace(old, new)
    helper("run_guide").executed(guide)
    said = "".join(
        output.text
        for cell in guide.cells
        if cell.id.startswith("check-")
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stdout"
    )
    assert said.count("Right: ") == len(EXERCISES)
    assert "Not yet" not in said


def test_the_exercise_is_what_the_script_makes_of_the_guide() -> None:
    script = helper("make_exercise")
    made = nbformat.writes(script.exercise_of(GUIDE))
    assert script.EXERCISE.read_text("utf-8").rstrip("\n") == made.rstrip("\n")


def test_the_exercise_gives_nothing_away() -> None:
    text = "\n".join(cell.source for cell in EXERCISE.cells)
    assert "solution -->" not in text
    assert "# solution" not in text
    assert not any(cell.get("outputs") for cell in EXERCISE.cells)
    helpers = "".join(path.read_text("utf-8") for path in FOLDER.glob("*.py"))
    for name in EXERCISES:
        for line in solution(name).splitlines():
            assert line.strip() not in text, line
            assert line.strip() not in helpers, line


def test_every_exercise_has_a_check_a_blank_and_wrong_answers() -> None:
    checks = [cell.id.removeprefix("check-") for cell in EXERCISE.cells if "check-" in cell.id]
    assert checks == EXERCISES
    assert {name for name, *_ in (*WRONG, *CHANGED)} == set(EXERCISES)


@pytest.mark.parametrize("name", EXERCISES)
def test_a_right_answer_is_found_right(
    name: str, known: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    checked(known, name, filled(name, solution(name)))
    assert capsys.readouterr().out.startswith("Right: ")


@pytest.mark.parametrize("name", EXERCISES)
def test_a_blank_is_found_blank(name: str, known: dict[str, Any]) -> None:
    blank = "Not yet: .* (returns nothing|do not give a list).*\nHint: "
    with pytest.raises(helper("checks").NotYetError, match=blank) as found:
        checked(known, name, filled(name, BLANK))
    # Jupyter shows this in place of a traceback.
    assert found.value._render_traceback_() == str(found.value).splitlines()


@pytest.mark.parametrize(("name", "answer", "said"), WRONG)
def test_a_wrong_answer_is_given_a_hint(
    name: str, answer: str, said: str, known: dict[str, Any]
) -> None:
    with pytest.raises(helper("checks").NotYetError, match=f"Not yet: (.|\n)*({said})"):
        checked(known, name, filled(name, answer))


@pytest.mark.parametrize(("name", "right", "wrong", "said"), CHANGED)
def test_a_slip_is_given_a_hint(
    name: str, right: str, wrong: str, said: str, known: dict[str, Any]
) -> None:
    answer = solution(name)
    assert right in answer
    with pytest.raises(helper("checks").NotYetError, match=f"Not yet: (.|\n)*({said})"):
        checked(known, name, filled(name, answer.replace(right, wrong)))


@pytest.mark.slow
def test_jupyter_shows_a_message_in_place_of_a_traceback() -> None:
    cells = [cell for cell in EXERCISE.cells if cell.id in ("parameters", "setup-imports")]
    cells += [c for c in EXERCISE.cells if c.id.endswith("-alpha-bars")]
    notebook = nbformat.v4.new_notebook(cells=copy.deepcopy(cells))
    where = {"metadata": {"path": str(FOLDER)}}
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", resources=where)
    client.allow_errors = True
    client.execute()
    (shown,) = notebook.cells[-1].outputs
    assert shown.traceback == shown.evalue.splitlines()
    assert shown.traceback[0] == "Not yet: alpha_bars returns nothing."


def test_the_committed_guide_has_run_whole() -> None:
    cells = [cell for cell in GUIDE.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [(cell.id, output) for cell in cells for output in cell.outputs]
    assert not [name for name, output in outputs if output.output_type == "error"]
    assert not [name for name, output in outputs if output.get("name") == "stderr"]
    pictures = {name for name, output in outputs if "image/png" in output.get("data", {})}
    drawn = {cell.id for cell in cells if "pictures." in cell.source}
    assert drawn - {name for name, _ in outputs} == set()
    assert len(pictures) >= 15
    # What it ran with is what it says.
    parameters = dict(re.findall(r"^([A-Z]+) = (\d+)", source(GUIDE, "parameters"), re.M))
    (last,) = cells[-1].outputs
    assert f"{parameters['UPDATES']} updates, {parameters['SAMPLES']} images" in last.text


def test_the_commands_named_are_understood() -> None:
    text = "\n".join(cell.source for cell in GUIDE.cells if cell.cell_type == "markdown")
    lines = re.findall(r"^underone .*$", text, re.M)
    assert len(lines) >= 4
    for line in lines:
        assert_understood(line)


def test_what_the_text_links_to_is_there() -> None:
    for notebook in (GUIDE, EXERCISE):
        text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        for link in re.findall(r"\]\(([^)#]+)\)", text):
            assert link.startswith("https://") or (FOLDER / link).exists(), link
