"""Measure how much scores depend on which surrogates were drawn for a holdout.

    .venv/bin/python -m tests.benchmarks.surrogates LOG WORKLOAD BASE [ADAPTER]...

Curates ``WORKLOAD`` of ``LOG`` once with each of some seeds, once with placeholders and once with
the real values, which a served model reads. Asks the base and each adapter those held-out requests
of all of them that hold a value, or the first ``--most`` of them. Prints for each model and metric
the mean of each, the spread of the seeds' means, and half the 95 % interval of one mean, beside
which the spread is small if scores don't depend on the draw; then the share of requests whose score
was not the same with every seed.
"""

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import pyarrow.parquet as pq
import typer

from components import scorecard
from components.curate import curate_workload
from components.curate.redaction.patterns import Kind
from components.curate.settings import Rules
from components.dataset import freeze_snapshot
from components.evaluate import harness
from components.evaluate.settings import EvaluationSettings
from components.schema import Json
from components.scorecard import HOLDOUT
from components.store import warehouse
from components.store.warehouse import Connection
from tests.support import logs

NOW = datetime(2026, 1, 1, tzinfo=UTC)
Scores = Mapping[str, Mapping[str, float]]
"""By metric and request."""


def freeze(
    con: Connection,
    root: Path,
    workload: str,
    redaction: Json,
    split: str = "conversation",
    holdout_share: float = 0.2,
) -> Path:
    """Freeze a workload's snapshot; the sides are those of the first."""
    rules = Rules.model_validate(
        {"redaction": redaction, "split_by": split, "holdout_share": holdout_share}
    )
    curate_workload.curate(con, workload, rules, now=NOW)
    return freeze_snapshot.freeze(con, root, workload, rules=rules, now=NOW).path


def arms(seeds: int) -> dict[str, Json]:
    """Name the settings of redaction to compare, the seeds first."""
    drawn: dict[str, Json] = {f"seed {n}": {"seed": n} for n in range(1, seeds + 1)}
    return {
        **drawn,
        "real values": {"off": [kind.value for kind in Kind]},
        "placeholders": {"replace": "placeholders"},
    }


def keep_common(folders: Mapping[str, Path], most: int) -> int:
    """Leave in all holdouts the requests that hold a value and stand in each; count them."""
    tables = {arm: pq.read_table(path / "holdout.parquet") for arm, path in folders.items()}
    firsts = {arm: [ids[0] for ids in one["interaction_ids"].to_pylist()]
              for arm, one in tables.items()}  # fmt: skip
    messages = {arm: dict(zip(firsts[arm], one["messages"].to_pylist(), strict=True))
                for arm, one in tables.items()}  # fmt: skip
    answers = {arm: dict(zip(firsts[arm], one["answer"].to_pylist(), strict=True))
               for arm, one in tables.items()}  # fmt: skip
    common = sorted(set.intersection(*(set(ids) for ids in firsts.values())))
    hold = [
        one
        for one in common
        if len({(texts[one], answers[arm][one]) for arm, texts in messages.items()}) > 1
    ][:most]
    for arm, table in tables.items():
        kept = [place for place, one in enumerate(firsts[arm]) if one in hold]
        pq.write_table(table.take(kept), folders[arm] / "holdout.parquet")
    return len(hold)


def scores(folder: Path) -> Scores:
    """Read the scores of a scorecard by metric and by the request's first interaction."""
    found: dict[str, dict[str, float]] = {}
    for sample in scorecard.read(folder).samples:
        for metric, value in sample.scores.items():
            if value is not None:
                found.setdefault(metric, {})[sample.example_id] = value
    return found


def mean(values: Sequence[float]) -> float:
    """Give a mean, of no values as zero."""
    return statistics.fmean(values) if values else 0.0


def compare(drawn: Mapping[str, Scores], other: Mapping[str, Scores]) -> list[str]:
    """Write a line for each metric: means, spread of the seeds, half an interval, flips."""
    lines: list[str] = []
    first = next(iter(drawn.values()))
    for metric in first:
        means = [mean([*one.get(metric, {}).values()]) for one in drawn.values()]
        values = [*first[metric].values()]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        half = 1.96 * spread / len(values) ** 0.5
        flipped = sum(
            len({one.get(metric, {}).get(name) for one in drawn.values()}) > 1
            for name in first[metric]
        )
        shown = " ".join(f"{value:.3f}" for value in means)
        others = ", ".join(
            f"{name} {mean([*one.get(metric, {}).values()]):.3f}" for name, one in other.items()
        )
        lines.append(
            f"{metric:20} n {len(values)}: {shown}; {others}; spread of seeds"
            f" {max(means) - min(means):.3f}, half interval {half:.3f},"
            f" {flipped / len(values):.0%} of requests differ"
        )
    return lines


def main(
    log: Annotated[Path, typer.Argument(help="A log of five-key lines.")],
    workload: Annotated[str, typer.Argument(help="Which of its workloads.")],
    base: Annotated[Path, typer.Argument(help="The base model's folder.")],
    adapter: Annotated[list[Path] | None, typer.Argument(help="Adapters to ask, too.")] = None,
    seeds: Annotated[int, typer.Option(help="How often surrogates are drawn.")] = 4,
    most: Annotated[int, typer.Option(help="Requests that are asked.")] = 100,
    split: Annotated[str, typer.Option(help="What the sides are split by.")] = "conversation",
) -> None:
    """Ask models one holdout with different surrogates, with placeholders and with real values."""
    models: dict[str, Path | None] = {"base": None, **{one.name: one for one in adapter or ()}}
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        with warehouse.connect(root / "w.duckdb") as con:
            logs.load(con, log, now=NOW)
            folders = {
                arm: freeze(con, root / arm, workload, redaction, split)
                for arm, redaction in arms(seeds).items()
            }
        typer.echo(f"{keep_common(folders, most)} held-out requests hold a value")
        settings = EvaluationSettings(precision="fp32")
        found: dict[str, dict[str, Scores]] = {}
        for arm, folder in folders.items():
            cards = harness.evaluate(
                folder, base, models, root / "cards", settings, report=lambda _: None, now=NOW
            )
            for model, tasks in cards.items():
                found.setdefault(model, {})[arm] = scores(tasks[HOLDOUT])
    for model, by_arm in found.items():
        drawn = {arm: one for arm, one in by_arm.items() if arm.startswith("seed")}
        other = {arm: one for arm, one in by_arm.items() if arm not in drawn}
        typer.echo(model)
        for line in compare(drawn, other):
            typer.echo("  " + line)


if __name__ == "__main__":
    typer.run(main)
