"""The scorecard: what an evaluation measured of one model on one task, in sum and in every sample.

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
from typing import Literal, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from components.schema import Json
from components.store import manifest
from components.store.manifest import ScorecardManifest

AGGREGATES = "scorecard.json"
SAMPLES = "samples.parquet"

HOLDOUT = "holdout"
"""The task that is the workload's own requests; every other guards what was able before."""

VALIDATION = "validation"
"""The task that is the requests of the validation side: asked and scored as the holdout is, to tune
on. No gate reads it, and looks at it are free."""

MeasuredSide: TypeAlias = Literal["holdout", "validation"]
"""The sides of a snapshot that models are measured on; each is a task of its own."""

PRODUCTION = "production"
"""The model whose answers are in the logs, where its answers could be scored."""

FEW_SHOT = "few-shot"
"""The model that is the base with solved examples in its prompt."""

CONSTANT, NEAREST, TFIDF = "constant", "nearest", "tf-idf"

BASELINES: Mapping[str, str] = {
    CONSTANT: "a constant answer",
    NEAREST: "the answer to the most similar training request",
    TFIDF: "TF-IDF with logistic regression",
}
"""What needs no language model, in a reader's words: the most frequent training answer to every
request, copying the answer of the nearest one, and for labels a linear classifier."""

UNTRAINED: Mapping[str, str] = {
    **BASELINES,
    FEW_SHOT: "the base with solved examples in its prompt",
}
"""What an adapter has to beat to be worth a training, in the order in which it is shown."""

WHOLE_ANSWER = ("name_and_arguments", "correct", "label", "exact")
"""The metrics of the holdout that count an answer only if all of it is right."""

CORRECTED_ONLY = "corrected_only"
"""Among production's conditions: whether it is scored only where somebody corrected it, which says
nothing of the other requests."""

SCORED_ON = "scored_on"
"""Among production's conditions: on which requests it is scored, and why, in a reader's words."""


WINDOW = "window"
"""Where a scorecard's manifest says how many prompts the model's window was too short for."""

LARGEST_CLUSTER = "largest_cluster"
"""Among the holdout's conditions: the most requests of its workload, on all sides, that hang
together, where the snapshot says so. No cluster is taken to be larger, whichever were drawn."""

CLUSTER_CAP = "holdout_per_cluster"
"""Among the holdout's conditions, where the workload sets it: the most requests of a cluster that
are tested on, however many it has. Scores are then means over those."""


@dataclass(frozen=True, slots=True)
class Metric:
    """What a metric is the mean of, in a reader's words, and which way is better.

    ``doubt`` says why it is no evidence, so that it is shown and nothing is decided by it.
    """

    meaning: str
    higher_is_better: bool = True
    doubt: str | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """The mean of one metric over the ``n`` requests that it was measured on.

    ``stderr`` is that of the mean of so many ``clusters`` of requests that are not independent of
    each other; ``clusters`` is ``None`` where an older scorecard does not say.
    """

    value: float | None
    stderr: float | None
    n: int
    clusters: int | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One request of a task with what the model answered and how each metric scored it.

    ``doc_hash`` is of the request with its reference, ``prompt_hash`` of the exact prompt text:
    two models may be compared on a request only where both are equal. Samples of one ``cluster_id``
    are not independent of each other (one conversation, one set of tools). ``slices`` says by
    name which part of the traffic a request belongs to, such as its client.
    """

    doc_id: int
    example_id: str
    cluster_id: str
    doc_hash: str
    prompt_hash: str
    request: str
    prompt: str
    output: str
    reference: str
    scores: dict[str, float | None]
    slices: dict[str, str]


@dataclass(frozen=True, slots=True)
class Window:
    """How many of the ``prompts`` had more than the ``room`` tokens that the model's window leaves.

    Of those ``truncated`` ones the model read the end only.
    """

    prompts: int
    truncated: int
    room: int

    @property
    def sentences(self) -> list[str]:
        """Say it where any was truncated."""
        if not self.truncated:
            return []
        return [
            f"{self.truncated:,} of {self.prompts:,} prompts ({self.truncated / self.prompts:.1%}) "
            f"are longer than the {self.room:,} tokens that the model's window leaves beside an "
            "answer: their beginning was cut off, so their scores say little"
        ]


@dataclass(frozen=True, slots=True)
class Scorecard:
    """What one model scored on one task, under which conditions.

    ``metrics`` says what each of the ``scores`` is, in the order that readers show them. Two
    scorecards are comparable only when their ``conditions`` are equal: task and its version,
    holdout version, prompt format, precision, device, settings and library versions. ``adapter``
    is the adapter's key, ``None`` for the base alone and ``PRODUCTION`` for the logged answers.
    ``window`` is ``None`` where no prompt was read, and in older scorecards.
    """

    key: str
    base: str
    adapter: str | None
    task: str
    metrics: dict[str, Metric]
    conditions: dict[str, Json]
    scores: dict[str, Score]
    samples: tuple[Sample, ...]
    window: Window | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """One request that two models answered differently."""

    challenger: Sample
    opponent: Sample


def aggregate(samples: Iterable[Sample], metrics: Iterable[str]) -> dict[str, Score]:
    """Return each metric's mean and standard error over the samples that measured it."""
    columns: dict[str, dict[str, list[float]]] = {metric: {} for metric in metrics}
    for sample in samples:
        for metric, value in sample.scores.items():
            if value is not None:
                columns[metric].setdefault(sample.cluster_id, []).append(value)
    return {metric: _mean([*values.values()]) for metric, values in columns.items()}


def _mean(clusters: list[list[float]]) -> Score:
    """Return the mean, and its standard error between clusters (Liang and Zeger 1986)."""
    n, m = sum(map(len, clusters)), len(clusters)
    if n == 0:
        return Score(None, None, 0, 0)
    mean = math.fsum(value for values in clusters for value in values) / n
    if m == 1:
        return Score(mean, None, n, 1)
    spread = math.fsum(math.fsum(value - mean for value in values) ** 2 for values in clusters)
    return Score(mean, math.sqrt(spread * m / (m - 1)) / n, n, m)


def write(
    folder: Path,
    samples: Iterable[Sample],
    metrics: Mapping[str, Metric],
    *,
    body: Mapping[str, object],
    now: datetime,
) -> None:
    """Write a model's samples and their aggregates, then the manifest with ``body``.

    Args:
        folder: Where the scorecard goes; its name is the scorecard's key.
        samples: One per request of the task.
        metrics: Those of the task.
        body: What was measured: ``base``, ``adapter``, ``task`` and ``conditions``, and the
            ``window`` where prompts were counted.
        now: When it was finished (UTC).
    """
    rows = sorted(samples, key=lambda sample: sample.doc_id)
    scores = {metric: asdict(score) for metric, score in aggregate(rows, metrics).items()}
    meanings = {name: asdict(metric) for name, metric in metrics.items()}
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(_table(rows), folder / SAMPLES)
    told = {"metrics": meanings, "scores": scores}
    text = json.dumps(told, indent=2, allow_nan=False) + "\n"
    manifest.write_atomically(folder / AGGREGATES, text)
    manifest.write(folder, kind="scorecard", now=now, body=body)


def _table(samples: list[Sample]) -> "pa.Table":  # pyright: ignore[reportUnknownParameterType]
    rows = [
        {**asdict(one), "scores": [*one.scores.items()], "slices": [*one.slices.items()]}
        for one in samples
    ]
    return pa.Table.from_pylist(rows, schema=_SCHEMA)


def read(folder: Path) -> Scorecard:
    """Read a finished scorecard.

    Raises:
        FileNotFoundError: It is unfinished.
        ValueError: A file is not the one that the manifest names, so the figures can't be trusted.
    """
    record = ScorecardManifest.read_untouched(folder)
    told = json.loads((folder / AGGREGATES).read_text())
    return Scorecard(
        key=record.key,
        base=record.base,
        adapter=record.adapter,
        task=record.task,
        metrics={name: Metric(**metric) for name, metric in told["metrics"].items()},
        conditions={**record.conditions},
        scores={metric: Score(**score) for metric, score in told["scores"].items()},
        samples=tuple(_sample(row) for row in pq.read_table(folder / SAMPLES).to_pylist()),
        window=Window(**record.window) if record.window else None,
    )


def _sample(row: dict[str, object]) -> Sample:
    maps = {name: dict(row.pop(name)) for name in ("scores", "slices")}  # pyright: ignore[reportArgumentType, reportCallIssue] - our own schema
    return Sample(**row, **maps)  # pyright: ignore[reportArgumentType] - as above


_SCHEMA = pa.schema(
    [
        ("doc_id", pa.int64()),
        ("example_id", pa.string()),
        ("cluster_id", pa.string()),
        ("doc_hash", pa.string()),
        ("prompt_hash", pa.string()),
        ("request", pa.string()),
        ("prompt", pa.string()),
        ("output", pa.string()),
        ("reference", pa.string()),
        ("scores", pa.map_(pa.string(), pa.float64())),
        ("slices", pa.map_(pa.string(), pa.string())),
    ]
)
