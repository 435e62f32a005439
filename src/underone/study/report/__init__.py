"""The report of a study: findings in words, charts, tables, and the page that holds them."""

from underone.study.report.markdown import write_markdown
from underone.study.report.write import write_report

__all__ = ["write_markdown", "write_report"]
