"""The answers of a study as tables: the best at each cost, steps, weights, models."""

from collections.abc import Iterable, Sequence

from underone.checkpoint import ForeignConfig
from underone.study.analysis import Analysis, Stratum
from underone.study.answers import Answer, Standing
from underone.study.contest import Factor
from underone.study.measures import (
    FID,
    INTRA_FID,
    MEASURES,
    Measure,
    mean_text,
    spread,
    yardstick_fids,
)
from underone.study.recommend import pareto_front
from underone.study.report.samplers import fewest
from underone.study.report.tables import Table
from underone.study.run import StudyRun
from underone.study.words import form_titles, sampler_title, setting_title, weight_title


def front_tables(analysis: Analysis) -> list[tuple[str, Table]]:
    """For each stratum the Pareto front of evaluations and FID on the first block."""
    return [
        (stratum.title, _front_table(analysis.run, stratum))
        for stratum in analysis.strata
        if stratum.asked
    ]


def _front_table(run: StudyRun, stratum: Stratum) -> Table:
    # A setting that leads both at its cost and overall is shown with the contest at its cost, which
    # comes last.
    contests = {
        each.leader.entry: each for each in stratum.answers if each.factor is not Factor.WEIGHT
    }
    measures = [
        m for m in (FID, INTRA_FID, *yardstick_fids(run)[1:]) if m.is_known_of(stratum.asked)
    ]
    front = pareto_front(stratum.asked, FID)
    rows = tuple(
        (
            f"{each.nfe:g}",
            setting_title(each.first.setting),
            *(spread(measure, each) for measure in measures),
            _not_separated(contests.get(each.entry)),
        )
        for each in front
    )
    real = ("", "real images", *_floors(measures, stratum.asked[0]), "")
    heads = ("evaluations", "setting", *(m.title for m in measures), "others not separated")
    return Table(heads, rows, (real,))


def _floors(measures: Sequence[Measure], standing: Standing) -> list[str]:
    """The scores of as many real images."""
    floors = ((measure, measure.comparable_floor(standing.first)) for measure in measures)
    return ["–" if value is None else measure.text(value) for measure, value in floors]


def _not_separated(contest: Answer | None) -> str:
    """How many entries of a contest are not separated from its leader."""
    if contest is None:
        return "–"
    return f"{len(contest.open)} of {len(contest.standings) - 1}"


def steps_tables(analysis: Analysis) -> list[tuple[str, Table]]:
    """For each stratum the FID of each sampler by steps, and the fewest steps that are enough."""
    return [
        (stratum.title, _steps_table(stratum.step_answers))
        for stratum in analysis.strata
        if stratum.step_answers
    ]


def _steps_table(mine: Sequence[Answer]) -> Table:
    every = sorted({one.first.setting.steps for each in mine for one in each.standings})
    rows = []
    for each in mine:
        name = sampler_title(each.leader.first.setting)
        at = {one.first.setting.steps: mean_text(FID, one) for one in each.standings}
        enough = f"{fewest(each)} or more" if max(at) == fewest(each) else f"{fewest(each)}"
        rows.append((name, *(at.get(steps, "") for steps in every), enough))
    heads = ("sampler", *(f"{steps} steps" for steps in every), "the fewest not known to be worse")
    return Table(heads, tuple(rows))


def weight_tables(analysis: Analysis) -> list[tuple[str, Table]]:
    """For each contest of weights, every measure at every weight."""
    return [
        (
            ", ".join(filter(None, (stratum.title, contest.unguided_title))),
            _weight_table(analysis.run, _by_weight(contest.standings)),
        )
        for stratum in analysis.strata
        for contest in stratum.answers_on(Factor.WEIGHT)
    ]


def _by_weight(among: Sequence[Standing]) -> list[Standing]:
    """Each form of guidance in turn, by ascending weight."""

    def key(each: Standing) -> tuple[str, float]:
        setting = each.first.setting
        return ", ".join(form_titles(setting)), setting.guidance

    return sorted(among, key=key)


def _weight_table(run: StudyRun, among: Sequence[Standing]) -> Table:
    measures = [m for m in (*MEASURES, *yardstick_fids(run)[1:]) if m.is_known_of(among)]
    rows = tuple(
        (
            weight_title(each.first.setting),
            f"{each.nfe:g}",
            *(measure.text(measure.value(each.first)) for measure in measures),
        )
        for each in among
    )
    heads = ("weight", "NFE", *(measure.title for measure in measures))
    return Table(heads, rows, (("real images", "", *_floors(measures, among[0])),))


def model_tables(analysis: Analysis) -> list[Table]:
    """Each model's best settings with guidance, at w = 0 and without labels, lowest FID first."""
    groups: dict[int, list[Standing]] = {}
    for each in analysis.standings:
        groups.setdefault(each.first.draw.count, []).append(each)
    return [
        _model_table(analysis.run, sorted(_best_of_kinds(group), key=lambda each: each.fid))
        for group in groups.values()
        if len({each.first.model for each in group}) > 1
    ]


def _best_of_kinds(group: Iterable[Standing]) -> list[Standing]:
    found: dict[tuple[str, int], Standing] = {}
    for each in sorted(group, key=lambda each: each.first.fid):
        weight = each.first.setting.guidance
        found.setdefault((each.first.model, (weight > 0) - (weight < 0)), each)
    return list(found.values())


def _model_table(run: StudyRun, rows: Sequence[Standing]) -> Table:
    measures = [
        measure
        for measure in (*MEASURES[1:], *yardstick_fids(run)[1:])
        if any(measure.is_known_of([each]) for each in rows)
    ]
    lowest = rows[0].fid
    heads = (
        "model", "setting", "FID", "of the lowest", "NFE", "labels", "trained for",
        *(measure.title for measure in measures),
    )  # fmt: skip
    body = tuple(
        (
            each.first.model,
            setting_title(each.first.setting),
            spread(FID, each),
            "" if lowest <= 0 else f"× {each.fid / lowest:.3g}",
            f"{each.nfe:g}",
            each.first.measurement.protocol.labels,
            _trained_for(run, each.first.model),
            *(mean_text(measure, each) for measure in measures),
        )
        for each in rows
    )
    return Table(heads, body)


def _trained_for(run: StudyRun, name: str) -> str:
    config = run.bench.models[name].config
    if isinstance(config, ForeignConfig):
        return "not known"
    training = config.training
    return f"{training.seconds / 60:.0f} min, {training.images_seen:,} images"
