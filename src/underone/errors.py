"""The one kind of error a user is meant to read."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A user's mistake, explained in one line: what was wrong, what was expected, what to do.

    The command line prints the message alone and exits with status 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def first_line(error: BaseException) -> str:
    """The first line of the message of an error, as from another package."""
    return str(error).strip().partition("\n")[0]


def kind_and_line(error: BaseException) -> str:
    """The type of an error and its `first_line`, for errors of any type."""
    return f"{type(error).__name__}: {first_line(error)}"


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not one of `known`, which suggests the nearest."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(names)}"
    return UserError(f"unknown {kind} {name!r}: {hint}")
