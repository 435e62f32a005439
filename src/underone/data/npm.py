"""Packages of npm of known content, fetched by npm itself from its configured registry."""

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from underone.errors import UserError
from underone.files import sha256_of_file

SECONDS_TO_PACK = 1800


@dataclass(frozen=True)
class NpmPackage:
    """A package's tarball, as the registry stores it, identified by its SHA-256."""

    package: str
    version: str
    sha256: str

    @property
    def name(self) -> str:
        """The file name that npm gives the tarball."""
        return f"{self.package}-{self.version}.tgz"


def npm_pack(package: NpmPackage, folder: Path, by_hand: str) -> Path:
    """The verified tarball in `folder`, fetched unless it is there already.

    No code of the package is run. If npm is missing, fails, or fetches other bytes, a `UserError`
    says why, and `by_hand` how to get the file without npm.
    """
    path = folder / package.name
    if path.is_file() and sha256_of_file(path) == package.sha256:
        return path
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(f"cannot get {package.name}: npm is not installed; {by_hand}")
    folder.mkdir(parents=True, exist_ok=True)
    # npm writes under the final name from the start: a break must not leave a part there.
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        brought = Path(temporary) / package.name
        _pack(npm, package, brought, by_hand)
        found = sha256_of_file(brought)
        if found != package.sha256:
            raise UserError(
                f"npm fetched {package.name} with the wrong checksum (SHA-256 {found[:16]}..., "
                f"expected {package.sha256[:16]}...), so it was deleted; {by_hand}"
            )
        brought.replace(path)
    return path


def _pack(npm: str, package: NpmPackage, path: Path, by_hand: str) -> None:
    command = f"npm pack {package.package}@{package.version}"
    arguments = [npm, *command.split()[1:], "--ignore-scripts", "--loglevel=error"]
    try:
        with Console(stderr=True).status(command):
            done = subprocess.run(  # noqa: S603
                arguments, cwd=path.parent, capture_output=True, timeout=SECONDS_TO_PACK
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{command} failed: {error}; {by_hand}") from None
    if done.returncode or not path.is_file():
        said = done.stderr.decode(errors="replace").strip() or "it wrote no tarball"
        # The last line of npm's message names its log; the reason comes first.
        reason = "; ".join(line.removeprefix("npm error").strip() for line in said.splitlines()[:2])
        raise UserError(f"{command} failed ({reason}); {by_hand}")
