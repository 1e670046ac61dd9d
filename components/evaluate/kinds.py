"""Tell what a workload's answers are: calls of tools, one of a few labels, or text.

It decides what is measured. All answers of the snapshot are looked at, learned and held out, so
that a small holdout does not look like a choice among few.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from components.evaluate import metric, texts
from components.schema import Answer
from components.scorecard import Metric

Kind: TypeAlias = Literal["tool_calls", "classification", "text"]

LABEL_METRICS = {
    "label": Metric("of all requests: the answer is the right label, word for word"),
    "choice": Metric("of all requests: of all labels, the right one is the likeliest answer"),
}
"""The metrics of a classification; each is 0 or 1 on one request."""

METRICS: dict[Kind, dict[str, Metric]] = {
    "tool_calls": metric.METRICS,
    "classification": LABEL_METRICS,
    "text": texts.METRICS,
}

LONGEST_LABEL = 40
"""Characters: a longer answer is no label."""

MOST_LABELS = 100
"""With more of them, asking for the likelihood of each takes too long."""

FEWEST_A_LABEL = 5
"""Answers to each label on average: with fewer, short answers only happen to be alike."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What a workload's answers are; ``labels`` are sorted, and there are some in one kind only."""

    kind: Kind
    labels: tuple[str, ...] = ()


def find(answers: Sequence[Answer], named: Kind | None, *, offers_tools: bool) -> Answers:
    """Find the kind from the answers, unless the workload's file names it.

    Args:
        answers: Of all rows.
        named: What the file says.
        offers_tools: Whether any request offers tools.

    Raises:
        ValueError: A classification was named, and the answers are none.
    """
    problem = _no_labels(answers)
    if named == "classification" and problem:
        raise ValueError(f"the answers are no classification: {problem}; leave out evaluate.kind")
    found = "tool_calls" if offers_tools or any(one.calls for one in answers) else "text"
    fewest = FEWEST_A_LABEL * len(labels(answers))
    if found == "text" and not problem and len(answers) >= fewest:
        found = "classification"
    kind = named or found
    return Answers(kind, labels(answers) if kind == "classification" else ())


def is_measured(kind: Kind, name: str, reference: Answer) -> bool:
    """Tell whether a metric is measured on a request, whose right answer is ``reference``."""
    if kind != "tool_calls":
        return name in METRICS[kind]
    return metric.score("", reference, None).get(name) is not None


def labels(answers: Iterable[Answer]) -> tuple[str, ...]:
    """List the different texts of answers."""
    return tuple(sorted({one.text.strip() for one in answers}))


def _no_labels(answers: Sequence[Answer]) -> str | None:
    """Say why answers are not labels; ``None`` if they could be."""
    found = labels(answers)
    if any(one.calls for one in answers):
        return "some call tools"
    if not 2 <= len(found) <= MOST_LABELS:
        return f"there are {len(found)} different ones, wants 2 to {MOST_LABELS}"
    strange = next((one for one in found if not 0 < len(one) <= LONGEST_LABEL), None)
    if strange is None:
        return None
    return f"{strange[:LONGEST_LABEL]!r} is no label of 1 to {LONGEST_LABEL} characters"
