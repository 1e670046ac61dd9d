"""The signs and the log of starts, read from a warehouse."""

from collections.abc import Generator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from components.collect.source import Input
from components.monitor import signs, turn_starts
from components.monitor.settings import Trigger
from components.monitor.turn_starts import TurnStart
from components.schema import Json
from components.store import ledger, manifest
from components.store.warehouse import Connection
from tests.support import logs, warehouses

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
CHANGE = 1_760_000_000


@pytest.fixture
def con(tmp_path: Path) -> Generator[Connection]:
    with warehouses.connect(tmp_path / "warehouse.duckdb") as con:
        yield con


def load(con: Connection, folder: Path, kind: str, lines: list[dict[str, Json]]) -> None:
    path = logs.write(folder / f"{kind}.jsonl", lines)
    source = "fivekey" if kind == "interactions" else "feedback"
    logs.load_input(con, Input(str(path), source), now=NOW)


def asked(number: int, question: str, **changes: Json) -> dict[str, Json]:
    at: Json = CHANGE - 1000 + number
    return logs.interaction(question, response_id=f"r{number}", timestamp=at, **changes)


def test_feedback_counts_from_its_loading_time(con: Connection, tmp_path: Path) -> None:
    load(con, tmp_path, "feedback", [logs.feedback(actor_id=f"a{n}") for n in range(7)])
    for since, count in ((NOW - timedelta(1), 7), (NOW, 0)):
        sign = signs.feedback_sign(con, "weather", since, Trigger(min_feedback=5))
        assert sign and sign.figure == count
    assert signs.feedback_sign(con, "weather", NOW, Trigger(min_feedback=None)) is None


def test_only_the_first_request_of_a_conversation_is_an_input(
    con: Connection, tmp_path: Path
) -> None:
    lines = [asked(n, "Is it cold in Rome?", conversation_id=f"c{n // 2}") for n in range(400)]
    new = [asked(1500 + n, "Sell my shares", conversation_id="c-new") for n in range(50)]
    load(con, tmp_path, "interactions", lines + new)
    sign = signs.input_sign(con, "weather", datetime.fromtimestamp(CHANGE, UTC), Trigger())
    assert sign and "1 new requests against 200 earlier ones" in sign.text


def test_the_last_vote_of_a_person_counts_by_the_time_of_the_answer(
    con: Connection, tmp_path: Path
) -> None:
    load(con, tmp_path, "interactions", [asked(n * 10, f"Day {n}?") for n in range(200)])
    cast = [
        logs.feedback(response_id=f"r{n * 10}", timestamp=CHANGE + 9000, value="up")
        for n in range(200)
    ]
    changed = [
        logs.feedback(response_id=f"r{n * 10}", timestamp=CHANGE + 9001, value="down")
        for n in range(100, 200)
    ]
    load(con, tmp_path, "feedback", cast + changed)
    sign = signs.vote_sign(con, "weather", datetime.fromtimestamp(CHANGE, UTC), Trigger())
    assert sign and sign.is_reached
    assert "thumbs down 0 of 100 before the champion, 100 of 100 since" in sign.text


def start(start_id: str, *, started: bool, run: str | None = None) -> TurnStart:
    return TurnStart(start_id, "weather", "trigger", started, "why", NOW, run)


def test_starts_and_non_starts_are_logged(con: Connection) -> None:
    turn_starts.record_start(con, start("s1", started=False))
    turn_starts.record_start(con, start("s2", started=True))
    turn_starts.record_start(con, start("s2", started=True))
    assert {
        (entry.start_id, entry.started) for entry in turn_starts.read_starts(con, "weather", None)
    } == {
        ("s1", False),
        ("s2", True),
    }


def end_turn(con: Connection, folder: Path, now: datetime) -> None:
    folder.mkdir()
    manifest.write(folder, kind="turn", now=now, body={})
    ledger.record_output(con, "weather", folder, now=now)


def test_traffic_is_new_until_a_turn_that_saw_it_has_completed(
    con: Connection, tmp_path: Path
) -> None:
    turn_starts.record_start(con, start("s1", started=True, run="run-1"))
    assert turn_starts.learned_until(con, "weather", LATER) is None
    later = NOW + timedelta(hours=3)
    end_turn(con, tmp_path / "run-1", later)
    assert turn_starts.learned_until(con, "weather", LATER) == NOW
    turn_starts.record_start(con, replace(start("s2", started=True, run="run-2"), looked_at=later))
    assert turn_starts.learned_until(con, "weather", LATER) == NOW
    assert turn_starts.learned_until(con, "other", LATER) is None


def test_a_turn_before_the_log_of_starts_counts_from_its_end(
    con: Connection, tmp_path: Path
) -> None:
    end_turn(con, tmp_path / "run-1", NOW)
    assert turn_starts.learned_until(con, "weather", LATER) == NOW


def test_a_turn_from_before_the_clock_was_set_back_hides_no_traffic(
    con: Connection, tmp_path: Path
) -> None:
    turn_starts.record_start(con, start("s1", started=True, run="run-1"))
    turn_starts.record_start(con, replace(start("s2", started=True, run="run-2"), looked_at=LATER))
    for run, at in (("run-1", NOW), ("run-2", LATER)):
        end_turn(con, tmp_path / run, at)
    assert turn_starts.learned_until(con, "weather", LATER - timedelta(hours=1)) == NOW


def test_a_lost_start_is_claimed_by_one_turn_only(con: Connection) -> None:
    turn_starts.record_start(con, start("s1", started=True))
    later = NOW + timedelta(hours=1)
    assert [entry.start_id for entry in turn_starts.unclaimed_starts(con, "weather", later)] == [
        "s1"
    ]
    assert turn_starts.claim_start(con, "s1", "run-1")
    assert not turn_starts.claim_start(con, "s1", "run-2")
    assert turn_starts.claim_start(con, "s1", "run-1")  # the same run, after a crash
    assert turn_starts.unclaimed_starts(con, "weather", later) == []
