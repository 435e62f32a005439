"""The page that draws live: asked as a browser asks it, and in one."""

import base64
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
import uvicorn
from PIL import Image

from conftest import ModelFolder, Run
from studies import small_study
from underone.checkpoint import DiffusionModel
from underone.cli.explore import _listening as listening
from underone.data import tile
from underone.diffusion.evaluations import record_evaluations
from underone.errors import UserError
from underone.explore.application import application, page
from underone.explore.known import KnownFigures
from underone.explore.lines import JobLock, Tell, lines
from underone.explore.offer import Offer
from underone.explore.request import Request
from underone.generation import Draw, Setting, generate
from underone.study.bench import open_bench
from underone.study.engine import LocalEngine
from underone.study.run import open_run
from underone.zoo import load_model

ASKED: dict[str, Any] = {
    "sampler": "ddim",
    "steps": 3,
    "grid": "trailing",
    "guidance": 0,
    "form": "classifier-free",
    "interval": "",
    "threshold": "static",
    "seed": 7,
    "labels": "balanced",
    "count": 12,
}


@contextmanager
def served(offer: Offer) -> Iterator[str]:
    """The page at an address, as the command serves it."""
    socket = listening("127.0.0.1", 0)
    config = uvicorn.Config(
        application(offer, JobLock(), ["127.0.0.1"]), log_level="error", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()


def posted(url: str, body: bytes, kind: str = "application/json") -> urllib.request.Request:
    return urllib.request.Request(url, body, {"Content-Type": kind})  # noqa: S310


def asked(address: str, job: str, **changes: object) -> list[dict[str, Any]]:
    request = posted(address + job, json.dumps(ASKED | changes).encode())
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        return [json.loads(line) for line in answer if line.strip()]


def refused(address: str, job: str, **changes: object) -> str:
    try:
        said = asked(address, job, **changes)
    except urllib.error.HTTPError as error:
        said = [json.loads(error.read())]
    assert list(said[-1]) == ["error"]
    return str(said[-1]["error"])


@pytest.fixture(scope="module")
def small(model_folder: ModelFolder) -> Path:
    return model_folder("explored", steps=1000)


@pytest.fixture(scope="module")
def address(small: Path) -> Iterator[str]:
    with served(Offer.of([str(small)], precision="float32")) as url:
        yield url


def test_what_is_drawn_is_what_sample_draws(small: Path, address: str) -> None:
    first, *stills, last = asked(address, "draw", model=str(small), guidance=1)[1:]

    model = load_model(str(small))
    samples = generate(model, Setting(steps=3, guidance=1), Draw(12, seed=7), precision="float32")
    assert samples.labels is not None
    assert first["labels"] == samples.labels.tolist()
    png = base64.b64decode(stills[-1]["picture"].removeprefix("data:image/png;base64,"))
    expected = tile(samples.images, first["sheet"]["columns"], gap=first["sheet"]["gap"])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png))), np.asarray(expected))
    assert [still["step"] for still in stills][-1] == 3
    assert last["evaluations"] == {"model": 6}
    assert last["command"] == (
        f"underone sample {small} --sampler ddim --steps 3 --guidance 1 --precision float32 "
        "--seed 7 --count 12 --out samples.png"
    )


def test_unconditional_samples_are_of_no_class(small: Path, address: str) -> None:
    said = asked(address, "draw", model=str(small), guidance=-1)
    assert said[1]["labels"] is None
    assert said[-1]["evaluations"] == {"model": 3}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "other"}, "unknown model 'other'"),
        ({"sampler": "dimm"}, "unknown sampler 'dimm': did you mean 'ddim'?"),
        ({"sampler": "os:system"}, "os:system: for a sampler of your own, start underone explore"),
        ({"sampler": "ddim,eta=os:system"}, "start underone explore with --sampler"),
        ({"grid": "os:system"}, "os:system: for a grid of your own, start underone explore"),
        ({"form": "auto,by=/etc"}, "the page guides only by checkpoints beside the model"),
        ({"steps": 1001}, "steps must lie in 1..1000"),
        ({"steps": "3"}, "the request: steps must be a number, got '3'"),
        ({"steps": None}, "the request: steps: Input should be a valid integer, got None"),
        ({"interval": "0.2"}, "an interval is LOW:HIGH, like 0.2:5, got '0.2'"),
        ({"sampler": "ddpm-analytic"}, "ddpm-analytic is not ready for explored"),
        ({"sampler": "predictor-corrector,predictor=os:system"}, "start underone explore with"),
        ({"sampler": "ddim,inner=os:system"}, "start underone explore with --sampler"),
        ({"guidance": 1e39, "steps": 2}, "has diverged to NaN or infinity"),
        ({"guidance": -2}, "the guidance weight w must be a finite number >= -1"),
        ({"count": 129}, "the page draws at most 128 samples at once, got 129"),
        ({"count": 0}, "count must be at least 1, got 0"),
        ({"seed": -1}, "seeds and indices must lie in 0..2^63 - 1"),
        ({"labels": "11"}, "label 11 is not a class of this model"),
        ({"colour": "red"}, "unknown key in the request: 'colour'"),
    ],
)
def test_a_mistake_is_one_line(
    small: Path, address: str, changes: dict[str, object], message: str
) -> None:
    said = refused(address, "draw", **({"model": str(small)} | changes))
    assert message in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (b"{", "application/json", "not valid JSON"),
        (b"[" * 5000, "application/json", "not valid JSON"),
        (b" " * 20_000, "application/json", "too long"),
        (b"{}", "text/plain", "of type application/json, got text/plain"),
    ],
)
def test_what_is_no_request_is_refused(address: str, body: bytes, kind: str, message: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(posted(address + "draw", body, kind), timeout=60)  # noqa: S310
    assert error.value.code == 400
    assert message in json.loads(error.value.read())["error"]


def test_another_site_cannot_reach_it_by_a_name_of_its_own(address: str) -> None:
    request = urllib.request.Request(address, headers={"Host": "elsewhere.example"})  # noqa: S310
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request, timeout=60)  # noqa: S310
    assert error.value.code == 400


def test_who_leaves_does_not_keep_the_next_waiting(small: Path, address: str) -> None:
    body = json.dumps(ASKED | {"model": str(small), "steps": 1000, "count": 100}).encode()
    started = time.monotonic()
    with urllib.request.urlopen(posted(address + "draw", body), timeout=60) as answer:  # noqa: S310
        for line in answer:
            if "step" in (said := json.loads(line.strip() or "{}")):
                break
    seconds_a_step = (time.monotonic() - started) / said["step"]
    assert asked(address, "draw", model=str(small), steps=1, count=1)[-1]["evaluations"]
    assert time.monotonic() - started < 500 * seconds_a_step + 5


def endless(ended: Event, step: Callable[[Tell], object]) -> Callable[[Tell], None]:
    def job(tell: Tell) -> None:
        try:
            while True:
                step(tell)
                time.sleep(0.001)
        finally:
            ended.set()

    return job


@pytest.mark.parametrize(
    "step",
    [lambda tell: tell({"still": "here"}), lambda tell: record_evaluations("model", 1)],
    ids=["that tells", "that evaluates"],
)
def test_a_job_ends_when_nobody_reads_it(step: Callable[[Tell], object]) -> None:
    ended = Event()
    read = lines(endless(ended, step), JobLock())
    assert json.loads(next(read)) == {"begun": True}
    read.close()
    assert ended.wait(10)


def test_a_closed_lock_ends_all_jobs_also_those_that_wait() -> None:
    ended, lock = Event(), JobLock()
    first = lines(endless(ended, lambda tell: record_evaluations("model", 1)), lock)
    next(first)
    waiting = lines(lambda tell: tell({"never": "told"}), lock)
    assert next(waiting) == "\n"  # nothing to say yet, but the reader may be asked for
    lock.closed.set()
    assert ended.wait(10)
    assert [line for line in (*first, *waiting) if line.strip()] == []


def test_jobs_take_turns_and_one_that_fails_lets_the_next_begin() -> None:
    lock = JobLock()

    def failing(tell: Tell) -> None:
        raise ZeroDivisionError("by nothing\nat all")

    def mistaken(tell: Tell) -> None:
        raise UserError("not so")

    told = "this has failed: ZeroDivisionError: by nothing"
    for job, message in ((failing, told), (mistaken, "not so")):
        said = [json.loads(line) for line in lines(job, lock) if line.strip()]
        assert said[0] == {"begun": True}
        assert said[1]["error"] == message


def test_a_model_is_offered_no_more_than_it_has(
    model_folder: ModelFolder, small_model: DiffusionModel
) -> None:
    folder = str(model_folder("never-null", steps=10, label_dropout=0))
    network = replace(small_model.config.network, classes=None)
    config = small_model.config.model_copy(update={"network": network})
    models = {
        "never null": load_model(folder),
        "unconditional": replace(small_model, config=config),
    }
    described = Offer(models).document()["models"]
    assert not any(each["guided"] for each in described.values())
    assert described["unconditional"]["classes"] == []
    assert described["never null"]["classes"] == [str(i) for i in range(10)]
    assert described["never null"]["most_steps"] == 10
    assert not {"tuned", "distilled", "ddpm-analytic"} & set(described["never null"]["samplers"])


def test_shipped_models_are_offered_with_what_is_learned_for_them() -> None:
    offered = Offer.of().document()["models"]
    clothes = {"fashion-mnist", "fashion-mnist-preconditioned"}
    assert set(offered) == {*clothes, "noto-emoji"}
    assert {name for name, each in offered.items() if "tuned" in each["samplers"]} == clothes
    assert {name for name, each in offered.items() if each["reference"] != name} == {
        "fashion-mnist-preconditioned"
    }


def test_the_page_knows_for_which_samplers_there_is_no_grid_to_choose() -> None:
    described = Offer({}).document()
    assert described["samplers_with_own_grid"] == ["tuned", "decoder", "distilled"]


def test_names_of_models_cannot_end_the_script_of_the_page(small_model: DiffusionModel) -> None:
    html = page(Offer({"</script><script>alert(1)</script>": small_model}))
    assert "<script>alert" not in html
    assert html.count("</script>") == 2


@pytest.mark.slow
def test_the_fid_is_that_of_the_same_samples(small: Path, address: str) -> None:
    from underone.metrics import measure
    from underone.zoo import load_yardstick

    said = asked(address, "measure", model=str(small), steps=1)
    samples = generate(
        load_model(str(small)), Setting(steps=1), Draw(1000, seed=7), precision="float32"
    )
    expected = measure(samples, load_yardstick("fashion-mnist"))
    assert said[-1]["fid"] == f"{expected.fid:.3f}"
    assert expected.floor is not None
    assert said[-1]["floor"] == f"{expected.floor.fid:.3f}"
    assert [each["done"] for each in said if "done" in each][-1] == 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "unknown model 'nowhere'"),
        (["fashion-mnist-classifier"], "is not a diffusion model"),
        (["--sampler", "dimm"], "unknown sampler"),
        (["--reference", "nowhere"], "unknown reference"),
        (["--study", "nowhere"], "nowhere holds no study"),
        (["--host", "192.0.2.1"], "nothing can listen at '192.0.2.1'"),
        (["--host", ""], "nothing can listen at ''"),
        (["--host", "é..b"], "nothing can listen at 'é..b'"),
        (["--port", "70000"], "70000 is not in the range"),
    ],
)
def test_what_cannot_be_served_is_refused_at_once(
    run: Run, small: Path, arguments: list[str], message: str
) -> None:
    models = [] if arguments[0][0] != "-" else [small]
    code, _, said = run("explore", *models, *arguments)
    assert code == 2
    assert message in said


def test_a_port_that_is_taken_is_said_before_the_address(run: Run, small: Path) -> None:
    with listening("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        code, _, said = run("explore", small, "--port", port)
    assert code == 2
    assert f"nothing can listen at '127.0.0.1', port {port}: Address already in use" in said
    assert "http" not in said


def test_a_sampler_of_the_users_own_may_be_asked_for_once_it_is_named(small: Path) -> None:
    named = "underone.diffusion:DDIM,eta=0.5"
    request = Request(model=str(small), **(ASKED | {"sampler": named}))
    with pytest.raises(UserError, match="with --sampler"):
        request.setting()
    offer = Offer.of([str(small)], samplers=[named])
    assert request.setting(offer.own).sampler == named
    assert named in offer.document()["models"][str(small)]["samplers"]


@pytest.mark.slow
def test_what_a_study_has_measured_stands_beside_it(small: Path, tmp_path: Path) -> None:
    study = small_study(small, slices=[{"name": "steps", "steps": [2, 3]}])
    run, _ = open_run(tmp_path / "study", study, open_bench(study))
    assert KnownFigures.of(tmp_path / "study").figures == {}
    for _ in run.advance(LocalEngine(run.bench, 1), lambda cell, images: None):
        pass
    offer = Offer.of([str(small)], studies=[tmp_path / "study"])
    (model,) = offer.models.values()
    (known,) = offer.known(model, Setting(steps=2, interval=(0.1, 1)))  # at w = 0 there is none
    first = next(each for each in run.known.values() if each.setting.steps == 2)
    assert f"FID {first.fid:.3f} of 20 samples, by fashion-mnist-classifier; real images " in known
    assert offer.known(model, Setting(steps=4)) == []


@pytest.mark.slow
def test_ctrl_c_ends_it_while_it_draws(small: Path) -> None:
    command = [sys.executable, "-m", "underone", "explore", str(small), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as serving:
        assert serving.stderr is not None
        url = re.search(r"http://\S+:\d+", serving.stderr.readline())
        assert url is not None
        body = json.dumps(ASKED | {"model": str(small), "steps": 1000, "count": 100}).encode()
        with urllib.request.urlopen(posted(f"{url[0]}/draw", body), timeout=60) as answer:  # noqa: S310
            answer.readline()
            serving.send_signal(signal.SIGINT)
            assert serving.wait(timeout=30) in (0, 130)
        assert "Traceback" not in serving.stderr.read()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium")
def test_in_a_browser_both_sides_are_drawn_and_a_sample_is_chosen_on_both(address: str) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        try:
            # What is waited for is evaluated, which the page allows nobody.
            shown = browser.new_page(bypass_csp=True)
            wrong: list[str] = []
            shown.on("pageerror", lambda error: wrong.append(str(error)))
            shown.on("console", lambda said: wrong.append(said.text))
            shown.goto(address)
            drawn = "[...document.querySelectorAll('.command')].every(e => e.textContent)"
            shown.wait_for_function(drawn)
            left = shown.locator("[data-side=left]").first
            assert "20 evaluations an image" in left.locator("[role=status]").first.inner_text()
            assert "right-steps=5" in shown.url

            left.locator("[name=steps]").fill("0")
            left.locator("[name=steps]").press("Enter")
            shown.wait_for_selector(".wrong")
            assert "steps must lie in 1..1000" in shown.locator(".wrong").inner_text()
            left.locator("[name=steps]").fill("2")
            left.locator("[name=steps]").press("Enter")
            shown.wait_for_function(drawn)
            assert "left-steps=2" in shown.url

            left.locator(".sheet").press("ArrowRight")
            left.locator(".sheet").press("ArrowDown")
            assert "Sample 10 of seed 0" in shown.locator("#loupe p").inner_text()
            assert shown.locator(".mark:visible").count() == 2

            state = "#seed=3&count=7&left-steps=4&right-steps=6&right-guidance=1.5&left-grid=none"
            shown.evaluate(f"location.hash = '{state}'")
            shown.wait_for_function("location.hash.includes('seed=3&labels')")
            shown.wait_for_function(drawn)
            commands = shown.locator(".command").all_inner_texts()
            assert "--steps 4 --precision float32 --seed 3 --count 30" in commands[0]
            assert "--steps 6 --guidance 1.5 --precision float32 --seed 3 --count 30" in commands[1]
            assert wrong == []
        finally:
            browser.close()
