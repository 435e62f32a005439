"""What every page of a report says, whatever it is written in."""

from collections.abc import Sequence
from typing import Any

from underone.study.report import protocol, tables, view
from underone.study.report.agreement import AGREEMENT, extractor_findings
from underone.study.report.answers_in_tables import front_tables
from underone.study.report.findings import findings
from underone.study.report.published import published_findings, published_tables
from underone.study.run import Run


def contents(run: Run, beside: Sequence[Run]) -> dict[str, Any]:
    """The values of a page's template, by name; `beside` are studies of other data."""
    return {
        "title": run.plan.study.title or ", ".join(run.bench.models),
        "summary": protocol.summary(run),
        "due": len(run.due()),
        "front": front_tables(run),
        "findings": findings(run, beside),
        "published": published_tables(run),
        "published_findings": published_findings(run),
        "AGREEMENT": AGREEMENT,
        "agreement": extractor_findings(run),
        "columns": view.columns_are_classes(run),
        "settings": tables.settings_table(run),
        "protocol": protocol.protocol(run),
    }
