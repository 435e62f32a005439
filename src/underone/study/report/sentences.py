"""The state of a contest in sentences that claim no more than its samples show."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from underone.generation import Setting
from underone.metrics.uncertainty import Blocks, Comparison, normal_factor
from underone.study.answers import Answer, Standing
from underone.study.contest import SPREAD_BLOCKS
from underone.study.measures import FID, Measure
from underone.study.words import listed

# The answer of an unfinished study where cells that are still due may give one.
NOT_KNOWN_YET = "Not known yet: the cells that tell are not measured."
# A sentence names this many settings; the table of unresolved pairs names all.
_NAMED = 4

Title = Callable[[Setting], str]


@dataclass(frozen=True)
class Part:
    """Sentences about one model, number of samples or setting of a study; the first is the gist.

    `where` names it, "" where there is only one.
    """

    where: str
    sentences: tuple[str, ...]


def standing_text(each: Answer, title: Title) -> str:
    """The leader's figure, and how the others compare with it."""
    leader = title(each.leader.first.setting)
    parts = [f"the leader is {leader} with FID {figure(each.leader)}."]
    better = [one for one in each.standings[1:] if one.leads_now]
    trailing = [one for one in each.standings[1:] if one.trails]
    if better:
        by = _apart(better, each.leader, title)
        parts.append(
            f"But on fresh blocks it is overtaken by {by}: the block that it was chosen on "
            "flattered it."
        )
    if each.open:
        parts.append(f"Not separated from it: {_apart(each.open, each.leader, title)}.")
    if trailing:
        parts.append(f"Worse: {_apart(trailing, each.leader, title)}.")
    return " ".join(parts)


def how_firmly(each: Answer) -> str:
    """How many of the others are separated from a contest's leader."""
    if any(one.leads_now for one in each.standings[1:]):
        return "but is overtaken on fresh blocks"
    others = len(each.standings) - 1
    if each.settled:
        return "separated from the other" if others == 1 else f"separated from all {others} others"
    if others == 1:
        return "not separated from the other"
    return f"not separated from {len(each.open)} of the {others} others"


def _apart(others: Sequence[Standing], leader: Standing, title: Title) -> str:
    """Settings and how far their FIDs are from the leader's, the nearest first."""
    order = sorted(others, key=lambda one: _distance(one, leader))
    # For a leader without fresh blocks, its figure already says that all is on the first.
    behind = behind_text if leader.fresh else _behind
    named = [f"{title(one.first.setting)} ({behind(one, leader)})" for one in order[:_NAMED]]
    if len(order) > _NAMED:
        named.append(f"{len(order) - _NAMED} more")
    return listed(named)


def _distance(standing: Standing, leader: Standing) -> float:
    if standing.behind is None:
        return standing.first.fid - leader.first.fid
    return standing.behind.difference


def behind_text(standing: Standing, leader: Standing) -> str:
    """How far a setting is behind the leader, with the interval and the blocks."""
    return _behind(standing, leader) + _of_blocks(standing, leader)


def _behind(standing: Standing, leader: Standing) -> str:
    if standing.behind is None:
        return f"{_signed(FID, _distance(standing, leader))}, of no known error"
    return difference_text(FID, standing.behind)


def _of_blocks(standing: Standing, leader: Standing) -> str:
    """The blocks that a difference is over; "" where it is over all fresh ones."""
    if standing.behind is None or not standing.behind_on_fresh:
        return ", on the first block"
    blocks = standing.behind.blocks
    of_both = "block" if blocks == 1 else "blocks"
    return "" if blocks == len(leader.fresh) else f", on the {blocks} fresh {of_both} of both"


def difference_text(measure: Measure, found: Comparison) -> str:
    """A difference with its interval."""
    low, high = (_signed(measure, end) for end in (found.interval.low, found.interval.high))
    return f"{_signed(measure, found.difference)}; {low} to {high}"


def _signed(measure: Measure, value: float) -> str:
    return ("+" if value > 0 else "") + measure.text(value)


def figure(standing: Standing) -> str:
    """A setting's FID with its interval or standard error, in words."""
    values = FID.values(standing)
    shown = FID.text(statistics.fmean(values))
    if len(values) > 1:
        half = _half_width(standing, values)
        mean = statistics.fmean(values)
        low, high = FID.text(max(0.0, mean - half)), FID.text(mean + half)
        return f"{shown} ({low} to {high}, over {len(values)} fresh blocks)"
    block = "one fresh block" if standing.fresh else "the one block it was chosen on"
    error = standing.reported[0].measurement.figures["fid"].error
    within = "" if error is None else f"standard error {FID.text(error)}; "
    return f"{shown} ({within}on {block})"


def _half_width(standing: Standing, values: Sequence[float]) -> float:
    """Half the width of a mean's interval: from the blocks' spread, or the errors within two."""
    errors = [each.measurement.figures["fid"].error for each in standing.reported]
    known = [error for error in errors if error is not None]
    if len(values) < SPREAD_BLOCKS and len(known) == len(values):
        return normal_factor() * math.hypot(*known) / len(values)
    interval = Blocks(tuple(values)).interval()
    return (interval.high - interval.low) / 2
