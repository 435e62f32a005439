"""`underone conformance`."""

import sys
from dataclasses import asdict

import click

from underone.cli.console import out, print_json, table
from underone.conformance import conformance as findings_of
from underone.named import sampler_named


@click.command(
    epilog="Example: underone conformance my_samplers:Midpoint. Orders are measured on a mixture "
    "of Gaussians whose denoiser is exact, against its exact flow."
)
@click.argument("sampler")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def conformance(sampler: str, as_json: bool) -> None:
    """Check what SAMPLER, a name or your own module:Name, claims. Exit status 1 if it fails."""
    chosen = sampler_named(sampler)
    findings = []
    grid = table(sampler, "", "check", "claimed", "measured")
    for finding in findings_of(chosen):
        findings.append(finding)
        grid.add_row("ok" if finding.holds else "FAILS", *list(asdict(finding).values())[:3])
    if as_json:
        print_json({"sampler": sampler, "findings": [asdict(finding) for finding in findings]})
    else:
        out.print(grid)
    if not all(finding.holds for finding in findings):
        sys.exit(1)
