"""The scorecard: what an evaluation measured for one model, as aggregates and as every sample.

It crosses from the evaluation to the gate, to the approval form and to the registry. On disk it is
a folder: ``scorecard.json``, ``samples.parquet`` and the manifest, which is written last. A score
is ``None`` where it was not measured; it is never zero for that reason.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components import manifest
from components.schema import Json

AGGREGATES = "scorecard.json"
SAMPLES = "samples.parquet"

METRICS = {
    "valid_json": "of the requests that call for a tool: the answer is calls, as valid JSON",
    "name": "of those: the right function by name",
    "name_and_arguments": "of those: the right function and every argument right",
    "abstention": "of the requests that no tool fits: the answer is text and calls nothing",
    "correct_name": "of all requests: right by name, or rightly no call",
    "correct": "of all requests: the whole call right, or rightly no call",
}
"""Every metric with what it is the share of; each is 0 or 1 on one request."""


@dataclass(frozen=True, slots=True)
class Score:
    """The mean of one metric over the ``n`` requests that it was measured on."""

    value: float | None
    stderr: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One holdout request with what the model answered and how each metric scored it.

    ``doc_hash`` is of the request with its reference, ``prompt_hash`` of the exact prompt text:
    two models may be compared on a request only where both are equal.
    """

    doc_id: int
    example_id: str
    doc_hash: str
    prompt_hash: str
    request: str
    prompt: str
    output: str
    reference: str
    scores: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Scorecard:
    """What one model scored, under which conditions.

    Two scorecards are comparable only when their ``conditions`` are equal: task and its version,
    holdout version, prompt format, precision, device, settings and library versions. ``adapter``
    is the adapter's key, ``None`` for the base alone.
    """

    key: str
    base: str
    adapter: str | None
    conditions: dict[str, Json]
    scores: dict[str, Score]
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """One request that two models answered differently."""

    challenger: Sample
    opponent: Sample


def aggregate(samples: Iterable[Sample]) -> dict[str, Score]:
    """Take each metric's mean and standard error over the samples that measured it."""
    columns: dict[str, list[float]] = {metric: [] for metric in METRICS}
    for sample in samples:
        for metric, value in sample.scores.items():
            if value is not None:
                columns[metric].append(value)
    return {metric: _mean(values) for metric, values in columns.items()}


def _mean(values: list[float]) -> Score:
    n = len(values)
    if n == 0:
        return Score(None, None, 0)
    mean = math.fsum(values) / n
    if n == 1:
        return Score(mean, None, 1)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    return Score(mean, math.sqrt(variance / n), n)


def write(
    folder: Path, samples: Iterable[Sample], *, body: Mapping[str, object], now: datetime
) -> None:
    """Write a model's samples and their aggregates, then the manifest with ``body``.

    Args:
        folder: Where the scorecard goes; its name is the scorecard's key.
        samples: One per request of the holdout.
        body: What was measured: ``base``, ``adapter`` and ``conditions``.
        now: When it was finished (UTC).
    """
    rows = sorted(samples, key=lambda sample: sample.doc_id)
    scores = {metric: asdict(score) for metric, score in aggregate(rows).items()}
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(_table(rows), folder / SAMPLES)
    text = json.dumps({"scores": scores}, indent=2, allow_nan=False) + "\n"
    manifest.write_atomically(folder / AGGREGATES, text)
    manifest.write(folder, kind="scorecard", now=now, body=body)


def _table(samples: list[Sample]) -> "pa.Table":  # pyright: ignore[reportUnknownParameterType]
    fields = ("example_id", "doc_hash", "prompt_hash", "request", "prompt", "output", "reference")
    schema = pa.schema(
        [("doc_id", pa.int64())]
        + [(name, pa.string()) for name in fields]
        + [(metric, pa.float64()) for metric in METRICS]
    )
    rows = [{**asdict(sample), **sample.scores} for sample in samples]
    return pa.Table.from_pylist(rows, schema=schema)


def read(folder: Path) -> Scorecard:
    """Read a finished scorecard.

    Raises:
        FileNotFoundError: It is unfinished.
        ValueError: A file is not the one that the manifest names, so the figures can't be trusted.
    """
    record = manifest.read_untouched(folder)
    aggregates = json.loads((folder / AGGREGATES).read_text())["scores"]
    return Scorecard(
        key=str(record["key"]),
        base=str(record["base"]),
        adapter=None if record["adapter"] is None else str(record["adapter"]),
        conditions=dict(_mapping(record["conditions"])),
        scores={metric: Score(**score) for metric, score in aggregates.items()},
        samples=tuple(_sample(row) for row in pq.read_table(folder / SAMPLES).to_pylist()),
    )


def _sample(row: dict[str, object]) -> Sample:
    scores = {metric: row.pop(metric) for metric in METRICS}
    return Sample(**row, scores=scores)  # pyright: ignore[reportArgumentType] - our own schema


def _mapping(value: Json) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise TypeError(f"a scorecard's manifest holds {value!r} where a mapping belongs")
    return value


def differing(
    challenger: Scorecard, opponent: Scorecard, count: int = 5, metric: str = "correct_name"
) -> tuple[Difference, ...]:
    """Pick up to ``count`` requests that only one of the two models got right.

    Requests that the challenger lost come first, then won, by turns: whoever approves should see
    both. The order is by document hash, so that it is the same each time and favours nobody.
    """
    others = {sample.doc_hash: sample for sample in opponent.samples}
    pairs = sorted(
        (
            Difference(sample, others[sample.doc_hash])
            for sample in challenger.samples
            if sample.doc_hash in others
            and sample.scores[metric] != others[sample.doc_hash].scores[metric]
        ),
        key=lambda pair: pair.challenger.doc_hash,
    )
    lost = [pair for pair in pairs if pair.opponent.scores[metric] == 1]
    won = [pair for pair in pairs if pair.opponent.scores[metric] != 1]
    turns = [pair for both in zip(lost, won, strict=False) for pair in both]
    shorter = min(len(lost), len(won))
    return tuple([*turns, *lost[shorter:], *won[shorter:]][:count])
