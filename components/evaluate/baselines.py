"""Answer the holdout without a language model: what any adapter has to beat to be worth its cost.

Each baseline learns from the training side of the snapshot and gives one answer to each request. It
is scored as production's logged answers are, request by request and by the same metrics.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pyarrow.parquet as pq

from components import manifest, prompt
from components.evaluate import logged, posing, shots, task, texts
from components.evaluate.kinds import Kind
from components.evaluate.shots import Shot
from components.evaluate.task import Document, Holdout
from components.schema import Answer, Json
from components.scorecard import CONSTANT, NEAREST, TFIDF, Sample

NAMES: Mapping[Kind, tuple[str, ...]] = {
    "tool_calls": (CONSTANT, NEAREST),
    "classification": (CONSTANT, TFIDF),
    "text": (CONSTANT, NEAREST),
}
"""Which baselines each kind of answers has."""

VERSION = 1
"""The version of how baselines learn and answer: raise it when an answer changes."""

INVERSE_REGULARIZATION = 10.0
"""scikit-learn's C. On CLINC150's three workloads (1,896 rows each) 1, 10 and 100 score 92.7, 93.9
and 93.9 % on rows that were not learned."""

MOST_FEATURES = 50_000
"""Words and pairs of words that are weighed, the most frequent ones: it bounds memory and time."""

Thing = TypeVar("Thing", str, tuple[str, ...])


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked: the newest message of the user, and all that was said but for the system."""

    newest: str
    said: str


def conditions(name: str, snapshot: Path) -> dict[str, Json]:
    """Return what a baseline's scorecard says beside the holdout's conditions."""
    key = manifest.read(snapshot)["key"]
    return {"baseline": name, "baseline_version": VERSION, "examples": key}


def names(snapshot: Path, kind: Kind) -> tuple[str, ...]:
    """List the baselines of a snapshot; none where it has no rows to learn from."""
    return NAMES[kind] if pq.read_metadata(snapshot / task.LEARNED).num_rows else ()


def run(
    name: str, holdout: Holdout, training: Path, side: Path, max_new_tokens: int
) -> list[Sample]:
    """Answer a side of a snapshot by a baseline and score the answers.

    Args:
        name: The baseline's.
        holdout: The side as it is asked.
        training: The file of the training side.
        side: The file of the side that is asked.
        max_new_tokens: As of a model.
    """
    learned, asked = _rows(training), _rows(side)
    kind = holdout.answers.kind
    found = answers(name, [row[1:] for row in learned], [row[1] for row in asked], kind)
    said = {row[0]: one for row, one in zip(asked, found, strict=True)}
    documents = {one["example_id"]: one for one in holdout.documents}
    return [
        replace(one, scores=_scores(kind, documents[one.example_id], one.output))
        for one in logged.written(holdout, said, max_new_tokens)
    ]


def answers(
    name: str, learned: Sequence[tuple[Request, Answer]], asked: Sequence[Request], kind: Kind
) -> list[Answer]:
    """Return a baseline's answer to each request.

    Args:
        name: ``CONSTANT``, ``NEAREST`` or ``TFIDF``.
        learned: The training side, at least one row.
        asked: The requests to answer.
        kind: What the answers are.
    """
    if name == CONSTANT:
        return [constant([answer for _, answer in learned], kind)] * len(asked)
    if name == NEAREST:
        known = [Shot(request.said, [], answer, "") for request, answer in learned]
        return [shot.answer for (shot,) in shots.choose([one.said for one in asked], known, 1)]
    labels = [answer.text.strip() for _, answer in learned]
    return [Answer(one) for one in classify([one for one, _ in learned], labels, asked)]


def constant(learned: Sequence[Answer], kind: Kind) -> Answer:
    """Return the answer that is right most often on the training side.

    Of tool calls it has the most frequent set of functions, which may be none, with the arguments
    or the text that are most frequent with it. Of equally frequent ones the first in order is it.
    """
    if kind == "tool_calls":
        called = [tuple(sorted(call.name for call in one.calls)) for one in learned]
        most = _most_frequent(called)
        learned = [one for one, names in zip(learned, called, strict=True) if names == most]
    texts_of = [replace(one, text=one.text.strip()).to_json() for one in learned]
    return Answer.from_json(_most_frequent(texts_of))


def classify(
    learned: Sequence[Request], labels: Sequence[str], asked: Sequence[Request]
) -> list[str]:
    """Return the labels that logistic regression gives to TF-IDF vectors of words and word pairs.

    The user's newest message and the whole conversation have vectors of their own, since either
    may be what varies.
    """
    from scipy import sparse  # noqa: PLC0415 - seconds
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415 - as above
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - as above

    views = [([one.said for one in learned], [one.said for one in asked])]
    if any(one.newest != one.said for one in learned):
        views.append(([one.newest for one in learned], [one.newest for one in asked]))
    views = [view for view in views if any(texts.words(text) for text in view[0])]
    if not views or len({*labels}) == 1:
        return [_most_frequent(labels)] * len(asked)
    known, new = [], []
    for told, wanted in views:
        vectorizer = TfidfVectorizer(
            sublinear_tf=True,
            token_pattern=texts.WORD.pattern,
            ngram_range=(1, 2),
            max_features=MOST_FEATURES,
        )
        known.append(vectorizer.fit_transform(told))
        new.append(vectorizer.transform(wanted))
    model = LogisticRegression(C=INVERSE_REGULARIZATION, max_iter=1000)
    model.fit(sparse.hstack(known, format="csr"), labels)
    return [str(one) for one in model.predict(sparse.hstack(new, format="csr"))]


def _rows(path: Path) -> list[tuple[str, Request, Answer]]:
    columns = ["example_id", "messages", "answer"]
    return [
        (
            str(row["example_id"]),
            _request(json.loads(str(row["messages"]))),
            Answer.from_json(str(row["answer"])),
        )
        for row in pq.read_table(path, columns=columns).to_pylist()
    ]


def _request(messages: Sequence[dict[str, Json]]) -> Request:
    by_user = [prompt.text_of(one) for one in messages if one.get("role") == "user"]
    return Request(by_user[-1] if by_user else "", shots.asked(messages))


def _most_frequent(things: Sequence[Thing]) -> Thing:
    return min(Counter(things).items(), key=lambda item: (-item[1], item[0]))[0]


def _scores(kind: Kind, document: Document, output: str) -> dict[str, float | None]:
    """Score an answer; a label that a baseline gives is also the one that it finds likeliest."""
    scores = posing.score(kind, document, output)
    return {**scores, "choice": scores["label"]} if kind == "classification" else scores
