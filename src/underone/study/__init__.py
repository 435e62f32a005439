"""Studies: planning the cells to measure, running them, and the report."""
