"""The scorecard: one model's scores on one task, aggregated and per sample.

The gate, the approval form and the registry read it. On disk it is a folder: ``scorecard.json``,
``samples.parquet`` and the manifest, which is written last. A score that was not measured is
``None``, never zero.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import TypeAdapter

from components.schema import Json
from components.store import manifest, parquet_files
from components.store.manifest import ScorecardManifest

AGGREGATES = "scorecard.json"
SAMPLES = "samples.parquet"
VERDICTS_FILE = "verdicts.jsonl"  # a judge's cached verdicts, beside a workload's scorecards

HOLDOUT = "holdout"
"""The task of the workload's own requests; all other tasks guard existing abilities."""

VALIDATION = "validation"
"""The task of the validation side's requests, for tuning: scored like the holdout. No gate reads
it, and looks at it are free."""

MeasuredSide: TypeAlias = Literal["holdout", "validation"]
"""The sides of a snapshot that models are measured on; each is a separate task."""

ScorecardFolders: TypeAlias = dict[str, dict[str, Path]]
"""Scorecard folders by model, and then by task."""

PRODUCTION = "production"  # the model whose answers are in the logs, where they could be scored

BASE, CHALLENGER, CHAMPION = "base", "challenger", "champion"  # what is measured of a turn

FEW_SHOT = "few-shot"  # the base with few-shot examples in its prompt

NORMAL_97_5 = 1.959963984540054  # the 97.5 % point of the normal distribution

CONSTANT, NEAREST, TFIDF = "constant", "nearest", "tf-idf"

BASELINES: Mapping[str, str] = {
    CONSTANT: "a constant answer",
    NEAREST: "the answer to the most similar training request",
    TFIDF: "TF-IDF with logistic regression",
}
"""Baselines without a language model, in plain words: the most frequent training answer, the answer
of the nearest training request, and for labels a linear classifier."""

UNTRAINED: Mapping[str, str] = {
    **BASELINES,
    FEW_SHOT: "the base with solved examples in its prompt",
}
"""What an adapter must beat to be worth its training, in display order."""

WHOLE_ANSWER = ("name_and_arguments", "correct", "label", "exact")
"""The metrics of the holdout that count an answer only if all of it is correct."""

CORRECTED_ONLY = "corrected_only"
"""Among production's conditions: whether only corrected answers are scored, which is not
representative of the other requests."""

SCORED_ON = "scored_on"
"""Among production's conditions: which requests are scored, and why, in plain words."""

WINDOW = "window"
"""The key in a scorecard's manifest of the number of prompts that exceed the model's window."""

CONSTRAINED = "constrained"
"""Among a task's conditions: the grammar that generated answers were kept within; absent if they
were free. In a scorecard's manifest: the counts of its ``ConstrainedAnswers``."""

LARGEST_CLUSTER = "largest_cluster"
"""Among the holdout's conditions: the size of the workload's largest cluster, on all sides, if the
snapshot records it. It bounds the size of every cluster, whichever rows were drawn."""

CLUSTER_CAP = "holdout_per_cluster"
"""Among the holdout's conditions, where the workload sets it: the maximum number of tested requests
per cluster. Scores are then means over those."""


RESCORED = "rescored"
"""Among a task's conditions, where a model computes in 16 bits: the version of how it was asked a
second time, in other batches. There an answer depends on the requests beside it in its batch."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric's meaning in plain words, and its direction.

    ``doubt`` is why it is not evidence; such a metric is only shown, and decides nothing.
    """

    meaning: str
    higher_is_better: bool = True
    doubt: str | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """The mean of a metric over ``n`` measured requests.

    ``stderr`` is the standard error of the mean between ``clusters`` of dependent requests;
    ``clusters`` is ``None`` in older scorecards.
    """

    value: float | None
    stderr: float | None
    n: int
    clusters: int | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """A request of a task with the model's answer and its score by each metric.

    ``doc_hash`` covers the request with its reference, ``prompt_hash`` the exact prompt text: two
    models may be compared on a request only where both are equal. Samples with the same
    ``cluster_id`` are not independent (one conversation, one set of tools). ``slices`` are the
    parts of the traffic that a request belongs to by name, such as its client. ``rescored`` are the
    scores of the model's second answer, in other batches (``RESCORED``); empty without one.
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
    rescored: dict[str, float | None] = field(default_factory=dict[str, float | None])


@dataclass(frozen=True, slots=True)
class Window:
    """How many ``prompts`` exceeded the ``room`` of tokens in the model's window.

    The model read only the end of the ``truncated`` ones. ``unreachable`` counts the requests whose
    right answer has more than ``max_new_tokens`` tokens; older scorecards have neither.
    """

    prompts: int
    truncated: int
    room: int
    unreachable: int = 0
    max_new_tokens: int = 0

    @property
    def sentences(self) -> list[str]:
        """The warnings, if any prompt was truncated or any right answer is too long."""
        cut = (
            f"{self._counted(self.truncated, 'prompts')} are longer than the {self.room:,} tokens "
            "that the model's window leaves next to an answer: their beginning was cut off, so "
            "their scores say little"
        )
        unreachable = (
            f"{self._counted(self.unreachable, 'right answers')} are longer than the "
            f"{self.max_new_tokens:,} tokens of evaluate.max_new_tokens, at which every model's "
            "answer is cut off: their scores say little, and costs are too low"
        )
        return [*[cut] * bool(self.truncated), *[unreachable] * bool(self.unreachable)]

    def _counted(self, count: int, what: str) -> str:
        return f"{count:,} of {self.prompts:,} {what} ({count / self.prompts:.1%})"


@dataclass(frozen=True, slots=True)
class ConstrainedAnswers:
    """How many answers were kept within the grammar of their requests' tools, or of the labels.

    ``free`` counts the others by reason. Of the ``calls`` in all answers, ``fitting`` are of an
    offered tool, with arguments that its JSON Schema allows.
    """

    answers: int
    free: dict[str, int]
    calls: int
    fitting: int

    @property
    def sentences(self) -> list[str]:
        """The warning, if any answer was free."""
        if not self.free:
            return []
        reasons = "; ".join(f"{reason} ({count})" for reason, count in sorted(self.free.items()))
        return [
            f"{sum(self.free.values()):,} answers were not kept within the tools that their "
            f"requests offer: {reasons}"
        ]


@dataclass(frozen=True, slots=True)
class Scorecard:
    """One model's scores on one task, with their conditions.

    ``metrics`` describes the ``scores``, in display order. Two scorecards are comparable only when
    their ``conditions`` are equal: task and its version, holdout version, prompt format, precision,
    device, settings and library versions. ``adapter`` is the adapter's key, ``None`` for the base
    alone and ``PRODUCTION`` for the logged answers. ``window`` is ``None`` where no prompt was
    read, and in older scorecards. ``constrained`` is ``None`` where answers were free. ``asked`` is
    how often each request of the holdout was asked in the logs, by ``example_id``: it belongs to
    the snapshot, so it is not stored with the scores; empty if unknown.
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
    constrained: ConstrainedAnswers | None = None
    asked: Mapping[str, int] = field(default_factory=dict[str, int])

    def measured(self, metric: str) -> dict[str, float]:
        """Return the scores of the requests that a metric was measured on, by ``doc_hash``."""
        scores = ((sample.doc_hash, sample.scores.get(metric)) for sample in self.samples)
        return {doc_hash: score for doc_hash, score in scores if score is not None}


@dataclass(frozen=True, slots=True)
class Difference:
    """A request that two models answered differently."""

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


def scores_digest(cards: Iterable[Scorecard]) -> str:
    """Digest each request's scores, which may differ if the same is measured again, and traffic."""
    return manifest.digest(
        [
            [
                card.key,
                [[s.doc_hash, s.scores, s.rescored] for s in card.samples],
                *([sorted(card.asked.items())] if card.asked else []),
            ]
            for card in cards
        ]
    )


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
        folder: The scorecard's folder; its name is the scorecard's key.
        samples: One per request of the task.
        metrics: The task's metrics.
        body: ``base``, ``adapter``, ``task`` and ``conditions``, and the ``window`` where prompts
            were counted.
        now: The time (UTC).
    """
    rows = sorted(samples, key=lambda sample: sample.doc_id)
    scores = {metric: asdict(score) for metric, score in aggregate(rows, metrics).items()}
    meanings = {name: asdict(metric) for name, metric in metrics.items()}
    folder.mkdir(parents=True, exist_ok=True)
    _write_samples(rows, folder / SAMPLES)
    record = {"metrics": meanings, "scores": scores}
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    manifest.write_atomically(folder / AGGREGATES, text)
    manifest.write(folder, kind="scorecard", now=now, body=body)


def _write_samples(samples: list[Sample], path: Path) -> None:
    import pyarrow as pa  # noqa: PLC0415 - settings name scorecards, and load no pyarrow
    import pyarrow.parquet as pq  # noqa: PLC0415 - as above

    texts = ("doc_id", "example_id", "cluster_id", "doc_hash", "prompt_hash", "request", "prompt")
    types = {
        **dict.fromkeys((*texts, "output", "reference"), pa.string()),
        "doc_id": pa.int64(),
        "scores": pa.map_(pa.string(), pa.float64()),
        "slices": pa.map_(pa.string(), pa.string()),
    }
    if any(sample.rescored for sample in samples):
        types[RESCORED] = types["scores"]
    maps = [name for name in ("scores", "slices", RESCORED) if name in types]
    rows = [{**asdict(s), **{name: [*getattr(s, name).items()] for name in maps}} for s in samples]
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema([*types.items()])), path)


class DamagedScorecardError(ValueError):
    """A scorecard's files are not those that were finished."""


def read(folder: Path) -> Scorecard:
    """Read a finished scorecard.

    Raises:
        FileNotFoundError: It is unfinished.
        DamagedScorecardError: A file was changed after the scorecard was finished, or is gone.
    """
    try:
        record = ScorecardManifest.read_untouched(folder)
    except (ValueError, TypeError, OSError) as error:
        if not (folder / manifest.NAME).exists():
            raise
        raise DamagedScorecardError(
            f"{error}; delete {folder}, and the next turn measures it again"
        ) from error
    aggregates = json.loads((folder / AGGREGATES).read_text())
    return Scorecard(
        key=record.key,
        base=record.base,
        adapter=record.adapter,
        task=record.task,
        metrics={name: Metric(**metric) for name, metric in aggregates["metrics"].items()},
        conditions={**record.conditions},
        scores={metric: Score(**score) for metric, score in aggregates["scores"].items()},
        samples=tuple(map(_sample, parquet_files.rows(folder / SAMPLES))),
        window=Window(**record.window) if record.window else None,
        constrained=_CONSTRAINED.validate_python(record.constrained),
    )


_CONSTRAINED = TypeAdapter[ConstrainedAnswers | None](ConstrainedAnswers | None)


def _sample(row: dict[str, object]) -> Sample:
    names = [name for name in ("scores", "slices", RESCORED) if name in row]
    maps = {name: dict(row.pop(name)) for name in names}  # pyright: ignore[reportArgumentType, reportCallIssue] - our own schema
    return Sample(**row, **maps)  # pyright: ignore[reportArgumentType] - as above


def share_interval(card: Scorecard, metric: str) -> tuple[float, float] | None:
    """Return the 95 % interval of a score; ``None`` if it is not measured or has no error.

    Wilson's (1927) for binary scores, else the mean plus or minus its standard errors. Requests in
    clusters have the standard error between clusters: binary ones count as so many independent
    requests as would have it. Either is widened by Student's t for (clusters - 1) degrees of
    freedom (as Korn and Graubard 1998, Survey Methodology 24:193), except for independent shares.
    """
    by_cluster: dict[str, list[float]] = {}
    for sample in card.samples:
        if (value := sample.scores.get(metric)) is not None:
            by_cluster.setdefault(sample.cluster_id, []).append(value)
    score = _mean([*by_cluster.values()])
    is_binary = {value for values in by_cluster.values() for value in values} <= {0.0, 1.0}
    if score.value is None or score.clusters is None:
        return None
    if is_binary and score.clusters == score.n:
        return _wilson(score.value, score.n, NORMAL_97_5)
    if score.stderr is None:
        return None
    from scipy import special  # noqa: PLC0415 - slow to import

    quantile = float(special.stdtrit(score.clusters - 1, 0.975))
    if not is_binary:
        return score.value - quantile * score.stderr, score.value + quantile * score.stderr
    variance = score.value * (1 - score.value)
    worth = variance / score.stderr**2 if variance and score.stderr else float(score.clusters)
    return _wilson(score.value, min(worth, score.n), quantile)


def _wilson(share: float, n: float, quantile: float) -> tuple[float, float]:
    # As SciPy's binomtest(...).proportion_ci(method="wilson"), but SciPy is slow to import.
    denominator = 2 * (n + quantile**2)
    center = (2 * n * share + quantile**2) / denominator
    half = quantile / denominator * math.sqrt(4 * n * share * (1 - share) + quantile**2)
    return center - half if share > 0 else 0.0, center + half if share < 1 else 1.0
