"""From a study to its plan: its cells resolved, checked and fitted to a budget."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from underone.checkpoint import GenerativeModel
from underone.errors import UserError
from underone.generation import Draw, check
from underone.study.bench import Bench
from underone.study.cell import Cell
from underone.study.contest import Candidate, Entry, Factor, contests
from underone.study.costs import Costs
from underone.study.definition import Slice, Study
from underone.study.plan import PlannedSlice, StudyPlan

# Within a time budget settings are left out rather than draw fewer samples of a cell than this.
LEAST_SAMPLES = 600
# The share of a budget kept for the blocks of contenders, and the time for loading and the report.
_CONTEST_SHARE, _OVERHEAD_SHARE, _OVERHEAD_SECONDS = 0.2, 0.04, 10.0


def make_plan(
    study: Study, bench: Bench, costs: Costs, threads: int, minutes: float | None = None
) -> StudyPlan:
    """Resolve a study, check every cell of it, and fit it to its budgets.

    Candidates are left out until the rest fits in its `evaluations`, the costliest first that no
    question depends on. Within `minutes` they are left out until each cell can have
    `LEAST_SAMPLES`; then slices with `joins_at` join; then the number of samples is raised as far
    as it fits, up to what is asked for. A part of the budget is kept for contenders that may be
    drawn again.
    """
    check_minutes(minutes)
    plan = StudyPlan(
        study=study,
        models=bench.model_hashes,
        references=bench.reference_hashes,
        extractors=bench.extractor_hashes,
        slices=tuple(_resolved(each, study, bench) for each in study.slices),
        costs=costs,
        threads=threads,
        evaluations=math.ceil(study.evaluations * (1 - _contest_share(study))),
    )
    plan = _trimmed(plan, bench) if minutes is None else _fitted_to_time(minutes, plan, bench)
    plan = _without_idle_screening(plan, bench)
    plan = plan.model_copy(update={"evaluations": study.evaluations})
    needed = _evaluations(plan, bench)
    if 0 < study.evaluations < needed:
        raise UserError(
            f"not one cell fits in {study.evaluations:,} evaluations: allow more, or draw fewer "
            "samples"
        )
    return plan


def _without_idle_screening(plan: StudyPlan, bench: Bench) -> StudyPlan:
    """The plan without screening where that costs no less than measuring all candidates."""
    for each in plan.slices:
        open_to_all = each.model_copy(update={"screened": None})
        slices = tuple(open_to_all if one is each else one for one in plan.slices)
        without = plan.model_copy(update={"slices": slices})
        if each.screened and _evaluations(without, bench) <= _evaluations(plan, bench):
            plan = without
    return plan


def _evaluations(plan: StudyPlan, bench: Bench) -> int:
    """The evaluations of the planned cells, before any contest."""
    return sum(cell.evaluations(bench) for cell in planned_cells(plan, bench))


def _contest_share(study: Study) -> float:
    return _CONTEST_SHARE if study.most_blocks > study.blocks else 0.0


def check_minutes(minutes: float | None) -> None:
    """A `UserError` where `minutes` is not a valid budget."""
    if minutes is not None and not 0 < minutes < float("inf"):
        raise UserError(f"--minutes must be a finite number above 0, got {minutes:g}")


def planned_cells(plan: StudyPlan, bench: Bench) -> list[Cell]:
    """The cells that run before any contest.

    Finalists are not known yet: the costliest candidates stand in for them.
    """
    cells: dict[Cell, None] = {}
    for each in plan.slices:
        cells |= dict.fromkeys(plan.screening(each))
        drawn: Sequence[Candidate] = each.candidates
        if each.screened is not None:
            drawn = sorted(drawn, key=lambda one: _cost(one, bench))[-each.finalists :]
        for candidate in drawn:
            entry = Entry(candidate, plan.draw(each.samples))
            cells |= dict.fromkeys(entry.at(block) for block in range(each.blocks))
    return list(cells)


def _resolved(each: Slice, study: Study, bench: Bench) -> PlannedSlice:
    samples = each.samples or study.samples
    candidates = []
    for name in each.model or (study.model,):
        for setting in each.settings():
            try:
                draw = Draw(samples, study.seed, labels=study.labels)
                check(bench.models[name], setting, draw)
            except UserError as error:
                raise UserError(f'slice "{each.name}": {error}') from None
            candidates.append(Candidate(model=name, setting=setting))
    return PlannedSlice(
        name=each.name,
        candidates=tuple(dict.fromkeys(candidates)),
        samples=samples,
        blocks=each.blocks or study.blocks,
        screened=each.screened,
        finalists=each.finalists,
    )


def _fits(plan: StudyPlan, bench: Bench) -> bool:
    return plan.affords(planned_cells(plan, bench), bench)


def _trimmed(plan: StudyPlan, bench: Bench) -> StudyPlan:
    """The plan without the candidates that the budgets do not allow; one is always left.

    Each time the costliest candidate is left out whose question the others still answer, or else
    the costliest of all. Among equally costly ones it is the last named of the slice that has the
    most of them.
    """
    while not _fits(plan, bench):
        costliest = _costliest_first(plan, bench)
        if len(costliest) == 1:
            break
        asked = _questions(plan)
        spared = (one for one in costliest if _questions(_without(plan, one)) == asked)
        plan = _without(plan, next(spared, costliest[0]))
    return plan


def _costliest_first(plan: StudyPlan, bench: Bench) -> list[Candidate]:
    ranks: dict[Candidate, tuple[int, int, int]] = {}
    for each in plan.slices:
        costs = [_cost(one, bench) for one in each.candidates]
        alike = Counter(costs)
        for place, (one, cost) in enumerate(zip(each.candidates, costs, strict=True)):
            rank = cost, alike[cost], place
            ranks[one] = max(rank, ranks.get(one, rank))
    return sorted(ranks, key=lambda one: ranks[one], reverse=True)


def _questions(plan: StudyPlan) -> set[tuple[str, Factor]]:
    """The questions that a plan can answer for each model: its contests, and how many steps."""
    entries = [
        Entry(one, plan.draw(each.samples)) for each in plan.slices for one in each.candidates
    ]
    found = {(contest.entries[0].candidate.model, contest.factor) for contest in contests(entries)}
    plain = {entry.candidate for entry in entries if entry.candidate.setting.guidance == 0}
    lines = Counter((one.model, replace(one.setting, steps=1)) for one in plain)
    return found | {(model, Factor.STEPS) for (model, _), count in lines.items() if count > 1}


def _cost(candidate: Candidate, bench: Bench) -> int:
    """Network evaluations per image."""
    return candidate.setting.evaluations(bench.models[candidate.model])


def _without(plan: StudyPlan, left_out: Candidate) -> StudyPlan:
    slices = (
        each.model_copy(
            update={"candidates": tuple(one for one in each.candidates if one != left_out)}
        )
        for each in plan.slices
    )
    return plan.model_copy(
        update={
            "slices": tuple(each for each in slices if each.candidates),
            "left_out": (*plan.left_out, left_out),
        }
    )


def _fitted_to_time(minutes: float, plan: StudyPlan, bench: Bench) -> StudyPlan:
    seconds = max(1.0, 60 * minutes * (1 - _OVERHEAD_SHARE) - _OVERHEAD_SECONDS)
    first = seconds * (1 - _contest_share(plan.study))
    joins_at = {each.name: each.joins_at for each in plan.study.slices}
    waiting = sorted(
        (each for each in plan.slices if joins_at[each.name]), key=lambda e: joins_at[e.name]
    )
    begun = tuple(each for each in plan.slices if not joins_at[each.name])
    plan = plan.model_copy(update={"slices": begun, "seconds": first})
    plan = _trimmed(_with_samples(plan, LEAST_SAMPLES, bench), bench)
    for each in waiting:
        plan = _with_joining(plan, each, max(joins_at[each.name], LEAST_SAMPLES), bench)
    if not plan.slices:
        raise UserError(
            f"no slice of this study joins within {minutes:g} minutes: allow more, or add a slice "
            "without joins_at"
        )
    return _with_most_samples(plan, bench).model_copy(update={"seconds": seconds})


def _with_joining(plan: StudyPlan, each: PlannedSlice, samples: int, bench: Bench) -> StudyPlan:
    """The plan with those candidates of a slice that fit while every cell has `samples`."""
    for candidate in each.candidates:
        joined = _with_slice(plan, each.model_copy(update={"candidates": (candidate,)}))
        if _fits(_with_samples(joined, samples, bench), bench):
            plan = joined
        else:
            plan = plan.model_copy(update={"left_out": (*plan.left_out, candidate)})
    return plan


def _with_slice(plan: StudyPlan, more: PlannedSlice) -> StudyPlan:
    """The plan with the candidates of `more` added to its slice of the same name."""
    same = next((each for each in plan.slices if each.name == more.name), None)
    if same is None:
        return plan.model_copy(update={"slices": (*plan.slices, more)})
    whole = same.model_copy(update={"candidates": (*same.candidates, *more.candidates)})
    return plan.model_copy(
        update={"slices": tuple(whole if each is same else each for each in plan.slices)}
    )


def _with_samples(plan: StudyPlan, samples: int, bench: Bench) -> StudyPlan:
    """The plan with `samples` per cell, or as many as a slice asks for if that is less."""
    asked = {each.name: each.samples or plan.study.samples for each in plan.study.slices}
    whole = _classes(bench.models.values())
    slices = (
        each.model_copy(update={"samples": _multiple(min(samples, asked[each.name]), whole)})
        for each in plan.slices
    )
    return plan.model_copy(update={"slices": tuple(slices)})


def _with_most_samples(plan: StudyPlan, bench: Bench) -> StudyPlan:
    low = LEAST_SAMPLES
    high = 1 + max(each.samples or plan.study.samples for each in plan.study.slices)
    while high - low > 1:
        middle = (low + high) // 2
        fits = _fits(_with_samples(plan, middle, bench), bench)
        low, high = (middle, high) if fits else (low, middle)
    return _with_samples(plan, low, bench)


def _classes(models: Iterable[GenerativeModel]) -> int:
    return math.lcm(*(model.num_classes or 1 for model in models))


def _multiple(samples: int, of: int) -> int:
    """`samples` rounded down to a multiple of `of`, if it is at least that, but not below 2."""
    return max(2, samples // of * of) if samples >= of else max(2, samples)
