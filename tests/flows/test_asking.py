"""A promotion whose evidence went stale is on record as lapsed, once, whenever that was seen."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from components import warehouse
from components.decide import record
from components.decide.hearing import Question
from components.decide.record import Event
from flows import asking, settings

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_what_was_approved_and_then_went_stale_lapses_once_and_counts_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path))
    with warehouse.connect(settings.load().warehouse) as con, warehouse.transaction(con):
        record.append(con, Event("approve", "support", "e1", "run-1", NOW, "ada", "good"))
    for _ in range(2):
        asking.lapse.fn(Question("support", "e1", "run-1", 0), None, "the champion is another")
    with warehouse.connect(settings.load().warehouse) as con:
        links = record.links(con)
        assert record.decision_on(con, "e1") is None
    assert [(one.kind, one.reason, one.comment) for one in links] == [
        ("approve", "", "good"),
        ("lapsed", "stale", "the champion is another"),
    ]
