"""What keeping answers within their tools does to every metric, and to the time that they take.

    .venv/bin/python -m tests.benchmarks.constrained WORKLOAD.yaml SNAPSHOT OUT --adapter FOLDER

Base and adapter answer a side of the snapshot freely and constrained, with the workload file's
settings. Printed are both scores of each metric with the paired difference and its 95 % interval,
how many calls fit the offered tools, and the answers' tokens a second. Scorecards are kept in OUT.
"""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, cast

import pyarrow.parquet as pq
import typer

from components import scorecard
from components.chat import dialects, tool_schema
from components.evaluate import harness
from components.gate import comparison, significance
from components.schema import Progress
from components.scorecard import MeasuredSide, Scorecard
from components.store.manifest import ScorecardManifest
from flows import workload_file

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def main(
    workload: Annotated[Path, typer.Argument(help="The workload's file.")],
    snapshot: Annotated[Path, typer.Argument(help="A frozen snapshot of it.")],
    home: Annotated[Path, typer.Argument(help="Keeps the scorecards.")],
    adapter: Annotated[Path | None, typer.Option(help="An adapter of the file's base.")] = None,
    side: Annotated[str, typer.Option(help="The holdout or the validation side.")] = "holdout",
) -> None:
    """Print a table for each model."""
    file = workload_file.read_workload(workload)
    models: dict[str, Path | None] = {"base": None, **({"adapter": adapter} if adapter else {})}
    measured: list[dict[str, Path]] = []
    for constrained in (False, "auto"):
        settings = file.evaluate.model_copy(update={"constrained": constrained, "tasks": ()})
        folders = harness.evaluate(
            snapshot,
            file.base,
            models,
            home,
            settings,
            side=cast("MeasuredSide", side),
            report=_print_progress,
            now=NOW,
        )
        measured.append({model: of_task[side] for model, of_task in folders.items()})
    rows = pq.read_table(snapshot / f"{side}.parquet", columns=["example_id", "tools"]).to_pylist()
    tools = {row["example_id"]: row["tools"] for row in rows}
    typer.echo(f"load {' '.join(f'{load:.1f}' for load in os.getloadavg())}")
    for model in models:
        _print_table(model, *(folders[model] for folders in measured), tools=tools)


def _print_table(model: str, free: Path, kept: Path, *, tools: dict[str, str]) -> None:
    before, after = scorecard.read(free), scorecard.read(kept)
    typer.echo(f"\n| {model} | n | free | constrained | difference, 95 % |")
    typer.echo("| --- | ---: | ---: | ---: | ---: |")
    for name, metric in after.metrics.items():
        old, new = before.scores[name].value, after.scores[name].value
        if old is None or new is None:
            continue
        pairs = comparison.pair_scores(after, before, name, None).pairs
        low, high = significance.lead_interval(pairs, 0.025)
        if not metric.higher_is_better:
            low, high = -high, -low
        typer.echo(
            f"| `{name}` | {after.scores[name].n} | {old:.1%} | {new:.1%} | "
            f"{new - old:+.1%} ({low:+.1%} to {high:+.1%}) |"
        )
    outputs = [{s.example_id: s.output for s in card.samples} for card in (before, after)]
    changed = sum(outputs[0][request] != answer for request, answer in outputs[1].items())
    fits = [_fitting(card, tools) for card in (before, after)]
    typer.echo(f"| calls that fit | | {fits[0]} | {fits[1]} | {changed} answers differ |")
    speeds = [ScorecardManifest.read(folder).speed for folder in (free, kept)]
    rates = [f"{speed.output_tokens / speed.seconds:.1f}" if speed else "" for speed in speeds]
    typer.echo(f"| answer tokens a second | | {rates[0]} | {rates[1]} | |")
    works = [speed.work.seconds if speed and speed.work else 0.0 for speed in speeds]
    typer.echo(f"| core-seconds in all | | {works[0]:.0f} | {works[1]:.0f} | |")
    for sentence in after.constrained.sentences if after.constrained else ():
        typer.echo(sentence)


def _fitting(card: Scorecard, tools: dict[str, str]) -> str:
    fits = [
        tool_schema.is_offered(call, tools[sample.example_id])
        for sample in card.samples
        for call in dialects.read_answer("written", sample.output, offers_tools=True).calls
    ]
    return f"{sum(fits)} of {len(fits)}"


def _print_progress(progress: Progress) -> None:
    if progress.done == progress.total:
        typer.echo(f"{progress.stage}: {progress.done} {progress.unit}")


if __name__ == "__main__":
    typer.run(main)
