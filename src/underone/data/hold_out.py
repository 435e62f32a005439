"""Which images to hold out: a share of each class, by hash, near duplicates kept together."""

import hashlib
from collections.abc import Sequence


def held_out(ties: Sequence[Sequence[str]], classes: Sequence[str], share: float) -> set[int]:
    """The indices to hold out, about `share` of each class and at least one, always the same ones.

    `ties[i]`, at least one, are keys that relate image i to others: images that share a key,
    directly or through a chain, are one family, and no family is divided. Families are taken in the
    order of their hashes where they fit. A class whose families are all too large has nothing held
    out.
    """
    chosen: set[int] = set()
    families = sorted(_families(ties), key=lambda family: _hash(ties, family))
    for name in sorted(set(classes)):
        of_class = [family for family in families if classes[family[0]] == name]
        room = max(1, round(share * sum(map(len, of_class))))
        for family in of_class:
            if len(family) <= room:
                room -= len(family)
                chosen.update(family)
    return chosen


def _hash(ties: Sequence[Sequence[str]], family: list[int]) -> str:
    least = min(tie for index in family for tie in ties[index])
    return hashlib.sha256(least.encode()).hexdigest()


def _families(ties: Sequence[Sequence[str]]) -> list[list[int]]:
    """The connected components, each in ascending order: union-find over the ties."""
    parents: dict[str, str] = {}

    def root(tie: str) -> str:
        while (parent := parents.setdefault(tie, tie)) != tie:
            parents[tie] = parents[parent]  # path halving, which keeps chains short
            tie = parent
        return tie

    for first, *others in ties:
        for other in others:
            parents[root(other)] = root(first)
    families: dict[str, list[int]] = {}
    for index, (first, *_) in enumerate(ties):
        families.setdefault(root(first), []).append(index)
    return list(families.values())
