"""Studies: which cells to measure, running them, and the report."""
