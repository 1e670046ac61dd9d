"""Print what curation makes of each shape of log; ``python -m tests.shapes``.

With ``--full`` a tiny model is trained, evaluated and judged on each shape besides, with
``--telemetry LOG`` the workload ``assistant.travel`` of CLINC150's log is curated with its template
in the system message and in the user's.
"""

import gzip
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from components.curate import curate_workload
from components.curate.curate_workload import CurationTally
from components.curate.settings import Rules
from components.schema import Json
from tests.shapes import curation, judging, log_shapes, recurring_shapes
from tests.shapes.curation import SIDES, Curated
from tests.shapes.log_shapes import OTHER_TEMPLATES, system, user
from tests.support import logs, tiny, warehouses

SHAPES = log_shapes.SHAPES | recurring_shapes.SHAPES
TRAVEL = "assistant.travel"
LARGEST = 1000
"""Shapes of more lines are not trained on."""


def main(
    only: Annotated[list[str] | None, typer.Option(help="These shapes alone.")] = None,
    seed: Annotated[int, typer.Option(help="What the logs are drawn from.")] = 0,
    full: Annotated[bool, typer.Option(help="Train, evaluate and judge, too.")] = False,
    telemetry: Annotated[Path | None, typer.Option(help="CLINC150's log.")] = None,
) -> None:
    """Print a table, and end with 1 if something does not hold."""
    if telemetry is not None:
        _print_travel(telemetry)
        return
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        base = tiny.build(folder / "base") if full else None
        with warehouses.connect(folder / "warehouse.duckdb") as con:
            typer.echo(
                "shape                     rows requests  kept  train/validation/holdout"
                "  clusters of each  largest  seconds of CPU  left out"
            )
            broken = 0
            for name in only or SHAPES:
                found = curation.curate(con, folder, SHAPES[name], seed)
                wrong = curation.problems(found)
                if base is not None and SHAPES[name].lines <= LARGEST:
                    wrong += _judged(found, base, folder)
                typer.echo(_row(name, found))
                for one in wrong:
                    typer.echo(f"    does not hold: {one}")
                broken += len(wrong)
    sys.exit(min(broken, 1))


def _judged(found: Curated, base: Path, folder: Path) -> list[str]:
    try:
        judged = judging.learn_and_judge(found, base, folder)
    except ValueError as error:
        typer.echo(f"    not trained: {error}")
        return []
    counts = [
        f"{one.n} requests in {one.clusters} clusters" for one in judged.judgement.comparisons
    ]
    typer.echo(
        f"    {judged.judgement.outcome}: {found.shape.metric} of {', '.join(counts)}; "
        f"{judged.reached.rows['too_long']} rows not learned"
    )
    return judging.problems(judged)


def _row(name: str, found: Curated) -> str:
    sides = "/".join(str(found.frozen.sides[side]) for side in SIDES)
    clusters = "/".join(str(found.frozen.clusters[side]) for side in SIDES)
    return (
        f"{name:24}{len(found.log):6} {curation.wanted(found):8}{len(found.kept):6}  {sides:>24}"
        f"  {clusters:>16}{found.frozen.largest_cluster:9}{found.seconds:16.1f}  "
        f"{_left_out(found.tally)}"
    )


def _left_out(tally: CurationTally) -> str:
    counts = [f"{count} {rule}" for rule, count in tally.counts.items() if rule != "kept"]
    return ", ".join(counts) or "nothing"


def _print_travel(telemetry: Path) -> None:
    with gzip.open(telemetry, "rt") as lines:
        records = [one for one in map(json.loads, lines) if one["workload_id"] == TRAVEL]
    typer.echo("CLINC150 travel                    rows  kept  of system  seconds of CPU  left out")
    for name, templates in {
        "its template": [""],
        "mixed templates": ["", *OTHER_TEMPLATES],
    }.items():
        kept: dict[str, int] = {}
        for place in ("system", "user"):
            began = time.process_time()
            tally = _curate([*_placed(records, templates, place)])
            kept[place] = tally.counts["kept"]
            typer.echo(
                f"{name} in the {place} message".ljust(35)
                + f"{tally.interactions:4}{kept[place]:6}{kept[place] / kept['system']:11.1%}"
                f"{time.process_time() - began:16.1f}  {_left_out(tally)}"
            )


def _placed(
    records: Sequence[dict[str, Json]], templates: Sequence[str], place: str
) -> Iterator[dict[str, Json]]:
    """Put a template, ``""`` for the one that was logged, in the system or the user's message."""
    for number, record in enumerate(records):
        request = record["request"]
        assert isinstance(request, dict)
        messages = request["messages"]
        assert isinstance(messages, list)
        texts = [str(one["content"]) for one in messages if isinstance(one, dict)]
        template = templates[number % len(templates)] or texts[0]
        under = [*system(template), *user(texts[-1])]
        asked = under if place == "system" else user(f"{template}\n{texts[-1]}")
        placed: dict[str, Json] = {**request, "messages": [*asked]}
        line: dict[str, Json] = {**record, "request": placed}
        yield line


def _curate(lines: Sequence[dict[str, Json]]) -> CurationTally:
    now = datetime.now(UTC)
    rules = Rules(split_by="conversation", validation_share=0.1)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        with warehouses.connect(folder / "warehouse.duckdb") as con:
            logs.load(con, logs.write(folder / "log.jsonl", lines), now=now)
            return curate_workload.curate(con, TRAVEL, rules, now=now)


if __name__ == "__main__":
    typer.run(main)
