"""Files: written whole or not at all, read with a one-line refusal."""

import hashlib
import math
import random
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers import strict_json
from underone.errors import UserError
from underone.files import (
    read_json,
    sha256_of_file,
    to_json,
    whole_files,
    write_atomically,
    write_json,
    write_text,
)

# Writes versions 1, 2, ... of one file for ever, slowly: each is a number repeated in many parts.
WRITER = """
import sys
from pathlib import Path
from underone.files import write_atomically

def write(path):
    with path.open("w") as file:
        for _ in range(200):
            file.write(f"{version}\\n")
            file.flush()

for version in range(1, 1_000_000):
    write_atomically(Path(sys.argv[1]), write)
    if version == 1:
        print("ready", flush=True)
"""


def test_a_file_is_written_into_folders_that_did_not_exist(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "value.json"
    write_json(path, {"α": [1, 2.5, None]})
    assert read_json(path) == {"α": [1, 2.5, None]}
    assert [entry.name for entry in path.parent.iterdir()] == ["value.json"]


def test_json_has_null_for_what_is_no_finite_number(tmp_path: Path) -> None:
    value = {"interval": (0.2, math.inf), "each": [{"loss": math.nan}, -math.inf, 1e300, 3, True]}
    expected = {"interval": [0.2, None], "each": [{"loss": None}, None, 1e300, 3, True]}
    assert strict_json(to_json(value)) == expected
    write_json(tmp_path / "value.json", value)
    assert strict_json((tmp_path / "value.json").read_text()) == expected


def test_a_file_gets_the_permissions_that_any_new_file_gets(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    write_text(tmp_path / "atomic", "text")
    usual, atomic = ((tmp_path / name).stat().st_mode for name in ("usual", "atomic"))
    assert stat.S_IMODE(atomic) == stat.S_IMODE(usual)


@pytest.mark.parametrize("existed", [True, False])
def test_a_writer_that_raises_leaves_what_was_there(tmp_path: Path, existed: bool) -> None:
    path = tmp_path / "file.txt"
    if existed:
        path.write_text("old")

    def write(temporary: Path) -> None:
        temporary.write_text("half of the new")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_atomically(path, write)
    assert [entry.name for entry in tmp_path.iterdir()] == (["file.txt"] if existed else [])
    assert not existed or path.read_text() == "old"


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    seen: list[str] = []

    def write(temporary: Path) -> None:
        temporary.write_text("new")
        seen.append(path.read_text())

    write_atomically(path, write)
    assert seen == ["old"]
    assert path.read_text() == "new"


def test_kill_9_never_leaves_a_broken_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    chance = random.Random(0)
    interrupted = 0
    for _ in range(20):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(chance.uniform(0, 0.02))
            process.kill()
        versions = path.read_text().split()
        assert len(versions) == 200
        assert len(set(versions)) == 1
        leftovers = [entry for entry in tmp_path.iterdir() if entry != path]
        interrupted += len(leftovers)
        for entry in leftovers:
            entry.unlink()
    assert interrupted > 0, "no kill fell into a write: this proved nothing"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"a": 1,}', b"\xff\xfe", b"[" * 100_000, b"9" * 5000],
    ids=["empty", "cut", "comma", "not-utf-8", "deep", "long-number"],
)
def test_broken_json_is_refused_in_one_line_that_names_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"broken\.json is not valid JSON") as caught:
        read_json(path)
    assert "\n" not in str(caught.value)


def test_a_missing_json_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such file: .*absent\.json"):
        read_json(tmp_path / "absent.json")


def test_the_hash_is_the_one_of_the_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(content)
    assert sha256_of_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_whole_files_are_those_of_a_pattern_but_for_what_a_kill_left(tmp_path: Path) -> None:
    for name in ("nearest-a.png", "nearest-b.png", "other.png", ".nearest-c.png.x1y2.png"):
        (tmp_path / name).touch()
    found = [path.name for path in whole_files(tmp_path, "nearest-*.png")]
    assert found == ["nearest-a.png", "nearest-b.png"]
    assert [path.name for path in whole_files(tmp_path)] == [*found, "other.png"]
