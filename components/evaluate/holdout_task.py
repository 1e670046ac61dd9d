"""A snapshot's side as a task: rendered requests, few-shot examples, version and slices."""

import json
import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

from components.chat import chat_templates, dialects, prompt
from components.chat.chat_templates import Rendered
from components.chat.dialects import Dialect
from components.evaluate import metrics, text_answers
from components.evaluate.answer_space import answer_space_of
from components.evaluate.settings import Kind
from components.evaluate.task_metrics import AnswerSpace
from components.schema import Answer, Json, Message
from components.scorecard import (
    CLUSTER_CAP,
    HOLDOUT,
    LARGEST_CLUSTER,
    MeasuredSide,
    Window,
)
from components.store import manifest, parquet_files
from components.store.manifest import SnapshotManifest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


HOLDOUT_FILE, TRAIN_FILE = "holdout.parquet", "train.parquet"

RESPONSE_SCHEMA = "response_schema"
"""The column with the JSON Schema of ``response_format``, empty where a request has none; snapshots
without any have no such column."""

ROWS_AT_ONCE = 256  # requests whose similarities to all examples are in memory at once

NO_CALL = "no call"  # the slice ``tool`` of requests whose right answer has no call

SLICES = {"client": "client_id", "language": "language", "length": "length"}  # by slice, the field

UNKNOWN_LANGUAGE = "not told"
"""The slice ``language`` of requests that are too short or too mixed to detect it."""

LENGTHS = ("short", "middle", "long")
"""The slices ``length``, a third of the requests each, by the prompt's length."""

VERSION = manifest.version(2, first="b99a5ca16dcb3341")
"""The version of the holdout's prompts and scoring: raise the number when
``tests/golden/scoring.json`` changes. Scores of two versions are not comparable."""


@dataclass(frozen=True, slots=True)
class Shot:
    """A solved example; ``label`` is its class: the tools called, or a short answer."""

    request: str
    messages: list[Message]
    answer: Answer
    label: str


def _read_shots(snapshot: Path) -> list[Shot]:
    columns = ["messages", "prompt", "answer", "label"]
    return [
        Shot(
            request_text(json.loads(row["messages"])),
            row["prompt"],
            Answer.from_json(row["answer"]),
            row["label"],
        )
        for row in parquet_files.rows(snapshot / TRAIN_FILE, columns)
    ]


def request_text(messages: Sequence[dict[str, Json]]) -> str:
    """Return the text that similarity is measured on: all messages except system ones."""
    return "\n".join(
        prompt.text_of(message) for message in messages if not prompt.is_system(message)
    )


def choose_shots(requests: Sequence[str], shots: Sequence[Shot], count: int) -> list[list[Shot]]:
    """Choose up to ``count`` examples for each request, the nearest one last.

    Similarity is the cosine of TF-IDF vectors (Salton and Buckley 1988, with logarithmic term
    counts) of the words; ties go to the first example.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415 - seconds

    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    learned = [shot.request for shot in shots]
    if not any(re.search(r"\w", text) for text in learned):  # as where the system message has all
        learned = ["alike"] * len(shots)
    known = vectorizer.fit_transform(learned)
    labels = [shot.label for shot in shots]
    chosen: list[list[Shot]] = []
    for first in range(0, len(requests), ROWS_AT_ONCE):
        vectors = vectorizer.transform(requests[first : first + ROWS_AT_ONCE])
        for similarities in (vectors @ known.T).toarray():
            nearest = (-similarities).argsort(kind="stable").tolist()
            chosen.append([shots[at] for at in reversed(pick_shots(nearest, labels, count))])
    return chosen


def pick_shots(nearest: Sequence[int], labels: Sequence[str], count: int) -> list[int]:
    """Pick the nearest of each class, the nearest class first, and then the nearest of the rest."""
    by_class: dict[str, int] = {}
    for at in nearest:
        by_class.setdefault(labels[at], at)
    taken = set(list(by_class.values())[:count])
    for at in nearest:
        if len(taken) >= count:
            break
        taken.add(at)
    return [at for at in nearest if at in taken]


def _prepend_shots(
    request: Rendered, shots: Sequence[Shot], tokenizer: "PreTrainedTokenizerBase", room: int
) -> Rendered:
    # After the system message, the nearest last; the farthest are dropped if not all fit.
    head = [message for message in request.messages[:1] if message["role"] == "system"]
    rest = request.messages[len(head) :]
    for first in range(len(shots)):
        turns = [turn for shot in shots[first:] for turn in _shot_turns(shot, request)]
        longer = replace(request, messages=[*head, *turns, *rest])
        if len(tokenizer(longer.to_text(tokenizer))["input_ids"]) <= room:  # pyright: ignore[reportArgumentType]
            return longer
    return request


def _shot_turns(shot: Shot, request: Rendered) -> list[Message]:
    conversation = "\n\n".join(message["content"] for message in shot.messages)
    return [
        {"role": "user", "content": conversation},
        {"role": "assistant", "content": dialects.write_answer(request.form, shot.answer)},
    ]


Document: TypeAlias = dict[str, str]
"""One request: ``example_id cluster_id client_id language length request prompt form tools
reference answer acceptable``, all text; ``response_schema`` in snapshots with such a column.

``language`` is empty in snapshots without that column. ``form`` is the syntax of calls; ``tools``,
``answer`` and ``acceptable`` stay JSON text, since Arrow would merge their nested types.
"""


@dataclass(frozen=True, slots=True)
class EvaluatedSide:
    """A snapshot's side with its task's name and version.

    ``starts`` are the texts between prompt and answer by ``example_id``, of those that have one: an
    empty thought, which the model writes itself.
    """

    name: str
    version: str
    answers: AnswerSpace
    documents: tuple[Document, ...]
    starts: Mapping[str, str] = field(default_factory=dict[str, str])


def task_name(workload: str, side: MeasuredSide = HOLDOUT) -> str:
    """Return the name of a side's task."""
    return f"{side}_{workload}"


def side_version(record: SnapshotManifest, side: MeasuredSide = HOLDOUT) -> str:
    """Return the version of a side: the holdout's own, else the digest of the side's file."""
    if side == HOLDOUT:
        return record.holdout_version
    return f"{side}-{record.files[f'{side}.parquet'][:16]}"


def cluster_bounds(record: SnapshotManifest, side: MeasuredSide = HOLDOUT) -> dict[str, Json]:
    """Return the conditions that bound how many of a side's requests one cluster can have."""
    cap = (record.config or {}).get(CLUSTER_CAP) if side == HOLDOUT else None
    bounds: dict[str, Json] = {LARGEST_CLUSTER: record.largest_cluster, CLUSTER_CAP: cap}
    return {name: bound for name, bound in bounds.items() if bound is not None}


def _answers(file: Path) -> list[Answer]:
    return [Answer.from_json(text) for text in _column(file, "answer")]


def _column(file: Path, name: str) -> list[str]:
    return [row[name] for row in parquet_files.rows(file, [name])]


def has_thoughts(snapshot: Path, side: MeasuredSide = HOLDOUT) -> bool:
    """Return whether any right answer begins with a logged thought."""
    texts = [answer.text for answer in _answers(snapshot / f"{side}.parquet")]
    return any(dialects.without_thought(text) != text for text in texts)


def unusual_answers(snapshot: Path, kind: Kind, side: MeasuredSide = HOLDOUT) -> list[str]:
    """Name what right answers have by which they were once scored as wrong; nearly always nothing.

    It belongs to the conditions: older scores of such answers are not comparable.
    """
    rows = parquet_files.rows(snapshot / f"{side}.parquet", ["answer", "tools"])
    answers = [(Answer.from_json(row["answer"]), bool(json.loads(row["tools"]))) for row in rows]
    return sorted({name for each in answers for name in _unusual(*each, kind)})


def _unusual(answer: Answer, offers_tools: bool, kind: Kind) -> Iterable[str]:
    if not answer.to_json().isascii() and not unicodedata.is_normalized("NFC", answer.to_json()):
        yield "accents"
    if kind == "tool_calls" and "{" in answer.text:
        yield "braces"
    if kind != "tool_calls" and offers_tools:
        yield "calls"
    if not offers_tools and dialects.resembles_call(answer.text):
        yield "calls as text"
        if any(tag in answer.text for tag in dialects.TAGS):
            yield "tags as text"
    if kind == "text" and not text_answers.split_words(answer.text):
        yield "signs"


def abstains(snapshot: Path) -> bool:
    """Return whether any held-out request's right answer has no call."""
    return any(not answer.calls for answer in _answers(snapshot / HOLDOUT_FILE))


def read_side(
    snapshot: Path,
    tokenizer: "PreTrainedTokenizerBase",
    configured: Kind | None,
    *,
    side: MeasuredSide = HOLDOUT,
    num_fewshot: int = 0,
    room: int = sys.maxsize,
) -> EvaluatedSide:
    """Read a side of a snapshot with each request's exact prompt text.

    ``configured`` is the kind of answers in the workload's file, if any. ``num_fewshot`` solved
    training examples come before each request, as far as the prompt has ``room`` tokens for
    them.

    Raises:
        ValueError: The side is empty.
    """
    record = SnapshotManifest.read(snapshot)
    columns = ["example_id", "group", "client_id", "prompt", "messages", "tools", "answer"]
    columns += ["acceptable", *(["language"] if keeps_language(snapshot) else [])]
    file = snapshot / f"{side}.parquet"
    columns = with_clusters(file, columns)
    columns += [RESPONSE_SCHEMA] if has_column(file, RESPONSE_SCHEMA) else []
    rows = parquet_files.rows(file, columns)
    if not rows:
        raise ValueError(
            f"evaluating on {snapshot}: its {side} side is empty, so nothing is measured; a larger "
            f"{side}_share under curate draws more rows, as they arrive"
        )
    rendered = [_render(row, tokenizer) for row in rows]
    lengths = _thirds([len(request.to_text(tokenizer)) for request in rendered])
    if num_fewshot:
        requests = [request_text(json.loads(str(row["messages"]))) for row in rows]
        chosen = choose_shots(requests, _read_shots(snapshot), num_fewshot)
        rendered = [
            _prepend_shots(request, shots, tokenizer, room)
            for request, shots in zip(rendered, chosen, strict=True)
        ]
    documents = [
        _make_document(row, request, tokenizer) | {"length": length}
        for row, request, length in zip(rows, rendered, lengths, strict=True)
    ]
    return EvaluatedSide(
        name=task_name(record.workload, side),
        version=side_version(record, side),
        answers=answer_space_of(snapshot, configured),
        documents=tuple(documents),
        starts=_starts(documents, rendered, tokenizer),
    )


def _starts(
    documents: Iterable[Document],
    rendered: Iterable[Rendered],
    tokenizer: "PreTrainedTokenizerBase",
) -> dict[str, str]:
    pairs = zip(documents, rendered, strict=True)
    starts = {
        document["example_id"]: request.before_answer(tokenizer)[len(document["prompt"]) :]
        for document, request in pairs
    }
    return {key: start for key, start in starts.items() if start}


def count_too_long(
    holdout: EvaluatedSide, tokenizer: "PreTrainedTokenizerBase", room: int, max_new_tokens: int
) -> Window:
    """Count a side's prompts of more than ``room`` tokens and its longer right answers."""

    def count(texts: list[str], most: int) -> int:
        ids = tokenizer(texts, add_special_tokens=False)["input_ids"]  # pyright: ignore[reportArgumentType] - lists of ids
        return sum(len(each) > most for each in ids)

    answers = [
        dialects.write_answer(
            cast("Dialect", document["form"]), Answer.from_json(document["answer"])
        )
        for document in holdout.documents
    ]
    return Window(
        prompts=len(answers),
        truncated=count([document["prompt"] for document in holdout.documents], room),
        room=room,
        unreachable=count(answers, max_new_tokens),
        max_new_tokens=max_new_tokens,
    )


def count_measured(snapshot: Path, kind: Kind, metric: str, side: MeasuredSide) -> int:
    """Count the requests of a side that a metric is measured on."""
    answers, schemas = _answers(snapshot / f"{side}.parquet"), response_schemas(snapshot, side)
    return sum(
        metrics.is_measured(kind, metric, answer, schemas[place] if schemas else "")
        for place, answer in enumerate(answers)
    )


def response_schemas(snapshot: Path, side: MeasuredSide) -> list[str]:
    """Return the JSON Schema of the answer to each request of a side; empty if none has one."""
    file = snapshot / f"{side}.parquet"
    return _column(file, RESPONSE_SCHEMA) if has_column(file, RESPONSE_SCHEMA) else []


def keeps_language(snapshot: Path) -> bool:
    """Return whether a snapshot has its requests' languages; older ones don't."""
    return has_column(snapshot / HOLDOUT_FILE, "language")


def has_column(file: Path, name: str) -> bool:
    """Return whether a snapshot's file has a column."""
    return name in parquet_files.columns(file)


def with_clusters(file: Path, columns: Sequence[str]) -> list[str]:
    """Add the column ``cluster`` if the file has it; older snapshots only have groups."""
    return [*columns, *(["cluster"] if "cluster" in parquet_files.columns(file) else [])]


def clusters_digest(snapshot: Path, side: MeasuredSide = HOLDOUT) -> str | None:
    """Digest the clusters of a side's requests; ``None`` for snapshots without clusters."""
    file = snapshot / f"{side}.parquet"
    if "cluster" not in parquet_files.columns(file):
        return None
    rows = parquet_files.rows(file, ["example_id", "cluster"])
    return manifest.digest(sorted([row["example_id"], row["cluster"]] for row in rows))


def times_asked(snapshot: Path) -> dict[str, int]:
    """Return how often each held-out request was asked; empty if each was once, or unknown."""
    file = snapshot / HOLDOUT_FILE
    columns = ["example_id", "interaction_ids"]
    if not {*columns} <= {*parquet_files.columns(file)}:
        return {}
    rows = parquet_files.rows(file, columns)
    asked = {str(row["example_id"]): len(row["interaction_ids"]) for row in rows}
    return asked if any(times > 1 for times in asked.values()) else {}


def cluster_of(row: Mapping[str, object]) -> str:
    """Return the cluster of a row; its group in snapshots without clusters."""
    return str(row["cluster"] if "cluster" in row else row["group"])


def language_of(row: Mapping[str, object]) -> str:
    """Return the slice ``language`` of a row; empty in snapshots without languages."""
    return str(row["language"] or UNKNOWN_LANGUAGE) if "language" in row else ""


def _render(row: Mapping[str, object], tokenizer: "PreTrainedTokenizerBase") -> Rendered:
    messages, tools = json.loads(str(row["messages"])), json.loads(str(row["tools"]))
    return chat_templates.render(tokenizer, messages, tools)


def _make_document(
    row: Mapping[str, object], rendered: Rendered, tokenizer: "PreTrainedTokenizerBase"
) -> Document:
    messages = cast("list[Message]", row["prompt"])
    answer = str(row["answer"])
    return {
        "example_id": str(row["example_id"]),
        "cluster_id": cluster_of(row),
        "client_id": str(row["client_id"]),
        "language": language_of(row),
        "request": next((m["content"] for m in reversed(messages) if m["role"] == "user"), ""),
        "prompt": rendered.to_text(tokenizer),
        "form": rendered.form,
        "tools": str(row["tools"]),
        "reference": prompt.render_answer(Answer.from_json(answer)),
        "answer": answer,
        "acceptable": str(row["acceptable"] or "null"),
        **({RESPONSE_SCHEMA: str(row[RESPONSE_SCHEMA])} if RESPONSE_SCHEMA in row else {}),
    }


def _thirds(lengths: Sequence[int]) -> list[str]:
    ordered = sorted(lengths)
    bounds = [ordered[len(ordered) * third // 3] for third in (1, 2)]
    return [LENGTHS[sum(length >= bound for bound in bounds)] for length in lengths]


def slices_of(document: Document, kind: Kind) -> dict[str, str]:
    """Return a request's slices: the tools that its answer calls, its client, and so on."""
    parts = {name: document[key] for name, key in SLICES.items() if document[key]}
    if kind != "tool_calls":
        return parts
    names = sorted({call.name for call in Answer.from_json(document["answer"]).calls})
    return {"tool": ", ".join(names) or NO_CALL, **parts}
