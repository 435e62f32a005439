"""The house keeps its one-way arrows, and its picture in the docs is true."""

import ast
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "underone"
DOCUMENT = SOURCE.parent.parent / "docs" / "architecture.md"

# Each may import those before it.
ORDER = (
    "errors",
    "files",
    "config",
    "diffusion",
    "conformance",
    "modules",
    "named",
    "networks",
    "data",
    "checkpoint",
    "analytic",
    "shipped",
    "interop",
    "guides",
    "tuned",
    "generation",
    "editing",
    "likelihood",
    "tuning",
    "training",
    "metrics",
    "zoo",
    "adapters",
    "evaluation",
    "study",
    "explore",
    "cli",
)
# Diffusion is mathematics: it knows no files, no networks and no configuration.
DIFFUSION_MAY_IMPORT = {"errors", "diffusion"}


def room_of(path: Path, source: Path) -> str:
    return path.relative_to(source).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


def imported_rooms(path: Path, rooms: tuple[str, ...]) -> set[str]:
    parts = [module.split(".") for module in imported_modules(path)]
    return {part[1] for part in parts if part[0] == "underone" and part[1:] and part[1] in rooms}


def broken_arrows(source: Path, order: tuple[str, ...]) -> list[str]:
    """Every import of a later room, as "path imports room"."""
    broken = []
    for path in sorted(source.rglob("*.py")):
        room = room_of(path, source)
        if room in order:
            later = imported_rooms(path, order) - set(order[: order.index(room) + 1])
            broken += [f"{path.relative_to(source)} imports {name}" for name in sorted(later)]
    return broken


def test_imports_point_one_way() -> None:
    assert broken_arrows(SOURCE, ORDER) == []


def test_every_room_has_its_place() -> None:
    rooms = {room_of(path, SOURCE) for path in SOURCE.rglob("*.py")}
    assert rooms - {"__init__", "__main__"} == set(ORDER)


def test_diffusion_is_mathematics_only() -> None:
    for path in (SOURCE / "diffusion").rglob("*.py"):
        assert imported_rooms(path, ORDER) <= DIFFUSION_MAY_IMPORT, path
        top = {module.split(".")[0] for module in imported_modules(path)}
        outside = top & {"safetensors", "pydantic", "click", "rich", "PIL", "requests", "pathlib"}
        assert not outside, path


@pytest.mark.parametrize(
    "line", ["import underone.study.plan", "from underone import cli", "from underone.zoo import x"]
)
def test_a_broken_arrow_is_found(tmp_path: Path, line: str) -> None:
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "new.py").write_text(line)
    assert len(broken_arrows(tmp_path, ORDER)) == 1


def test_the_picture_in_the_docs_has_this_order() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    picture = re.findall(r"^([a-z]+)(?:\.py|/)\s", text.split("```")[1], flags=re.MULTILINE)
    assert tuple(picture) == ORDER
