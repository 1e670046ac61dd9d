"""A promotion whose evidence went stale is on record as lapsed, once, whenever that was seen."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from components.decide import decision_log
from components.decide.decision_log import LogEvent
from components.decide.record_answer import Question, TypedAnswer
from components.store import warehouse
from flows import approval_loop, settings, turn, workload_file
from tests.support import warehouses, workload_text

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_what_was_approved_and_then_went_stale_lapses_once_and_counts_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path))
    with warehouses.connect(settings.load().warehouse) as con, warehouse.transaction(con):
        decision_log.append_event(
            con, LogEvent("approve", "support", "e1", "run-1", NOW, "ada", "good")
        )
    for _ in range(2):
        approval_loop.expire.fn(
            Question("support", "e1", "run-1", 0), None, "the champion is another"
        )
    with warehouse.connect(settings.load().warehouse) as con:
        links = decision_log.links(con)
        assert decision_log.decision_on(con, "e1") is None
    assert [(link.kind, link.reason, link.comment) for link in links] == [
        ("approve", "", "good"),
        ("lapsed", "stale", "the champion is another"),
    ]


def test_what_a_person_said_too_late_is_on_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path))
    late = TypedAnswer("reject", "ada", "it forgets refunds", reason="quality", blame="tool=refund")
    question = Question("support", "e1", "run-1", 1)
    approval_loop.expire.fn(question, late, "the policy has changed")
    approval_loop.expire.fn(question, TypedAnswer("approve", "bob"), "the policy has changed")
    with warehouse.connect(settings.load().warehouse) as con:
        (link,) = decision_log.links(con)
    assert (link.kind, link.approver, link.blame) == ("lapsed", "ada", "tool=refund")
    assert link.comment == (
        "reject (quality) came too late: the policy has changed; "
        "the answer said: it forgets refunds"
    )


def test_stale_evidence_lapses_for_every_promotion_that_was_answered_not_only_for_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a rollback makes it fresh again, and the next turn promotes without asking."""
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path))
    with warehouses.connect(settings.load().warehouse) as con, warehouse.transaction(con):
        for kind, evidence, run in (("approve", "e1", "crashed"), ("approve", "e2", "other")):
            event = LogEvent(kind, "support", evidence, run, NOW, "ada", "good")  # pyright: ignore
            decision_log.append_event(con, event)
    for _ in range(2):
        approval_loop.expire.fn(Question("support", "e1", "resumed", 0), None, "another champion")
    with warehouse.connect(settings.load().warehouse) as con:
        assert decision_log.decision_on(con, "e1") is None
        assert decision_log.decision_on(con, "e2") is not None
        lapsed = [link.flow_run_id for link in decision_log.links(con) if link.kind == "lapsed"]
    assert lapsed == ["resumed", "crashed"]


def test_a_made_up_start_does_not_replace_the_starters_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attack: with Prefect's login, whoever starts a turn so could approve what comes of it."""
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "home"))
    approve = {"approvers": [{"name": "ada"}], "refuse_starter": True}
    workload = workload_file.read_workload(workload_text.write(folder, approve=approve))
    with pytest.raises(turn.UnnamedStarterError, match="name the starter"):
        turn.carry_on(workload, "made up", "", is_frozen=False)
