"""How the figures of a report were measured: in a few sentences, and in full."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from underone.checkpoint import DiffusionConfig, ForeignNetwork
from underone.study.analysis import Analysis
from underone.study.cell import CellResult
from underone.study.measures import FID
from underone.study.report.tables import Facts
from underone.study.run import StudyRun
from underone.study.words import listed, setting_title


def summary(analysis: Analysis) -> str:
    """What was measured, in a sentence or two."""
    run, found = analysis.run, analysis.strata
    plan, bench = run.plan, run.bench
    counts = sorted({stratum.samples for stratum in found})
    settings = sum(len(stratum.standings) for stratum in found)
    samples = listed([f"{count:,}" for count in counts])
    first = bench.yardsticks[0]
    others = ", ".join(bench.yardstick_names[1:])
    drawn = sum(1 + len(one.fresh) for stratum in found for one in stratum.standings)
    screening = {cell for each in plan.slices for cell in plan.screening(each)}
    screened = sum(cell in run.known for cell in screening)
    dropped = len(run.known) - drawn - screened
    what = (
        f"{_counted(settings, 'setting')} in {_counted(drawn, 'cell')} of {samples} samples, "
        f"{_labels(run)}, all settings on the same seeds"
        if settings
        else "No setting is measured in full yet"
    )
    return (
        what
        + (f", and {_counted(screened, 'cell')} of other seeds for screening" if screened else "")
        + (f", and {_counted(dropped, 'cell')} that take no part now. " if dropped else ". ")
        + f"FID in the features of {first.extractor.name} against {first.reference.count:,} images "
        f"of {first.reference.origin.data} ({first.reference.origin.split})"
        + (f"; for comparison also in those of {others}." if others else ".")
    )


def real_images(analysis: Analysis) -> str:
    """The FID of real images under the first protocol that has it, and their number; or ""."""
    for stratum in analysis.strata:
        for each in stratum.asked:
            value, floor = FID.floor(each.first), each.first.floor
            if value is not None and floor is not None:
                return f"{FID.text(value)} ({floor.count:,} of them)"
    return ""


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _labels(run: StudyRun) -> str:
    labelled = any(model.num_classes is not None for model in run.bench.models.values())
    return f"labels {run.plan.study.labels}" if labelled else "no labels"


def revision_notice(run: StudyRun) -> str:
    """A notice that a model is of the legacy architecture, if one is."""
    legacy = [n for n, model in run.bench.models.items() if model.config.network.revision == 1]
    if not legacy:
        return ""
    what = "a checkpoint" if len(legacy) == 1 else "checkpoints"
    return f"{', '.join(legacy)}: {what} of the legacy architecture revision 1."


def protocol(run: StudyRun) -> Facts:
    """How everything was measured."""
    return tuple((term, text) for term, text in _protocol(run) if text)


def _protocol(run: StudyRun) -> Iterator[tuple[str, str]]:
    plan, bench = run.plan, run.bench
    for name, model in bench.models.items():
        network = model.config.network
        made = (
            f"of {network.package}"
            if isinstance(network, ForeignNetwork)
            else f"architecture revision {network.revision}"
        )
        if isinstance(model.config, DiffusionConfig):
            prediction, schedule = model.config.prediction.name, model.config.schedule.name
            made += f", {prediction} prediction, {schedule} schedule"
        yield "model", f"{name} {model.sha256[:16]}, {made}"
    for by in bench.yardsticks:
        of = "" if by.extractor.revision is None else f", revision {by.extractor.revision}"
        yield "extractor", f"{by.extractor.name} {by.extractor.sha256[:16]}{of}"
        yield (
            "reference",
            f"{by.reference.name} {by.reference.sha256[:16]}: {by.reference.count:,} images of "
            f"{by.reference.origin.data}, {by.reference.origin.split}",
        )
        if by.judge is not None:
            judge = by.judge.classifier
            yield "judge of classes", f"{judge.name} {judge.sha256[:16]}"
    yield "metrics", ", ".join(bench.metrics)
    yield "labels", _labels(run).removeprefix("labels ")
    yield "seed", f"{plan.study.seed}: block b has the samples (seed, b N) to (seed, (b + 1) N − 1)"
    yield "blocks", f"{plan.study.blocks}, of contenders up to {1 + len(plan.fresh)}"
    yield from _of_cells([run.known[cell] for cell in run.in_order])
    yield "budget", plan.budget
    yield (
        "left out by the budget",
        "; ".join(f"{each.model}: {setting_title(each.setting)}" for each in plan.left_out),
    )
    yield (
        "diverged, and not measured",
        _each(f"{each.model}: {setting_title(each.setting)}" for each in run.diverged_in_order),
    )
    costs = ", ".join(
        f"{1e3 * cost:.2f} ms ({name})" for name, cost in plan.costs.evaluation.items()
    )
    yield "an evaluation of an image takes", costs
    yield "measuring an image takes", f"{1e3 * plan.costs.image:.2f} ms"


def _of_cells(known: Sequence[CellResult]) -> Iterator[tuple[str, str]]:
    """What the cells record: how images were made and kept, and in what environment."""
    if not known:
        return
    protocols = [result.measurement.protocol for result in known]
    yield "samples are kept as", _each(p.quantisation for p in protocols)
    yield "precision of extractors", _each(p.extractor_precision for p in protocols)
    yield "precision of models", _each(r.measurement.subject.get("precision", "") for r in known)
    left_out = Counter(metric for result in known for metric in result.measurement.left_out)
    yield (
        "metrics that could not be had",
        ", ".join(
            f"{metric} ({count} of {len(known)} cells)" for metric, count in left_out.items()
        ),
    )
    yield "seconds of sampling", f"{sum(result.seconds for result in known):,.0f}"
    for key in known[0].measurement.environment:
        values = _each(r.measurement.environment.get(key, "") for r in known)
        yield key, f"{values} (which rounds otherwise)" if "," in values else values


def _each(values: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values))
