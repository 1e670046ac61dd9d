"""A side of a snapshot as a task: rendered requests, few-shot examples, version and slices."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
import pyarrow.parquet as pq

from components.chat import chat_templates, dialects, prompt
from components.chat.chat_templates import Rendered
from components.evaluate import metrics
from components.evaluate.metrics import AnswerSpace, Kind
from components.schema import Answer, Json, Message
from components.scorecard import HOLDOUT, MeasuredSide, Window
from components.store import manifest
from components.store.manifest import SnapshotManifest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


SHOT_FILE = "train.parquet"

ROWS_AT_ONCE = 256
"""Requests whose likeness to all examples is held in memory together."""


@dataclass(frozen=True, slots=True)
class Shot:
    """A solved example; ``label`` is its class: the tools that it calls, or a short answer."""

    request: str
    messages: list[Message]
    answer: Answer
    label: str


def read_shots(snapshot: Path) -> list[Shot]:
    """Read the training side of a snapshot."""
    columns = ["messages", "prompt", "answer", "label"]
    return [_shot(row) for row in pq.read_table(snapshot / SHOT_FILE, columns=columns).to_pylist()]


def _shot(row: dict[str, object]) -> Shot:
    return Shot(
        request=request_text(json.loads(str(row["messages"]))),
        messages=cast("list[Message]", row["prompt"]),
        answer=Answer.from_json(str(row["answer"])),
        label=str(row["label"]),
    )


def request_text(messages: Sequence[dict[str, Json]]) -> str:
    """Give what likeness is measured on: all that was said but for the application's own words."""
    return "\n".join(prompt.text_of(one) for one in messages if not prompt.is_system(one))


def choose_shots(requests: Sequence[str], shots: Sequence[Shot], count: int) -> list[list[Shot]]:
    """Choose up to ``count`` examples for each request, the nearest one last.

    Near is the cosine of TF-IDF vectors (Salton and Buckley 1988, with logarithmic term counts) of
    the words; of equally near ones the first.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415 - seconds

    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    known = vectorizer.fit_transform([shot.request for shot in shots])
    labels = [shot.label for shot in shots]
    chosen: list[list[Shot]] = []
    for first in range(0, len(requests), ROWS_AT_ONCE):
        wanted = vectorizer.transform(requests[first : first + ROWS_AT_ONCE])
        for likeness in (wanted @ known.T).toarray():
            nearest = np.argsort(-likeness, kind="stable").tolist()
            chosen.append([shots[at] for at in reversed(pick_shots(nearest, labels, count))])
    return chosen


def pick_shots(nearest: Sequence[int], labels: Sequence[str], count: int) -> list[int]:
    """Take the nearest of each class, the nearest class first, and then the nearest of the rest."""
    by_class: dict[str, int] = {}
    for at in nearest:
        by_class.setdefault(labels[at], at)
    taken = set(list(by_class.values())[:count])
    for at in nearest:
        if len(taken) >= count:
            break
        taken.add(at)
    return [at for at in nearest if at in taken]


def prepend_shots(
    request: Rendered, shots: Sequence[Shot], tokenizer: "PreTrainedTokenizerBase", room: int
) -> Rendered:
    """Put examples before a request as turns of its conversation, after the system's message.

    Args:
        request: As it is asked without them.
        shots: The nearest last; the farthest are left out where all don't fit.
        tokenizer: The base's.
        room: Tokens that the prompt may have.
    """
    head = [one for one in request.messages[:1] if one["role"] == "system"]
    rest = request.messages[len(head) :]
    for first in range(len(shots)):
        turns = [turn for shot in shots[first:] for turn in _shot_turns(shot, request)]
        longer = replace(request, messages=[*head, *turns, *rest])
        if len(tokenizer(longer.to_text(tokenizer))["input_ids"]) <= room:  # pyright: ignore[reportArgumentType]
            return longer
    return request


def _shot_turns(shot: Shot, request: Rendered) -> list[Message]:
    said = "\n\n".join(message["content"] for message in shot.messages)
    return [
        {"role": "user", "content": said},
        {"role": "assistant", "content": dialects.write_answer(request.form, shot.answer)},
    ]


Document: TypeAlias = dict[str, str]
"""One request: ``example_id cluster_id client_id language length request prompt form tools
reference answer acceptable``, all text.

``language`` is empty in snapshots that keep none. ``form`` is the one that calls have; ``tools``,
``answer`` and ``acceptable`` stay JSON text, since Arrow would merge their nested types.
"""

HOLDOUT_FILE = "holdout.parquet"

TRAIN_FILE = "train.parquet"

NO_CALL = "no call"
"""The slice ``tool`` of requests that are rightly answered without a call."""

SLICES = {"client": "client_id", "language": "language", "length": "length"}
"""Where a request has its slices."""

UNTOLD = "not told"
"""The slice ``language`` of requests that are too short or too mixed to tell it."""

LENGTHS = ("short", "middle", "long")
"""The slices of a third each, by how long the prompt is."""

VERSION = manifest.version(1, first="b99a5ca16dcb3341")
"""The version of how the holdout is asked and scored: raise the number when
``tests/golden/scoring.json`` changes. Scores of two versions are not comparable."""


@dataclass(frozen=True, slots=True)
class EvaluatedSide:
    """A side of a snapshot under the name and version that its task has."""

    name: str
    version: str
    answers: AnswerSpace
    documents: tuple[Document, ...]


def task_name(workload: str, side: MeasuredSide = HOLDOUT) -> str:
    """Name the task of a workload's side."""
    return f"{side}_{workload}"


def side_version(record: SnapshotManifest, side: MeasuredSide = HOLDOUT) -> str:
    """Return the version of a side: the holdout's own, else the digest of the side's file.

    Args:
        record: The snapshot's manifest.
        side: The side.
    """
    if side == HOLDOUT:
        return record.holdout_version
    return f"{side}-{record.files[f'{side}.parquet'][:16]}"


def answer_space_of(snapshot: Path, named: Kind | None) -> AnswerSpace:
    """Find what a snapshot's answers are, learned and held out; see ``kinds.find``."""
    answers: list[Answer] = []
    offers_tools = False
    for file in (TRAIN_FILE, HOLDOUT_FILE):
        columns = pq.read_table(snapshot / file, columns=["answer", "tools"])
        answers += [Answer.from_json(str(one)) for one in columns["answer"].to_pylist()]
        offered = {str(one) for one in columns["tools"].to_pylist()}
        offers_tools |= any(json.loads(one) for one in offered)
    return metrics.find_answer_space(answers, named, offers_tools=offers_tools)


def abstains(snapshot: Path) -> bool:
    """Tell whether any held-out request is rightly answered without a call."""
    answers = pq.read_table(snapshot / HOLDOUT_FILE, columns=["answer"])["answer"].to_pylist()
    return any(not Answer.from_json(str(one)).calls for one in answers)


def read_side(
    snapshot: Path,
    tokenizer: "PreTrainedTokenizerBase",
    named: Kind | None,
    *,
    side: MeasuredSide = HOLDOUT,
    num_fewshot: int = 0,
    room: int = sys.maxsize,
) -> EvaluatedSide:
    """Read a side of a snapshot, each request as the exact text that the model will read.

    Args:
        snapshot: A finished snapshot folder.
        tokenizer: The base's.
        named: What the workload's file says that the answers are, if it does.
        side: The side that is asked.
        num_fewshot: How many solved examples of the training side stand before each request.
        room: Tokens that a prompt with examples may have.

    Raises:
        ValueError: The side is empty, so that nothing could be measured.
    """
    record = SnapshotManifest.read(snapshot)
    columns = ["example_id", "group", "client_id", "prompt", "messages", "tools", "answer"]
    columns += ["language"] if keeps_language(snapshot) else []
    file = snapshot / f"{side}.parquet"
    columns = with_clusters(file, [*columns, "acceptable"])
    rows = pq.read_table(file, columns=columns).to_pylist()
    if not rows:
        raise ValueError(
            f"evaluating on {snapshot}: its {side} side is empty, so nothing is measured; a larger "
            f"{side}_share under curate draws more rows, as they arrive"
        )
    asked = [_render(row, tokenizer) for row in rows]
    lengths = _thirds([len(one.to_text(tokenizer)) for one in asked])
    if num_fewshot:
        requests = [request_text(json.loads(str(row["messages"]))) for row in rows]
        chosen = choose_shots(requests, read_shots(snapshot), num_fewshot)
        asked = [
            prepend_shots(one, shown, tokenizer, room)
            for one, shown in zip(asked, chosen, strict=True)
        ]
    documents = [
        _make_document(row, one, tokenizer) | {"length": length}
        for row, one, length in zip(rows, asked, lengths, strict=True)
    ]
    return EvaluatedSide(
        name=task_name(record.workload, side),
        version=side_version(record, side),
        answers=answer_space_of(snapshot, named),
        documents=tuple(documents),
    )


def count_too_long(
    holdout: EvaluatedSide, tokenizer: "PreTrainedTokenizerBase", room: int
) -> Window:
    """Count the prompts of a side that have more tokens than there is ``room`` for."""
    prompts = [document["prompt"] for document in holdout.documents]
    lengths = map(len, tokenizer(prompts, add_special_tokens=False)["input_ids"])  # pyright: ignore[reportArgumentType] - lists of ids
    return Window(len(prompts), sum(length > room for length in lengths), room)


def count_measured(snapshot: Path, kind: Kind, metric: str, side: MeasuredSide) -> int:
    """Count the requests of a side that a metric of its kind is measured on."""
    answers = pq.read_table(snapshot / f"{side}.parquet", columns=["answer"])["answer"].to_pylist()
    return sum(metrics.is_measured(kind, metric, Answer.from_json(str(one))) for one in answers)


def keeps_language(snapshot: Path) -> bool:
    """Tell whether a snapshot says what languages its requests are in; older ones don't."""
    return "language" in pq.read_schema(snapshot / HOLDOUT_FILE).names


def with_clusters(file: Path, columns: Sequence[str]) -> list[str]:
    """Add the column of clusters to those to read; snapshots that are older have groups only."""
    return [*columns, *(["cluster"] if "cluster" in pq.read_schema(file).names else [])]


def clusters_digest(snapshot: Path, side: MeasuredSide = HOLDOUT) -> str | None:
    """Hash which requests of a side form a cluster; ``None`` if the snapshot is older than that."""
    file = snapshot / f"{side}.parquet"
    if "cluster" not in pq.read_schema(file).names:
        return None
    rows = pq.read_table(file, columns=["example_id", "cluster"]).to_pylist()
    return manifest.digest(sorted([row["example_id"], row["cluster"]] for row in rows))


def cluster_of(row: Mapping[str, object]) -> str:
    """Return the cluster of a row; its group where the snapshot is older than clusters."""
    return str(row["cluster"] if "cluster" in row else row["group"])


def language_of(row: Mapping[str, object]) -> str:
    """Give the slice ``language`` of a row; empty where the snapshot keeps none."""
    return str(row["language"] or UNTOLD) if "language" in row else ""


def _render(row: Mapping[str, object], tokenizer: "PreTrainedTokenizerBase") -> Rendered:
    messages, tools = json.loads(str(row["messages"])), json.loads(str(row["tools"]))
    return chat_templates.render(tokenizer, messages, tools)


def _make_document(
    row: Mapping[str, object], asked: Rendered, tokenizer: "PreTrainedTokenizerBase"
) -> Document:
    written = cast("list[Message]", row["prompt"])
    answer = str(row["answer"])
    return {
        "example_id": str(row["example_id"]),
        "cluster_id": cluster_of(row),
        "client_id": str(row["client_id"]),
        "language": language_of(row),
        "request": next((m["content"] for m in reversed(written) if m["role"] == "user"), ""),
        "prompt": asked.to_text(tokenizer),
        "form": asked.form,
        "tools": str(row["tools"]),
        "reference": prompt.render_answer(Answer.from_json(answer)),
        "answer": answer,
        "acceptable": str(row["acceptable"] or "null"),
    }


def _thirds(lengths: Sequence[int]) -> list[str]:
    """Say of each length in which third of all it is."""
    ordered = sorted(lengths)
    bounds = [ordered[len(ordered) * third // 3] for third in (1, 2)]
    return [LENGTHS[sum(length >= bound for bound in bounds)] for length in lengths]


def slices_of(document: Document, kind: Kind) -> dict[str, str]:
    """Say which part of the traffic a request belongs to: what it wants called, who sent it."""
    parts = {name: document[key] for name, key in SLICES.items() if document[key]}
    if kind != "tool_calls":
        return parts
    names = sorted({call.name for call in Answer.from_json(document["answer"]).calls})
    return {"tool": ", ".join(names) or NO_CALL, **parts}
