"""Runs guide.ipynb from top to bottom, keeps its outputs, and makes the exercise from it.

`python notebooks/run_guide.py --samples 300 --steps 5 10 20 50` takes some seven minutes of an idle
core, mostly for 138,000 network evaluations; without an option its value in the notebook is kept.
Nothing is written unless every cell has run.
"""

import argparse
import os
import re
from pathlib import Path
from typing import Any

import make_exercise
import nbformat
from nbclient import NotebookClient


def executed(notebook: Any, timeout: int = 3600) -> Any:
    """The notebook with its outputs; the first error is raised. It runs in its own folder."""
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(Path(__file__).parent)}},
    )
    return client.execute()


def main() -> None:
    """Run the guide."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, help="images per setting")
    parser.add_argument("--steps", type=int, nargs="+", help="numbers of steps to compare")
    wanted = parser.parse_args()
    # Without ipywidgets a progress bar that is not even used here would complain.
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"
    guide = nbformat.read(make_exercise.GUIDE, as_version=4)
    (cell,) = [cell for cell in guide.cells if cell.id == "parameters"]
    if wanted.samples is not None:
        cell.source = re.sub(r"(?m)^SAMPLES = \d+", f"SAMPLES = {wanted.samples}", cell.source)
    if wanted.steps is not None:
        cell.source = re.sub(r"(?m)^STEPS = \[.*?\]", f"STEPS = {wanted.steps}", cell.source)
    nbformat.write(executed(guide), make_exercise.GUIDE)
    make_exercise.main()


if __name__ == "__main__":
    main()
