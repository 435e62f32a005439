"""The slice of the real npm package in tests/data: its tarball, its members, and its pictures."""

import io
import json
import tarfile
from functools import cache
from pathlib import Path

SLICE = Path(__file__).parent / "data" / "noto-emoji"
TARBALL = SLICE / "emoji-datasource-google-16.0.0.tgz"
IMAGES = "package/img/google/64/"
Members = dict[str, bytes]


def members() -> Members:
    """Every file of the slice by name."""
    return dict(_members())


@cache
def _members() -> Members:
    with tarfile.open(TARBALL) as tar:
        files = {member.name: tar.extractfile(member) for member in tar.getmembers()}
        return {name: file.read() for name, file in files.items() if file is not None}


def write_tarball(path: Path, files: Members) -> Path:
    """A tarball as npm packs it."""
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def write_folder(root: Path) -> Path:
    """The slice's animals, flags and foods as a user's folder: ROOT/CLASS/*.png, 64x64 RGBA."""
    files = members()
    for emoji in json.loads(files["package/emoji.json"]):
        if emoji["category"] in ("Animals & Nature", "Flags", "Food & Drink"):
            path = root / emoji["category"] / emoji["image"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files[IMAGES + emoji["image"]])
    return root
