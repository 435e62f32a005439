"""Makes exercise.ipynb from guide.ipynb: the same cells without the solutions.

A solution is marked by `# solution` and `# end of solution` in code, and by HTML comments of the
same words in text. Run `python notebooks/make_exercise.py` after every change to the guide.
"""

import re
from pathlib import Path
from typing import Any

import nbformat

FOLDER = Path(__file__).parent
GUIDE, EXERCISE = FOLDER / "guide.ipynb", FOLDER / "exercise.ipynb"
SOLUTION = re.compile(
    r"^(?P<indent> *)# solution\n(?P<body>.*?)^(?P=indent)# end of solution$", re.M | re.S
)
WRITTEN = re.compile(r"<!-- solution -->\n(?P<body>.*?)<!-- end of solution -->", re.S)
BLANK = "...  # your code"
YOUR_ANSWER = "*Your answer, in three to five sentences:*"
TITLE = """\
# Denoising diffusion: the exercise

The same course as [guide.ipynb](guide.ipynb), with its key lines left blank. Replace every
`...  # your code` and run the cell below it, which tells you whether you are right, and gives a
hint if not. *Run all* stops at an answer that is not right yet. Each blank takes one to five lines.

**Part 1** writes a class-conditional denoising diffusion model in plain torch, trains it live on
points in the plane, and runs the same sampling code on the network that **underone** ships.
**Part 2** experiments with that network, and answers from what it measures which sampler, how many
steps and which guidance weight.

Sources to have at hand: Ho, Jain and Abbeel 2020
([DDPM](https://arxiv.org/abs/2006.11239)), Song, Meng and Ermon 2021
([DDIM](https://arxiv.org/abs/2010.02502)), Ho and Salimans 2022
([classifier-free guidance](https://arxiv.org/abs/2207.12598))."""


def blanked(source: str) -> str:
    """A cell's source without its solutions."""
    without = SOLUTION.sub(lambda found: found["indent"] + BLANK, source)
    return WRITTEN.sub(YOUR_ANSWER, without)


def exercise_of(guide: Any) -> Any:
    """The notebook for students."""
    cells = []
    for cell in guide.cells:
        if cell.cell_type == "code":
            made = nbformat.v4.new_code_cell(blanked(cell.source), id=cell.id)
        else:
            text = TITLE if cell.id == "title" else blanked(cell.source)
            made = nbformat.v4.new_markdown_cell(text, id=cell.id)
        cells.append(made)
    return nbformat.v4.new_notebook(cells=cells, metadata=guide.metadata)


def main() -> None:
    """Write the exercise beside the guide."""
    nbformat.write(exercise_of(nbformat.read(GUIDE, as_version=4)), EXERCISE)


if __name__ == "__main__":
    main()
