"""Ask a person to label the interactions whose labels help most, or to audit references."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeAlias

from components.collect import load_file
from components.collect.lines import Unreadable
from components.collect.load_file import Loaded
from components.collect.record_batches import RecordOrigin
from components.collect.source import Defaults, ParsedRecord, SourceRow
from components.collect.sources import feedback
from components.dataset import freeze_snapshot, held_references
from components.dataset.held_references import HeldReference
from components.review import audit, label_files, pick
from components.review.label_files import Labelled
from components.review.pick import Reason, Reviewable, ReviewQuestion
from components.schema import Json
from components.store import manifest, spool, warehouse
from components.store.manifest import SnapshotManifest
from flows import snapshots, sources
from flows.settings import Settings
from flows.workload_file import Workload

Answered: TypeAlias = "dict[str, Json] | Literal['skip', 'quit']"  # the record of feedback, if any

Ask = Callable[[int, ReviewQuestion], Answered]  # shows a numbered question


@dataclass(frozen=True, slots=True)
class Session:
    """The counts of a session: questions shown, questions answered, rows loaded."""

    shown: int
    answered: int
    loaded: int


def choose_questions(
    home: Settings, workload: Workload, count: int, *, reviewer: str, now: datetime
) -> list[ReviewQuestion]:
    """Curate the workload as it is now, and choose what to ask."""
    models = pick.read_measured(home.scorecards / workload.workload, workload.gate.metric)
    with snapshots.curated_copy(workload, home, now=now) as (copy, _):
        return pick.choose_questions(
            copy.con, workload.workload, count, reviewer=reviewer, measured=models
        )


def audit_questions(
    home: Settings, workload: Workload, count: int, *, now: datetime
) -> list[ReviewQuestion]:
    """Return the references that are left of the newest snapshot's audit; draw ``count`` if none.

    The person sees the request and its reference, not what any model answered. ``LookupError``
    without a snapshot.
    """
    name = workload.workload
    snapshot = freeze_snapshot.newest_snapshot(home.snapshots, name)
    held = {row.example_id: row for row in held_references.read(home.tables, snapshot)}
    version = SnapshotManifest.read(snapshot).holdout_version
    candidates = [
        (row.example_id, min(row.interaction_ids)) for row in held.values() if not row.is_vouched
    ]
    with (
        warehouse.connect(home.tables, writes=["raw"]) as con,
        warehouse.transaction(con),
    ):
        askable = {row.example_id for row in held.values() if not row.is_corrected}
        drawn = audit.draw(con, name, version, candidates, count, askable=askable, now=now)
        ids = [row.interaction_id for row in drawn]
        targets = label_files.find_targets(con, name, ids)
    return [
        _audit_question(held[row.example_id], targets[row.interaction_id], name)
        for row in drawn
        if row.interaction_id in targets
    ]


def _audit_question(
    reference: HeldReference, target: label_files.Target, workload: str
) -> ReviewQuestion:
    about = Reviewable(
        interaction_id=target.interaction_id,
        workload_id=workload,
        client_id=target.client_id,
        response_id=target.response_id or "",
        example_id=reference.example_id,
        messages=reference.messages,
        tools=reference.tools,
        answer=reference.answer,
        cluster_id=reference.example_id,
        requests=1,
        judged=0,
        labels=1,
        people_for=0,
        people_against=0,
        flags=[],
    )
    return ReviewQuestion(about, (Reason(0.0, "drawn at random: is this held-out answer right?"),))


def _note_audited(
    home: Settings,
    workload: str,
    answers: Iterable[tuple[str, dict[str, Json]]],
    reviewer: str,
    now: datetime,
) -> None:
    """Record answers, by interaction, on references that were drawn; others do nothing."""
    with warehouse.connect(home.tables, writes=["raw"]) as con, warehouse.transaction(con):
        for interaction_id, record in answers:
            is_right = record["kind"] == "thumb" and record["value"] == "up"
            verdict = "right" if is_right else "wrong"
            audit.answer(con, workload, interaction_id, verdict, auditor=reviewer, now=now)


def ask_questions(
    home: Settings,
    questions: Sequence[ReviewQuestion],
    by: Ask,
    *,
    now: Callable[[], datetime],
    audited_by: str | None = None,
) -> Session:
    """Ask the questions in turn; load the answers even if the person stops early.

    ``audited_by`` is the person's name if the questions are of an audit, which counts its answers.
    """
    writer = spool.Writer(home.spool)
    shown = answered = 0
    try:
        for number, question in enumerate(questions, 1):
            answer = by(number, question)
            shown += 1
            if answer == "quit":
                break
            if isinstance(answer, dict):
                about = question.about
                if audited_by is not None:
                    told = [(about.interaction_id, answer)]
                    _note_audited(home, about.workload_id, told, audited_by, now())
                if about.response_id:  # else feedback can't name it
                    # A terminal can type bytes that are no text.
                    body = json.dumps(answer, ensure_ascii=False).encode(errors="replace")
                    writer.commit([spool.line("feedback", about.client_id, body)])
                answered += 1
    finally:
        writer.seal()
        loaded = sources.load_spool(home, now=now())
    return Session(shown, answered, sum(segment.new for segment in loaded))


def export_questions(path: Path, questions: Iterable[ReviewQuestion], *, now: datetime) -> int:
    """Write questions for a labelling tool, a JSON object a line; return how many."""
    lines = [label_files.question_line(question, now=now) + "\n" for question in questions]
    path.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_atomically(path, "".join(lines))
    return len(lines)


def import_answers(
    home: Settings, path: Path, workload: str, *, reviewer: str, now: datetime
) -> tuple[Loaded, int]:
    """Load a labelling tool's answers; return the load's result and the number unanswered.

    Unreadable lines go to quarantine. Idempotent for the same file. Answers on references that an
    audit has drawn are its answers, too.
    """
    with warehouse.connect(home.tables, writes=["raw"]) as con, path.open("rb") as file:
        labels = list(label_files.read_labels(con, file, workload, reviewer=reviewer))
        digest = manifest.digest([manifest.file_digest(path), reviewer, workload])
        origin = RecordOrigin(str(path), digest, feedback.NAME, Defaults("", ""), now)
        answered = [
            label for label in labels if label.record is not None or label.objection is not None
        ]
        loaded = load_file.load_records(con, origin, [*map(_record_of_label, answered)])
    told = [
        (str(json.loads(label.content)["interaction_id"]), label.record)
        for label in answered
        if label.record is not None
    ]
    _note_audited(home, workload, told, reviewer, now)
    return loaded, len(labels) - len(answered)


def feedback_target(about: Reviewable) -> dict[str, Json]:
    """Return the ids of an interaction that feedback names."""
    return {
        "workload_id": about.workload_id,
        "client_id": about.client_id,
        "response_id": about.response_id,
    }


def vote(
    about: Reviewable, verdict: label_files.Verdict, *, reviewer: str, at: datetime
) -> dict[str, Json]:
    """Write a person's thumb on an interaction."""
    return label_files.vote_feedback(feedback_target(about), verdict, reviewer=reviewer, at=at)


def correction(about: Reviewable, text: str, *, reviewer: str, at: datetime) -> dict[str, Json]:
    """Write a person's correction of an interaction; ``ValueError`` unless it is an answer."""
    return label_files.correction_feedback(
        feedback_target(about), label_files.read_message(text), reviewer=reviewer, at=at
    )


def _record_of_label(label: Labelled) -> ParsedRecord | Unreadable:
    if label.record is None:
        return Unreadable(label.number, label.content.rstrip(b"\r\n"), str(label.objection))
    row = SourceRow(label.number, json.dumps(label.record, ensure_ascii=False), label.record)
    return ParsedRecord(row, "feedback", label.record)
