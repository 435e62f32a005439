"""All results of a study so far, found once: what its report is written from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from underone.generation import Setting
from underone.study.answers import Answer, Standing, answer, answers, standings
from underone.study.cell import Cell
from underone.study.contest import Contest, Factor
from underone.study.run import StudyRun
from underone.study.words import sampler_title


@dataclass(frozen=True)
class Stratum:
    """The settings of one model at one number of samples: only those can be compared.

    `title` tells it from the study's other strata, "" if it is the only one. `answers` are its
    contests, and `step_answers` those between the numbers of steps of each sampler at w = 0.
    """

    model: str
    samples: int
    title: str
    standings: tuple[Standing, ...]
    answers: tuple[Answer, ...]
    step_answers: tuple[Answer, ...]

    @property
    def asked(self) -> tuple[Standing, ...]:
        """The settings that are conditioned on labels, as all in contests are."""
        return _asked(self.standings)

    def answers_on(self, factor: Factor) -> list[Answer]:
        """Its contests about that factor."""
        return [each for each in self.answers if each.factor is factor]


@dataclass(frozen=True)
class Analysis:
    """The state of a study: every setting as it stands, and every contest.

    `due` are the cells that are still to run; `strata` are in the order of the study's models, the
    most samples first.
    """

    run: StudyRun
    due: tuple[Cell, ...]
    standings: tuple[Standing, ...]
    strata: tuple[Stratum, ...]

    @property
    def answers(self) -> list[Answer]:
        """The contests of all strata."""
        return [each for stratum in self.strata for each in stratum.answers]

    @property
    def step_answers(self) -> list[Answer]:
        """The contests between numbers of steps of all strata."""
        return [each for stratum in self.strata for each in stratum.step_answers]

    def answers_on(self, factor: Factor) -> list[Answer]:
        """The contests about that factor."""
        return [each for each in self.answers if each.factor is factor]


def analysed(run: StudyRun) -> Analysis:
    """The analysis of a study as it stands now."""
    every = standings(run)
    return Analysis(run, tuple(run.due()), tuple(every), tuple(_strata(run, every)))


def _strata(run: StudyRun, every: Sequence[Standing]) -> list[Stratum]:
    groups: dict[tuple[str, int], list[Standing]] = {}
    for each in every:
        groups.setdefault(_key(each), []).append(each)
    found: dict[tuple[str, int], list[Answer]] = {}
    for contest in answers(run):
        found.setdefault(_key(contest.leader), []).append(contest)
    order = {name: index for index, name in enumerate(run.bench.models)}
    return [
        Stratum(
            model,
            samples,
            _title(run, model, samples),
            tuple(groups[model, samples]),
            tuple(found.get((model, samples), ())),
            tuple(_step_answers(run, groups[model, samples])),
        )
        for model, samples in sorted(groups, key=lambda key: (order[key[0]], -key[1]))
    ]


def _key(standing: Standing) -> tuple[str, int]:
    return standing.first.model, standing.first.draw.count


def _asked(among: Sequence[Standing]) -> tuple[Standing, ...]:
    return tuple(each for each in among if each.first.setting.uses_labels)


def _title(run: StudyRun, model: str, samples: int) -> str:
    """A title that tells a stratum from the others of its study, "" of the only one."""
    parts = [model] if len(run.bench.models) > 1 else []
    counts = {
        each.samples
        for each in run.plan.slices
        if any(candidate.model == model for candidate in each.candidates)
    }
    if len(counts) > 1:
        parts.append(f"{samples:,} samples")
    return ", ".join(parts)


def _step_answers(run: StudyRun, among: Sequence[Standing]) -> list[Answer]:
    """For each sampler at w = 0, the contest between its numbers of steps."""
    groups: dict[Setting, list[Standing]] = {}
    for each in _asked(among):
        setting = each.first.setting
        if setting.guidance == 0:
            groups.setdefault(replace(setting, steps=1), []).append(each)
    contests = (
        Contest(
            Factor.STEPS,
            f"how many steps for {sampler_title(setting)}",
            tuple(each.entry for each in members),
        )
        for setting, members in groups.items()
        if len(members) > 1
    )
    return [answer(contest, run.known, run.plan.fresh) for contest in contests]
