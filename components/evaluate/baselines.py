"""Score answers without a model: production's logged answers, and simple baselines."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar, cast

from components.chat import dialects, prompt
from components.chat.dialects import Dialect
from components.evaluate import (
    holdout_task,
    json_answers,
    lm_eval_tasks,
    task_metrics,
    text_answers,
)
from components.evaluate.holdout_task import HOLDOUT_FILE, Document, EvaluatedSide, Shot
from components.evaluate.settings import Kind
from components.evaluate.task_metrics import AnswerSpace
from components.schema import Answer, Call, Json
from components.scorecard import CONSTANT, CORRECTED_ONLY, NEAREST, SCORED_ON, TFIDF, Sample
from components.store import manifest, parquet_files

LOGGED_COLUMN = "logged_answer"


@dataclass(frozen=True, slots=True)
class LoggedAnswers:
    """Production's answers to a holdout's requests, by ``example_id``.

    ``counted`` are the scored requests: those with reference values or, if ``corrected_only``,
    those with a corrected answer.
    """

    answers: Mapping[str, Answer]
    counted: frozenset[str]
    corrected_only: bool

    @property
    def conditions(self) -> dict[str, Json]:
        """The scorecard's conditions, in addition to the holdout's."""
        answers = {name: answer.to_json() for name, answer in self.answers.items()}
        counted = (
            "those that people corrected; they correct what is wrong, so this is no measure of "
            "the others"
            if self.corrected_only
            else "those that came with reference values"
        )
        return {
            "answers": manifest.digest([answers, sorted(self.counted)]),
            CORRECTED_ONLY: self.corrected_only,
            SCORED_ON: f"{len(self.counted)} of {len(self.answers)} requests: {counted}; elsewhere "
            "production's answer is the reference itself, and would be right by definition",
        }


def read_logged(snapshot: Path, kind: Kind) -> LoggedAnswers | None:
    """Read the logged answers of a snapshot's holdout.

    ``None`` if no request has another reference, or an older snapshot has no such column.
    """
    file = snapshot / HOLDOUT_FILE
    if LOGGED_COLUMN not in parquet_files.columns(file):
        return None
    columns = ["example_id", "answer", "acceptable", LOGGED_COLUMN]
    rows = [row for row in parquet_files.rows(file, columns) if row[LOGGED_COLUMN]]
    answers = {str(row["example_id"]): Answer.from_json(str(row[LOGGED_COLUMN])) for row in rows}
    references = {str(row["example_id"]): Answer.from_json(str(row["answer"])) for row in rows}
    valued = [str(row["example_id"]) for row in rows if row["acceptable"] is not None]
    valued = valued if kind == "tool_calls" else []
    corrected = [name for name, answer in answers.items() if answer != references[name]]
    counted = frozenset(valued or corrected)
    return LoggedAnswers(answers, counted, corrected_only=not valued) if counted else None


def score_logged(
    holdout: EvaluatedSide, logged: LoggedAnswers, max_new_tokens: int
) -> list[Sample]:
    """Run the holdout on the logged answers through lm-eval; score only the counted requests."""
    documents = {document["example_id"]: document for document in holdout.documents}
    samples = score_recorded(holdout, logged.answers, max_new_tokens)
    return [
        replace(
            sample,
            scores=_logged_scores(
                documents[sample.example_id], sample.output, logged, holdout.answers
            ),
        )
        for sample in samples
    ]


def score_recorded(
    holdout: EvaluatedSide, answers: Mapping[str, Answer], max_new_tokens: int
) -> list[Sample]:
    """Run the holdout on answers by ``example_id`` through lm-eval; a missing one is empty.

    Each answer is rendered in the base's call syntax and parsed again; none is truncated.
    """
    from components.evaluate.engines.lm_wrappers import RecordedLM  # noqa: PLC0415 - loads torch

    texts = {
        document["example_id"]: dialects.write_answer(
            cast("Dialect", document["form"]), answers.get(document["example_id"], Answer())
        )
        for document in holdout.documents
    }
    return lm_eval_tasks.write_answers(RecordedLM(texts), holdout, max_new_tokens)


def _logged_scores(
    document: Document, output: str, logged: LoggedAnswers, answers: AnswerSpace
) -> dict[str, float | None]:
    if document["example_id"] not in logged.counted:
        return dict.fromkeys(answers.metrics)
    if logged.corrected_only:
        return lm_eval_tasks.score_output(answers.kind, document, output)
    return lm_eval_tasks.score_output(
        answers.kind, {**document, "answer": _reference_calls(document).to_json()}, output
    )


def _reference_calls(document: Document) -> Answer:
    # Without arguments: the acceptable values contain them.
    acceptable = json.loads(document["acceptable"])
    text = Answer.from_json(document["answer"]).text
    return Answer(text, tuple(Call(call["name"], {}) for call in acceptable))


BASELINE_NAMES: Mapping[Kind, tuple[str, ...]] = {
    "tool_calls": (CONSTANT, NEAREST),
    "classification": (CONSTANT, TFIDF),
    "json": (CONSTANT, NEAREST),
    "text": (CONSTANT, NEAREST),
}
"""The baselines of each kind of answers."""

BASELINE_VERSION = 2  # the version of the baselines: raise it when an answer changes

INVERSE_REGULARIZATION = 10.0
"""scikit-learn's C. On CLINC150's three workloads (1,896 rows each) 1, 10 and 100 score 92.7, 93.9
and 93.9 % on unseen rows."""

MAX_FEATURES = 50_000
"""The most frequent words and word pairs are the features; the limit bounds memory and time."""

MAX_WEIGHTS = 100 * MAX_FEATURES
"""Each label has a weight for each feature, of which the optimizer holds some twenty copies: with
more than 100 labels there are fewer features."""

Value = TypeVar("Value", str, tuple[str, ...])


@dataclass(frozen=True, slots=True)
class BaselineRequest:
    """A request: the user's newest message, and the whole conversation without system messages."""

    newest: str
    conversation: str


def baseline_names(snapshot: Path, kind: Kind) -> tuple[str, ...]:
    """List the baselines of a snapshot; empty if it has no training rows."""
    count = parquet_files.count(snapshot / holdout_task.TRAIN_FILE)
    return BASELINE_NAMES[kind] if count else ()


def score_baseline(
    name: str, holdout: EvaluatedSide, training: Path, side: Path, max_new_tokens: int
) -> list[Sample]:
    """Answer a side, whose file is ``side``, by a baseline, and score the answers."""
    training_rows, side_rows = _read_rows(training), _read_rows(side)
    kind = holdout.answers.kind
    learned, requests = [row[1:] for row in training_rows], [row[1] for row in side_rows]
    answers = _baseline_answers(name, learned, requests, kind)
    by_id = {row[0]: answer for row, answer in zip(side_rows, answers, strict=True)}
    documents = {document["example_id"]: document for document in holdout.documents}
    return [
        replace(
            sample,
            scores=_baseline_scores(holdout.answers, documents[sample.example_id], sample.output),
        )
        for sample in score_recorded(holdout, by_id, max_new_tokens)
    ]


def _baseline_answers(
    name: str,
    training: Sequence[tuple[BaselineRequest, Answer]],
    requests: Sequence[BaselineRequest],
    kind: Kind,
) -> list[Answer]:
    if name == CONSTANT:
        return [constant_answer([answer for _, answer in training], kind)] * len(requests)
    if name == NEAREST:
        shots = [Shot(request.conversation, [], answer, "") for request, answer in training]
        conversations = [request.conversation for request in requests]
        return [shot.answer for (shot,) in holdout_task.choose_shots(conversations, shots, 1)]
    labels = [answer.text.strip() for _, answer in training]
    return [
        Answer(label)
        for label in classify_requests([request for request, _ in training], labels, requests)
    ]


def constant_answer(training: Sequence[Answer], kind: Kind) -> Answer:
    """Return the answer that is right most often on the training side.

    For tool calls: the most frequent set of functions, which may be empty, with its most frequent
    arguments or text. Of JSON the values count, not how they are written. Ties go to the first in
    sort order.
    """
    if kind == "json":
        values = [
            json_answers.canonical(dialects.without_thought(answer.text)) for answer in training
        ]
        most = _most_frequent(values)
        training = [a for a, value in zip(training, values, strict=True) if value == most]
    if kind == "tool_calls":
        called = [tuple(sorted(call.name for call in answer.calls)) for answer in training]
        most = _most_frequent(called)
        training = [a for a, names in zip(training, called, strict=True) if names == most]
    texts = [replace(answer, text=answer.text.strip()).to_json() for answer in training]
    return Answer.from_json(_most_frequent(texts))


def classify_requests(
    training: Sequence[BaselineRequest], labels: Sequence[str], requests: Sequence[BaselineRequest]
) -> list[str]:
    """Classify requests by logistic regression on TF-IDF vectors of words and word pairs.

    The user's newest message and the whole conversation have separate vectors, since either may
    be what varies.
    """
    from scipy import sparse  # noqa: PLC0415 - seconds
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415 - as above
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - as above

    views = [([row.conversation for row in training], [row.conversation for row in requests])]
    if any(row.newest != row.conversation for row in training):
        views.append(([row.newest for row in training], [row.newest for row in requests]))
    views = [view for view in views if any(text_answers.split_words(text) for text in view[0])]
    if not views or len({*labels}) == 1:
        return [_most_frequent(labels)] * len(requests)
    known, new = [], []
    for training_texts, request_texts in views:
        vectorizer = TfidfVectorizer(
            sublinear_tf=True,
            token_pattern=text_answers.WORD.pattern,
            ngram_range=(1, 2),
            max_features=min(MAX_FEATURES, MAX_WEIGHTS // len({*labels})),
        )
        known.append(vectorizer.fit_transform(training_texts))
        new.append(vectorizer.transform(request_texts))
    model = LogisticRegression(C=INVERSE_REGULARIZATION, max_iter=1000)
    model.fit(sparse.hstack(known, format="csr"), labels)
    return [str(label) for label in model.predict(sparse.hstack(new, format="csr"))]


def _read_rows(path: Path) -> list[tuple[str, BaselineRequest, Answer]]:
    columns = ["example_id", "messages", "answer"]
    return [
        (
            str(row["example_id"]),
            _baseline_request(json.loads(str(row["messages"]))),
            Answer.from_json(str(row["answer"])),
        )
        for row in parquet_files.rows(path, columns)
    ]


def _baseline_request(messages: Sequence[dict[str, Json]]) -> BaselineRequest:
    by_user = [prompt.text_of(m) for m in messages if m.get("role") == "user"]
    return BaselineRequest(by_user[-1] if by_user else "", holdout_task.request_text(messages))


def _most_frequent(values: Sequence[Value]) -> Value:
    return min(Counter(values).items(), key=lambda item: (-item[1], item[0]))[0]


def _baseline_scores(
    answers: AnswerSpace, document: Document, output: str
) -> dict[str, float | None]:
    # A baseline's label is also its likeliest.
    scores = lm_eval_tasks.score_output(answers.kind, document, output)
    is_chosen = task_metrics.CHOICE in answers.metrics
    return {**scores, task_metrics.CHOICE: scores["label"]} if is_chosen else scores
