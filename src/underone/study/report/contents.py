"""What every page of a report says, in HTML and in Markdown."""

from collections.abc import Sequence
from typing import Any

from underone.study.analysis import Analysis
from underone.study.report import protocol, tables, view
from underone.study.report.agreement import AGREEMENT, extractor_findings
from underone.study.report.answers_in_tables import front_tables
from underone.study.report.findings import findings
from underone.study.report.published import published_findings, published_tables


def contents(analysis: Analysis, beside: Sequence[Analysis]) -> dict[str, Any]:
    """The values of a page's template, by name; `beside` are studies of other data."""
    run = analysis.run
    return {
        "title": run.plan.study.title or ", ".join(run.bench.models),
        "summary": protocol.summary(analysis),
        "due": len(analysis.due),
        "front": front_tables(analysis),
        "findings": findings(analysis, beside),
        "published": published_tables(analysis),
        "published_findings": published_findings(analysis),
        "AGREEMENT": AGREEMENT,
        "agreement": extractor_findings(analysis),
        "columns": view.columns_are_classes(run),
        "settings": tables.settings_table(analysis),
        "protocol": protocol.protocol(run),
    }
