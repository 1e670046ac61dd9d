"""The frozen holdout as a task: its requests as a model reads them, with version and slices."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import pyarrow.parquet as pq

from components import manifest, prompt, rendering
from components.evaluate import kinds
from components.evaluate.kinds import Answers, Kind
from components.schema import Answer, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Document: TypeAlias = dict[str, str]
"""One holdout request: ``example_id cluster_id client_id length request prompt form tools reference
answer acceptable``, all text.

``form`` is the one that calls have; ``tools``, ``answer`` and ``acceptable`` stay JSON text, since
Arrow would merge their nested types.
"""

FILE = "holdout.parquet"

LEARNED = "train.parquet"

NO_CALL = "no call"
"""The slice ``tool`` of requests that are rightly answered without a call."""

LENGTHS = ("short", "middle", "long")
"""The slices of a third each, by how long the prompt is."""

VERSION = manifest.digest(
    [
        manifest.file_digest(Path(__file__).with_name(f"{module}.py"))
        for module in ("kinds", "metric", "posing", "task", "texts")
    ]
)
"""The version of the scoring: scores made by other code are not comparable."""


@dataclass(frozen=True, slots=True)
class Holdout:
    """A snapshot's holdout under the name and version that its task has."""

    name: str
    version: str
    answers: Answers
    documents: tuple[Document, ...]


def name(workload: str) -> str:
    """Name the task of a workload's holdout."""
    return f"holdout_{workload}"


def answers_of(snapshot: Path, named: Kind | None) -> Answers:
    """Find what a snapshot's answers are, learned and held out; see ``kinds.find``."""
    answers: list[Answer] = []
    offers_tools = False
    for file in (LEARNED, FILE):
        columns = pq.read_table(snapshot / file, columns=["answer", "tools"])
        answers += [Answer.from_json(str(one)) for one in columns["answer"].to_pylist()]
        offered = {str(one) for one in columns["tools"].to_pylist()}
        offers_tools |= any(json.loads(one) for one in offered)
    return kinds.find(answers, named, offers_tools=offers_tools)


def read(snapshot: Path, tokenizer: "PreTrainedTokenizerBase", named: Kind | None) -> Holdout:
    """Read a snapshot's holdout, each request as the exact text that the model will read.

    Args:
        snapshot: A finished snapshot folder.
        tokenizer: The base's.
        named: What the workload's file says that the answers are, if it does.

    Raises:
        ValueError: The holdout is empty, so that nothing could be measured.
    """
    record = manifest.read(snapshot)
    columns = ["example_id", "group", "client_id", "prompt", "messages", "tools", "answer"]
    rows = pq.read_table(snapshot / FILE, columns=[*columns, "acceptable"]).to_pylist()
    if not rows:
        raise ValueError(f"evaluating on {snapshot}: its holdout is empty, so nothing is measured")
    documents = _with_lengths([_document(row, tokenizer) for row in rows])
    return Holdout(
        name=name(str(record["workload"])),
        version=str(record["holdout_version"]),
        answers=answers_of(snapshot, named),
        documents=tuple(documents),
    )


def _document(row: Mapping[str, object], tokenizer: "PreTrainedTokenizerBase") -> Document:
    written = cast("list[Message]", row["prompt"])
    asked = rendering.render(
        tokenizer, json.loads(str(row["messages"])), json.loads(str(row["tools"]))
    )
    answer = str(row["answer"])
    return {
        "example_id": str(row["example_id"]),
        "cluster_id": str(row["group"]),
        "client_id": str(row["client_id"]),
        "request": next((m["content"] for m in reversed(written) if m["role"] == "user"), ""),
        "prompt": asked.to_text(tokenizer),
        "form": asked.form,
        "tools": str(row["tools"]),
        "reference": prompt.render_answer(Answer.from_json(answer)),
        "answer": answer,
        "acceptable": str(row["acceptable"] or "null"),
    }


def _with_lengths(documents: Sequence[Document]) -> list[Document]:
    """Say of each request in which third it is by its prompt's characters."""
    lengths = sorted(len(one["prompt"]) for one in documents)
    bounds = [lengths[len(lengths) * third // 3] for third in (1, 2)]
    return [
        {**one, "length": LENGTHS[sum(len(one["prompt"]) >= bound for bound in bounds)]}
        for one in documents
    ]


def slices(document: Document, kind: Kind) -> dict[str, str]:
    """Say which part of the traffic a request belongs to: what it wants called, who sent it."""
    parts = {"client": document["client_id"], "length": document["length"]}
    if kind != "tool_calls":
        return parts
    names = sorted({call.name for call in Answer.from_json(document["answer"]).calls})
    return {"tool": ", ".join(names) or NO_CALL, **parts}
