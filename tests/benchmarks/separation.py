"""Prove by comparing each with each that nothing is trained on that is tested on.

    .venv/bin/python -m tests.benchmarks.separation FOLDER

Curates every workload of ``FOLDER/telemetry_*.jsonl.gz`` and compares each row to train on with
each held out, in Python sets and without what curation uses: the Jaccard of the triples of words of
what was said, whatever the tools and the system prompt. Prints the verdicts, the highest Jaccard,
and the pairs of 0.8 or more, of which there must be none.
"""

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from components.chat import prompt
from components.curate import curate_workload
from components.curate.settings import Rules
from components.store import warehouse
from components.store.warehouse import Connection
from tests.components.curate.near.test_duplicates import triples
from tests.support import logs

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LEAST = 0.8


def words(messages: str) -> str:
    """Give what was said in a request, but for the system prompt."""
    turns = prompt.render_prompt(json.loads(messages), ())
    return "\n".join(turn["content"] for turn in turns if turn["role"] != "system")


def nearest(train: Sequence[str], held_out: Sequence[str]) -> Iterator[tuple[float, str, str]]:
    """Give for each row to train on its highest Jaccard with a row held out, with both."""
    tested = [(other, triples(other)) for other in held_out]
    for text in train:
        ours = triples(text)
        yield max((_jaccard(ours, theirs), text, other) for other, theirs in tested)


def _jaccard(one: set[tuple[str, ...]], other: set[tuple[str, ...]]) -> float:
    both = len(one & other)
    return both / max(len(one) + len(other) - both, 1)


def examples(con: Connection, workload: str, side: str) -> list[str]:
    """Give what was said in the examples of one side."""
    sql = "select messages from curated.examples where workload_id = $workload and side = $side"
    found = warehouse.rows(con, sql, workload=workload, side=side)
    return [words(str(row["messages"])) for row in found]


def prove(con: Connection, workload: str) -> int:
    """Curate one workload, print what came of it, and count the pairs that must not be."""
    split = "conversation" if workload.startswith(("airline", "assistant")) else "tools"
    tally = curate_workload.curate(con, workload, Rules(split_by=split), now=NOW)
    train, held_out = examples(con, workload, "train"), examples(con, workload, "holdout")
    found = sorted(nearest(train, held_out), reverse=True)
    typer.echo(f"{workload}: {len(train)} to train on, {len(held_out)} held out; {tally.counts}")
    typer.echo(f"  {len(train) * len(held_out)} pairs, highest Jaccard {found[0][0]:.3f}")
    near = [pair for pair in found if pair[0] >= LEAST]
    for value, text, other in near:
        typer.echo(f"  {value:.3f}\n    {text[-200:]!r}\n    {other[-200:]!r}")
    return len(near)


def main(folder: Annotated[Path, typer.Argument(help="The folder of the logs.")]) -> None:
    """Curate each workload and fail if two of its sides come near each other."""
    near = 0
    for path in sorted(folder.glob("telemetry_*.jsonl.gz")):
        with (
            tempfile.TemporaryDirectory() as made,
            warehouse.connect(Path(made) / "w.duckdb") as con,
        ):
            logs.load(con, path, now=NOW)
            sql = "select distinct workload_id from raw.interactions order by all"
            for row in warehouse.rows(con, sql):
                near += prove(con, str(row["workload_id"]))
    typer.echo(f"{near} pairs of a Jaccard of {LEAST} or more on two sides")
    sys.exit(bool(near))


if __name__ == "__main__":
    typer.run(main)
