"""The report of a study: findings in words, charts, tables, and the page that holds them."""

from underone.study.report.write import write_report

__all__ = ["write_report"]
