"""Choose solved examples from the training side for a request: the nearest, each class in turn.

What a base can do with them in its prompt is what an adapter has to beat: it needs no training.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow.parquet as pq

from components import native, prompt
from components.rendering import Rendered
from components.schema import Answer, Json, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILE = "train.parquet"

ROWS_AT_ONCE = 256
"""Requests whose likeness to all examples is held in memory together."""


@dataclass(frozen=True, slots=True)
class Shot:
    """A solved example; ``label`` is its class: the tools that it calls, or a short answer."""

    request: str
    messages: list[Message]
    answer: Answer
    label: str


def read(snapshot: Path) -> list[Shot]:
    """Read the training side of a snapshot."""
    columns = ["messages", "prompt", "answer", "label"]
    return [_shot(row) for row in pq.read_table(snapshot / FILE, columns=columns).to_pylist()]


def _shot(row: dict[str, object]) -> Shot:
    return Shot(
        request=asked(json.loads(str(row["messages"]))),
        messages=cast("list[Message]", row["prompt"]),
        answer=Answer.from_json(str(row["answer"])),
        label=str(row["label"]),
    )


def asked(messages: Sequence[dict[str, Json]]) -> str:
    """Give what likeness is measured on: all that was said but for the application's own words."""
    return "\n".join(prompt.text_of(one) for one in messages if not prompt.is_system(one))


def choose(requests: Sequence[str], shots: Sequence[Shot], count: int) -> list[list[Shot]]:
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
            chosen.append([shots[at] for at in reversed(pick(nearest, labels, count))])
    return chosen


def pick(nearest: Sequence[int], labels: Sequence[str], count: int) -> list[int]:
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


def put_before(
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
        turns = [turn for shot in shots[first:] for turn in _turns(shot, request)]
        longer = replace(request, messages=[*head, *turns, *rest])
        if len(tokenizer(longer.to_text(tokenizer))["input_ids"]) <= room:  # pyright: ignore[reportArgumentType]
            return longer
    return request


def _turns(shot: Shot, request: Rendered) -> list[Message]:
    said = "\n\n".join(message["content"] for message in shot.messages)
    return [
        {"role": "user", "content": said},
        {"role": "assistant", "content": native.write_answer(request.form, shot.answer)},
    ]
