"""Read files that may be gzipped, truncated or hostile."""

import gzip
import zlib
from pathlib import Path

from underone.errors import UserError

GZIP_MAGIC = b"\x1f\x8b"


def read_at_most(path: Path, limit: int) -> bytes:
    """The bytes of a file, unzipped if it is gzip; a `UserError` if they are more than `limit`.

    No more than `limit + 1` bytes are ever unpacked, and gzip's own checksum is verified.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == GZIP_MAGIC
            file.seek(0)
            data = gzip.GzipFile(fileobj=file).read(limit + 1) if zipped else file.read(limit + 1)
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except PermissionError:  # the file may be sound: downloading it again would not help
        raise
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is damaged or truncated ({error}): download it again") from None
    if len(data) > limit:
        raise UserError(f"{path} holds more than the {limit:,} bytes expected: not this format")
    return data
