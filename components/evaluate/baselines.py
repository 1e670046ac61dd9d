"""Score answers that need no model: production's logged answers, and trivial classifiers."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar, cast

import pyarrow.parquet as pq

from components.chat import dialects, prompt
from components.chat.dialects import Dialect
from components.evaluate import holdout_task, lm_eval_tasks, metrics
from components.evaluate.holdout_task import HOLDOUT_FILE, Document, EvaluatedSide, Shot
from components.evaluate.metrics import Kind
from components.schema import Answer, Call, Json
from components.scorecard import CONSTANT, CORRECTED_ONLY, NEAREST, SCORED_ON, TFIDF, Sample
from components.store import manifest
from components.store.manifest import SnapshotManifest

LOGGED_COLUMN = "logged_answer"


@dataclass(frozen=True, slots=True)
class LoggedAnswers:
    """What production answered to each request of a holdout, by its ``example_id``.

    ``counted`` are the requests that it is scored on: those with reference values or, where
    ``corrected_only``, those whose answer somebody corrected.
    """

    answers: Mapping[str, Answer]
    counted: frozenset[str]
    corrected_only: bool

    @property
    def conditions(self) -> dict[str, Json]:
        """What its scorecard says beside the holdout's conditions."""
        said = {name: one.to_json() for name, one in self.answers.items()}
        those = (
            "those that people corrected; they correct what is wrong, so this is no measure of "
            "the others"
            if self.corrected_only
            else "those that came with reference values"
        )
        return {
            "answers": manifest.digest([said, sorted(self.counted)]),
            CORRECTED_ONLY: self.corrected_only,
            SCORED_ON: f"{len(self.counted)} of {len(self.answers)} requests: {those}; elsewhere "
            "production's answer is the reference itself, and would be right by definition",
        }


def read_logged(snapshot: Path, kind: Kind) -> LoggedAnswers | None:
    """Read the logged answers of a snapshot's holdout.

    Returns:
        ``None`` where nothing but they say what is right, or the snapshot is older than the column.
    """
    file = snapshot / HOLDOUT_FILE
    if LOGGED_COLUMN not in pq.read_schema(file).names:
        return None
    columns = ["example_id", "answer", "acceptable", LOGGED_COLUMN]
    rows = [row for row in pq.read_table(file, columns=columns).to_pylist() if row[LOGGED_COLUMN]]
    answers = {str(row["example_id"]): Answer.from_json(str(row[LOGGED_COLUMN])) for row in rows}
    valued = {
        str(row["example_id"])
        for row in rows
        if kind == "tool_calls" and row["acceptable"] is not None
    }
    corrected = {
        str(row["example_id"])
        for row in rows
        if Answer.from_json(str(row["answer"])) != answers[str(row["example_id"])]
    }
    counted = frozenset(valued or corrected)
    return LoggedAnswers(answers, counted, corrected_only=not valued) if counted else None


def score_logged(
    holdout: EvaluatedSide, logged: LoggedAnswers, max_new_tokens: int
) -> list[Sample]:
    """Put the holdout to the log through lm-eval, as to a model; score only what counts."""
    documents = {one["example_id"]: one for one in holdout.documents}
    samples = score_recorded(holdout, logged.answers, max_new_tokens)
    kind = holdout.answers.kind
    return [
        replace(one, scores=_logged_scores(documents[one.example_id], one.output, logged, kind))
        for one in samples
    ]


def score_recorded(
    holdout: EvaluatedSide, answers: Mapping[str, Answer], max_new_tokens: int
) -> list[Sample]:
    """Put the holdout to recorded answers through lm-eval, as to a model.

    Each is told as the base would have written it, and read again.

    Args:
        holdout: What is asked.
        answers: By ``example_id``; where one is missing nothing was answered.
        max_new_tokens: As of a model; nothing that was recorded is cut off.
    """
    from components.evaluate.engines.recorded_answers import RecordedLM  # noqa: PLC0415 - loads torch

    said = {
        one["example_id"]: dialects.write_answer(
            cast("Dialect", one["form"]), answers.get(one["example_id"], Answer())
        )
        for one in holdout.documents
    }
    return lm_eval_tasks.write_answers(RecordedLM(said), holdout, max_new_tokens)


def _logged_scores(
    document: Document, output: str, logged: LoggedAnswers, kind: Kind
) -> dict[str, float | None]:
    if document["example_id"] not in logged.counted:
        return dict.fromkeys(metrics.KIND_METRICS[kind])
    if logged.corrected_only:
        return lm_eval_tasks.score_output(kind, document, output)
    return lm_eval_tasks.score_output(
        kind, {**document, "answer": _reference_calls(document).to_json()}, output
    )


def _reference_calls(document: Document) -> Answer:
    """Give the calls that the reference values are of; their arguments are in these values."""
    return Answer(calls=tuple(Call(one["name"], {}) for one in json.loads(document["acceptable"])))


BASELINE_NAMES: Mapping[Kind, tuple[str, ...]] = {
    "tool_calls": (CONSTANT, NEAREST),
    "classification": (CONSTANT, TFIDF),
    "text": (CONSTANT, NEAREST),
}
"""Which baselines each kind of answers has."""

BASELINE_VERSION = 1
"""The version of how baselines learn and answer: raise it when an answer changes."""

INVERSE_REGULARIZATION = 10.0
"""scikit-learn's C. On CLINC150's three workloads (1,896 rows each) 1, 10 and 100 score 92.7, 93.9
and 93.9 % on rows that were not learned."""

MOST_FEATURES = 50_000
"""Words and pairs of words that are weighed, the most frequent ones: it bounds memory and time."""

Thing = TypeVar("Thing", str, tuple[str, ...])


@dataclass(frozen=True, slots=True)
class BaselineRequest:
    """What was asked: the newest message of the user, and all that was said but for the system."""

    newest: str
    said: str


def baseline_conditions(name: str, snapshot: Path) -> dict[str, Json]:
    """Return what a baseline's scorecard says beside the holdout's conditions."""
    key = SnapshotManifest.read(snapshot).key
    return {"baseline": name, "baseline_version": BASELINE_VERSION, "examples": key}


def baseline_names(snapshot: Path, kind: Kind) -> tuple[str, ...]:
    """List the baselines of a snapshot; none where it has no rows to learn from."""
    return (
        BASELINE_NAMES[kind]
        if pq.read_metadata(snapshot / holdout_task.TRAIN_FILE).num_rows
        else ()
    )


def score_baseline(
    name: str, holdout: EvaluatedSide, training: Path, side: Path, max_new_tokens: int
) -> list[Sample]:
    """Answer a side of a snapshot by a baseline and score the answers.

    Args:
        name: The baseline's.
        holdout: The side as it is asked.
        training: The file of the training side.
        side: The file of the side that is asked.
        max_new_tokens: As of a model.
    """
    learned, asked = _training_rows(training), _training_rows(side)
    kind = holdout.answers.kind
    found = baseline_answers(name, [row[1:] for row in learned], [row[1] for row in asked], kind)
    said = {row[0]: one for row, one in zip(asked, found, strict=True)}
    documents = {one["example_id"]: one for one in holdout.documents}
    return [
        replace(one, scores=_baseline_scores(kind, documents[one.example_id], one.output))
        for one in score_recorded(holdout, said, max_new_tokens)
    ]


def baseline_answers(
    name: str,
    learned: Sequence[tuple[BaselineRequest, Answer]],
    asked: Sequence[BaselineRequest],
    kind: Kind,
) -> list[Answer]:
    """Return a baseline's answer to each request.

    Args:
        name: ``CONSTANT``, ``NEAREST`` or ``TFIDF``.
        learned: The training side, at least one row.
        asked: The requests to answer.
        kind: What the answers are.
    """
    if name == CONSTANT:
        return [constant_answer([answer for _, answer in learned], kind)] * len(asked)
    if name == NEAREST:
        known = [Shot(request.said, [], answer, "") for request, answer in learned]
        return [
            shot.answer
            for (shot,) in holdout_task.choose_shots([one.said for one in asked], known, 1)
        ]
    labels = [answer.text.strip() for _, answer in learned]
    return [Answer(one) for one in classify_requests([one for one, _ in learned], labels, asked)]


def constant_answer(learned: Sequence[Answer], kind: Kind) -> Answer:
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


def classify_requests(
    learned: Sequence[BaselineRequest], labels: Sequence[str], asked: Sequence[BaselineRequest]
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
    views = [view for view in views if any(metrics.split_words(text) for text in view[0])]
    if not views or len({*labels}) == 1:
        return [_most_frequent(labels)] * len(asked)
    known, new = [], []
    for told, wanted in views:
        vectorizer = TfidfVectorizer(
            sublinear_tf=True,
            token_pattern=metrics.WORD.pattern,
            ngram_range=(1, 2),
            max_features=MOST_FEATURES,
        )
        known.append(vectorizer.fit_transform(told))
        new.append(vectorizer.transform(wanted))
    model = LogisticRegression(C=INVERSE_REGULARIZATION, max_iter=1000)
    model.fit(sparse.hstack(known, format="csr"), labels)
    return [str(one) for one in model.predict(sparse.hstack(new, format="csr"))]


def _training_rows(path: Path) -> list[tuple[str, BaselineRequest, Answer]]:
    columns = ["example_id", "messages", "answer"]
    return [
        (
            str(row["example_id"]),
            _baseline_request(json.loads(str(row["messages"]))),
            Answer.from_json(str(row["answer"])),
        )
        for row in pq.read_table(path, columns=columns).to_pylist()
    ]


def _baseline_request(messages: Sequence[dict[str, Json]]) -> BaselineRequest:
    by_user = [prompt.text_of(one) for one in messages if one.get("role") == "user"]
    return BaselineRequest(by_user[-1] if by_user else "", holdout_task.request_text(messages))


def _most_frequent(things: Sequence[Thing]) -> Thing:
    return min(Counter(things).items(), key=lambda item: (-item[1], item[0]))[0]


def _baseline_scores(kind: Kind, document: Document, output: str) -> dict[str, float | None]:
    """Score an answer; a label that a baseline gives is also the one that it finds likeliest."""
    scores = lm_eval_tasks.score_output(kind, document, output)
    return {**scores, "choice": scores["label"]} if kind == "classification" else scores
