"""What README and docs show can be done."""

import re
import shlex
from pathlib import Path

import click
import pytest

from underone.cli import underone_command

ROOT = Path(__file__).parent.parent
CARDS = sorted((ROOT / "src" / "underone" / "zoo").glob("*/README.md"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *CARDS]


def blocks(page: Path, language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
    return [str(block) for block in found]


def commands() -> list[str]:
    lines = [line for page in PAGES for block in blocks(page, "") for line in block.splitlines()]
    return [line for line in lines if line.startswith("underone ")]


def test_there_are_commands_to_check() -> None:
    assert len(commands()) >= 11


@pytest.mark.parametrize("line", commands())
def test_every_command_shown_is_understood(line: str) -> None:
    name, *arguments = shlex.split(line, comments=True)[1:]
    command = underone_command.commands[name]
    context = command.make_context(name, arguments, parent=click.Context(underone_command))
    assert not context.args


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_linked_is_there(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
        assert (page.parent / link).exists(), link


def test_the_readme_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = blocks(ROOT / "README.md", "python")
    assert "count=1000" in example
    exec(example.replace("count=1000", "count=20"), {})  # noqa: S102
    assert "where real images score" in capsys.readouterr().out


def test_every_make_target_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    named = {t for page in PAGES for t in re.findall(r"`make ([a-z]+)", page.read_text("utf-8"))}
    assert named >= {"guide", "test"}
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.M), target
