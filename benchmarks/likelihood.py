"""The claim: 25 steps of the probability flow are enough, and the bound of the chain is near it.

    python benchmarks/likelihood.py          # what is missing
    python benchmarks/likelihood.py table    # the results as Markdown

`underone likelihood` of test images under the shipped FashionMNIST model: of 20 of them by the
number of steps, of 100 by both methods. Each is kept in `likelihood.json` once it is measured.
"""

from pathlib import Path
from typing import Any

from measuring import asked, environment, run_and_tell

from underone.files import write_json

RESULTS = Path(__file__).with_suffix(".json")
STEPS = (5, 10, 25, 50, 100)
IMAGES = 100
METHODS: dict[str, tuple[str, ...]] = {
    "probability flow": (),
    "bound, large variance": ("--bound",),
    "bound, small variance": ("--bound", "--variance", "small"),
}
# All 1,000 steps of the bound beside a tenth of them.
SHARES: dict[str, tuple[str, ...]] = {
    str(steps): ("--bound", "--count", "20", "--steps", str(steps)) for steps in (100, 1000)
}


def by_steps(steps: int) -> tuple[str, ...]:
    return ("--count", "20", "--repetitions", "2", "--steps", str(steps))


def by_method(options: tuple[str, ...]) -> tuple[str, ...]:
    return ("--count", str(IMAGES), *options)


def run(results: dict[str, Any]) -> None:
    results.setdefault("environment", environment())
    bits = results.setdefault("bits", {})
    every = (*map(by_steps, STEPS), *map(by_method, METHODS.values()), *SHARES.values())
    for options in every:
        if (cell := " ".join(options)) in bits:
            continue
        found = asked("likelihood", "fashion-mnist", "--data", "fashion-mnist", *options)
        bits[cell] = {
            **found["bits_per_dimension"],
            "evaluations": sum(found["evaluations"].values()),
        }
        write_json(RESULTS, results)
        print(f"{cell}: {bits[cell]['value']:.3f}", flush=True)


def tables(results: dict[str, Any]) -> list[str]:
    """Bits per dimension by the steps of the flow, and by the methods."""
    bits = results["bits"]
    of_flow = {steps: bits[" ".join(by_steps(steps))] for steps in STEPS}
    of_all = {name: bits[" ".join(by_method(options))] for name, options in METHODS.items()}
    flow = (f"| {steps} | {4 * steps} | {each['value']:.3f} |" for steps, each in of_flow.items())
    methods = (
        f"| {name} | {each['value']:.3f} ± {each['error']:.3f} |" for name, each in of_all.items()
    )
    return [
        "\n".join(("| `--steps` | evaluations | bits/dim |", "| --- | --- | --- |", *flow)),
        "\n".join((f"| {IMAGES} images | bits/dim |", "| --- | --- |", *methods)),
    ]


if __name__ == "__main__":
    run_and_tell(str(__doc__), RESULTS, run, lambda results: "\n\n".join(tables(results)))
