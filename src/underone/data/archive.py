"""Members of a tar archive that may be gzipped, truncated or hostile, read in memory."""

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from underone.data.compressed import read_at_most
from underone.errors import UserError


@dataclass(frozen=True)
class Archive:
    """An open archive; where a member is missing, errors say that it is not `what`."""

    path: Path
    what: str
    tar: tarfile.TarFile

    def read(self, name: str, limit: int) -> bytes:
        """The bytes of a regular file of at most `limit` bytes; a `UserError` if there is none."""
        try:
            member = self.tar.getmember(name)
        except KeyError:
            raise UserError(f"{self.path} holds no {name}: it is not {self.what}") from None
        file = self.tar.extractfile(member) if member.isreg() else None
        # A sparse member of a few bytes may claim terabytes.
        if file is None or member.size > limit:
            raise UserError(f"{name} in {self.path} is not a file of at most {limit:,} bytes")
        return file.read()

    def refuse_escapes(self) -> None:
        """A `UserError` if a member's name leads out of the archive, as only hostile ones do."""
        for name in self.tar.getnames():
            path = PurePosixPath(name.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts:
                raise UserError(
                    f"{self.path} is hostile: its member {name} leads out of the archive; "
                    "nothing was written"
                )


@contextmanager
def open_archive(path: Path, limit: int, what: str) -> Iterator[Archive]:
    """An archive, expected to be `what`, of at most `limit` bytes unzipped.

    Nothing is extracted to disk. An archive that is missing, damaged or truncated is a
    `UserError`.
    """
    data = io.BytesIO(read_at_most(path, limit))
    try:
        with tarfile.open(fileobj=data, mode="r:") as tar:
            yield Archive(path, what, tar)
    except (
        tarfile.TarError,
        OverflowError,
        RecursionError,
        ValueError,
    ) as error:  # raised by hostile headers
        raise UserError(f"{path} is not a whole tar archive ({error})") from None
