"""Write docs/benchmarks.md: what every script here has measured, as its JSON has it.

    python benchmarks/page.py

A script that has measured nothing yet is named as such. Tables that belong to another page of the
documentation stay there, and are linked.
"""

import importlib
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
# In order: their titles, and where the table is, if not here.
SCRIPTS: dict[str, tuple[str, str | None]] = {
    "goals": ("How far from the goals", None),
    "machine_share": ("How near to the machine's limits", None),
    "diffusers_speed": ("Speed beside diffusers", None),
    "diffusers_quality": ("Time an image at equal quality, beside diffusers", None),
    "speedrun": ("From scratch to FID < 1", None),
    "training_ladder": ("What each choice in training is worth", "training.md"),
    "nfe_quality": ("Few evaluations: our samplers beside the schedulers of diffusers", None),
    "tuned": ("Tuned samplers", "tuning.md"),
    "guidance": ("Guidance", "guidance.md"),
    "planted_faults": ("What each metric sees", "metrics.md"),
    "study_overhead": ("What a study costs beyond its samples", None),
    "sampler_overhead": ("What the sampling loop costs beside the network", None),
    "growth": ("How cost grows", None),
    "fid": ("FID from moments", None),
    "precision_recall": ("Precision, recall, density and coverage", None),
    "recipe_costs": ("The recipes in colour", "cifar10.md"),
}
PACKAGES = (
    *("torch", "diffusers", "k-diffusion", "torchsde", "scipy", "torch-fidelity", "torchmetrics"),
    *("prdc", "scikit-learn"),
)
HEAD = """# Benchmarks

One script per claim, its results beside it with the machine and the versions they were measured on;
this page is written from them by `python benchmarks/page.py`. `make bench` measures anew what takes
minutes; the rest takes hours, and goes on where it was stopped. An idle machine is needed, and the
requirements of the tests. The load before each measurement is printed: if it is above 1 on two
cores, measure again.
"""


def section(name: str, title: str, elsewhere: str | None) -> str:
    """Heading, command, claim, table and machine of one script."""
    script = importlib.import_module(name)
    measured = elsewhere is not None or (HERE / f"{name}.json").exists()
    what = str(script.__doc__).partition("\n")[0]
    if not measured:
        what = f"Not measured yet. {what.replace('The claim:', 'The goal:')}"
    what = what.replace("The claim:", "Claimed:").replace("The question:", "Asked:")
    head = f"## {title}\n\n`python benchmarks/{name}.py`. {what}"
    if elsewhere is not None:
        return f"{head} [The table]({elsewhere})."
    if not measured:
        return head
    results: dict[str, Any] = json.loads((HERE / f"{name}.json").read_text("utf-8"))
    return f"{head}\n\n{script.table(results)}\n\n{machine(results)}".rstrip()


def machine(results: dict[str, Any]) -> str:
    """What it was measured on, where that was kept."""
    found = results.get("environment")
    if found is None:
        return ""
    versions = ", ".join(f"{name} {found[name]}" for name in PACKAGES if name in found)
    load = f"load {found['load_average_before']:.1f} before"
    return f"{found['cpu']}, {found['threads']} threads, {load}; {versions}."


def page() -> str:
    """The whole page."""
    sections = (section(name, *about) for name, about in SCRIPTS.items())
    return "\n\n".join([HEAD.rstrip(), *sections]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
