"""What a workload's answers are: tool calls, labels, JSON or text."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from components.chat import dialects
from components.evaluate import json_answers
from components.evaluate.settings import Kind
from components.evaluate.task_metrics import AnswerSpace
from components.schema import Answer
from components.scorecard import HOLDOUT
from components.store import parquet_files

LONGEST_LABEL = 40  # characters; a longer answer is not a label

MAX_LABELS = 500
"""With more labels a classification is no longer one: on 5,700 requests of CLINC150 the baseline
learns 46 labels in 9 s of one core, 135 in 23 s and 495 in 42 s."""

FEWEST_A_LABEL = 5
"""The least mean number of answers per label: with fewer, short answers are equal by chance."""

FEWEST_JSON, FEWEST_ASKED_JSON = 0.95, 0.5
"""The share of JSON objects and lists from which a workload's answers are JSON, and the one where
its requests ask for it: models in production sometimes apologize, or are cut off."""

ODD_ANSWERS = 0.02
"""The most answers, as a share, that may be no labels where a classification is configured: models
in production sometimes explain or apologize. No label is right for their requests."""


def find_answer_space(
    answers: Sequence[Answer],
    configured: Kind | None,
    *,
    offers_tools: bool,
    asks_for_json: bool = False,
) -> AnswerSpace:
    """Detect the kind from all rows' answers, unless it is configured in the workload's file.

    Args:
        answers: All rows' answers.
        configured: The kind in the workload's file.
        offers_tools: Whether any request offers tools.
        asks_for_json: Whether nearly all requests were logged with a ``response_format`` of JSON.

    Raises:
        ValueError: The answers are not of the configured kind, or of too many labels.
    """
    if configured in ("classification", "json") and (problem := _problem(answers, configured)):
        raise ValueError(f"{problem}; leave out evaluate.kind")
    labels = _distinct_labels(answers)
    kind = configured or _detect_kind(
        answers, len(labels), offers_tools=offers_tools, asks_for_json=asks_for_json
    )
    return AnswerSpace(kind, labels if kind == "classification" else ())


def answer_space_of(snapshot: Path, configured: Kind | None) -> AnswerSpace:
    """Return the answer space (``find_answer_space``) of a snapshot's training side and holdout."""
    files = [snapshot / f"{side}.parquet" for side in ("train", HOLDOUT)]
    rows = [row for file in files for row in parquet_files.rows(file, ["answer", "tools"])]
    answers = [Answer.from_json(row["answer"]) for row in rows]
    tools = {row["tools"] for row in rows}
    return find_answer_space(answers, configured, offers_tools=any(map(json.loads, tools)))


def _detect_kind(
    answers: Sequence[Answer], labels: int, *, offers_tools: bool, asks_for_json: bool
) -> Kind:
    if offers_tools or any(answer.calls for answer in answers):
        return "tool_calls"
    if _json_share(answers) >= (FEWEST_ASKED_JSON if asks_for_json else FEWEST_JSON):
        return "json"
    is_labels = not _label_problem(answers, 0.0) and len(answers) >= FEWEST_A_LABEL * labels
    return "classification" if is_labels else "text"


def _problem(answers: Sequence[Answer], configured: Kind) -> str | None:
    if configured == "classification":
        problem = _label_problem(answers, ODD_ANSWERS)
        return problem and f"the answers are not a classification: {problem}"
    share = _json_share(answers)
    if share >= FEWEST_ASKED_JSON:
        return None
    return f"the answers are not JSON: {share:.0%} of them are JSON objects or lists"


def _json_share(answers: Sequence[Answer]) -> float:
    texts = [dialects.without_thought(answer.text) for answer in answers if not answer.calls]
    return sum(map(json_answers.is_json, texts)) / len(answers) if answers else 0.0


def _distinct_labels(answers: Iterable[Answer]) -> tuple[str, ...]:
    texts = {answer.text.strip() for answer in answers}
    return tuple(sorted(text for text in texts if _is_label(text)))


def _is_label(text: str) -> bool:
    return 0 < len(text) <= LONGEST_LABEL


def _label_problem(answers: Sequence[Answer], odd_share: float) -> str | None:
    if any(answer.calls for answer in answers):
        return "some call tools"
    odd = [text for answer in answers if not _is_label(text := answer.text.strip())]
    if len(odd) > odd_share * len(answers):
        return (
            f"{min(odd)[:LONGEST_LABEL]!r} is not a label of 1 to {LONGEST_LABEL} characters "
            f"({len(odd)} such answers of {len(answers)})"
        )
    labels = _distinct_labels(answers)
    if 2 <= len(labels) <= MAX_LABELS:
        return None
    return f"there are {len(labels)} different ones, expected 2 to {MAX_LABELS}"
