"""The claim: an image inverted and decoded in 100 steps is the image again.

    python benchmarks/inversion.py          # what is missing
    python benchmarks/inversion.py table    # the result as Markdown

`underone invert` of the shipped FashionMNIST model and 40 test images, by the default setting and
by others: the share of pixels that come back within two grey levels. Each is kept in
`inversion.json` once it is measured.
"""

from pathlib import Path
from typing import Any

from measuring import asked, environment, run_and_tell

from underone.files import write_json

RESULTS = Path(__file__).with_suffix(".json")
COUNT = 40
STEPS = (10, 20, 50, 100)
# What the rows of the table are called, and the options that they are asked with.
ROWS: dict[str, tuple[str, ...]] = {
    "`dpm-solver-2m` on `log-snr`, the default": (),
    "the same with `--guidance 1`": ("--guidance", "1"),
    "`--sampler ddim` (DDIM inversion)": ("--sampler", "ddim"),
    "`--grid trailing`": ("--grid", "trailing"),
}


def key(options: tuple[str, ...], steps: int) -> str:
    return " ".join((*options, "--steps", str(steps)))


def run(results: dict[str, Any]) -> None:
    results.setdefault("environment", environment())
    returned = results.setdefault("returned", {})
    for options in ROWS.values():
        for steps in STEPS:
            if (cell := key(options, steps)) in returned:
                continue
            images = ("fashion-mnist", "--images", "fashion-mnist", "--count", str(COUNT))
            found = asked("invert", *images, "--steps", str(steps), *options)
            returned[cell] = found["returned"]
            write_json(RESULTS, results)
            print(f"{cell}: {returned[cell]:.2%}", flush=True)


def table(results: dict[str, Any]) -> str:
    """The share returned, by setting and steps."""
    first, *others = STEPS
    heads = " | ".join((f"{first} steps", *map(str, others)))
    rows = [f"| | {heads} |", "| --- " * (1 + len(STEPS)) + "|"]
    for name, options in ROWS.items():
        shares = (100 * results["returned"][key(options, steps)] for steps in STEPS)
        rows.append(f"| {name} | {' | '.join(f'{share:.2f} %' for share in shares)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    run_and_tell(str(__doc__), RESULTS, run, table)
