"""The charts of a report: which measures are drawn, for which settings."""

from underone.study.report.charts.agreement import agreement_charts
from underone.study.report.charts.rows import slug
from underone.study.report.charts.steps import nfe_charts
from underone.study.report.charts.weights import diversity_charts, extractor_charts, weight_charts

__all__ = [
    "agreement_charts",
    "diversity_charts",
    "extractor_charts",
    "nfe_charts",
    "slug",
    "weight_charts",
]
