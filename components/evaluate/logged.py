"""Score what production answered, on the requests whose reference is not its own answer.

Where nobody corrected an answer it is the reference, and would be right by definition. So a request
counts only where something else says what is right. Best are reference values that came with the
log, since nobody chose these requests by what was answered. Where no request has such values, those
count whose answer a person corrected; people correct what is wrong, so that score is low by choice
and stands for these requests only.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pyarrow.parquet as pq

from components import manifest, native
from components.evaluate import kinds, posing
from components.evaluate.kinds import Kind
from components.evaluate.task import FILE, Document, Holdout
from components.native import Form
from components.schema import Answer, Call, Json
from components.scorecard import CORRECTED_ONLY, SCORED_ON, Sample

COLUMN = "logged_answer"


@dataclass(frozen=True, slots=True)
class Logged:
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


def read(snapshot: Path, kind: Kind) -> Logged | None:
    """Read the logged answers of a snapshot's holdout.

    Returns:
        ``None`` where nothing but they say what is right, or the snapshot is older than the column.
    """
    file = snapshot / FILE
    if COLUMN not in pq.read_schema(file).names:
        return None
    columns = ["example_id", "answer", "acceptable", COLUMN]
    rows = [row for row in pq.read_table(file, columns=columns).to_pylist() if row[COLUMN]]
    answers = {str(row["example_id"]): Answer.from_json(str(row[COLUMN])) for row in rows}
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
    return Logged(answers, counted, corrected_only=not valued) if counted else None


def run(holdout: Holdout, logged: Logged, max_new_tokens: int) -> list[Sample]:
    """Put the holdout to the log through lm-eval, as to a model; score only what counts."""
    documents = {one["example_id"]: one for one in holdout.documents}
    samples = written(holdout, logged.answers, max_new_tokens)
    kind = holdout.answers.kind
    return [
        replace(one, scores=_scores(documents[one.example_id], one.output, logged, kind))
        for one in samples
    ]


def written(holdout: Holdout, answers: Mapping[str, Answer], max_new_tokens: int) -> list[Sample]:
    """Put the holdout to recorded answers through lm-eval, as to a model.

    Each is told as the base would have written it, and read again.

    Args:
        holdout: What is asked.
        answers: By ``example_id``; where one is missing nothing was answered.
        max_new_tokens: As of a model; nothing that was recorded is cut off.
    """
    from components.evaluate.recorded import Recorded  # noqa: PLC0415 - loads torch

    said = {
        one["example_id"]: native.write_answer(
            cast("Form", one["form"]), answers.get(one["example_id"], Answer())
        )
        for one in holdout.documents
    }
    return posing.written(Recorded(said), holdout, max_new_tokens)


def _scores(document: Document, output: str, logged: Logged, kind: Kind) -> dict[str, float | None]:
    if document["example_id"] not in logged.counted:
        return dict.fromkeys(kinds.METRICS[kind])
    if logged.corrected_only:
        return posing.score(kind, document, output)
    return posing.score(kind, {**document, "answer": _wanted(document).to_json()}, output)


def _wanted(document: Document) -> Answer:
    """Give the calls that the reference values are of; their arguments are in these values."""
    return Answer(calls=tuple(Call(one["name"], {}) for one in json.loads(document["acceptable"])))
