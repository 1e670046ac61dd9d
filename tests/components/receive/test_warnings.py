"""What the receiver warns of is what collecting quarantines."""

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from components.receive import objections, payloads
from components.receive.settings import RefusedError
from components.schema import Json
from components.store.warehouse import Connection
from tests.support import logs, mutation
from tests.support.receivers import Receiver

NOW = datetime(2026, 11, 24, tzinfo=UTC)
LATEST = NOW.timestamp() + 86_400

DOUBTFUL: dict[str, dict[str, Json]] = {
    "time-text": logs.interaction(timestamp="yesterday"),
    "time-boolean": logs.interaction(timestamp=True),
    "time-milliseconds": logs.interaction(timestamp=1_760_000_000_000),
    "time-negative": logs.interaction(timestamp=-1),
    "time-null": logs.interaction(timestamp=None),
    "time-day": logs.interaction(timestamp="2025-02-30T10:00:00Z"),
    "workload-null": {**logs.interaction(), "workload_id": None},
    "workload-empty": {**logs.interaction(), "workload_id": " "},
    "request-text": {**logs.interaction(), "request": "Rain?"},
    "messages-missing": {**logs.interaction(), "request": {"prompt": "Rain?"}},
    "messages-text": {**logs.interaction(), "request": {"messages": "Rain?"}},
    "response-text": {**logs.interaction(), "response": "Dry."},
    "kind": logs.feedback("stars", 5),
    "thumb": logs.feedback("thumb", 1),
    "rating-without-scale": logs.feedback("rating", 4),
    "rating-beyond": logs.feedback("rating", 6, scale=[1, 5]),
    "rating-infinite": logs.feedback("rating", 6, scale=[1, 10**400]),
    "correction": logs.feedback("correction", "Dry."),
    "outcome": logs.feedback("outcome", {"name": "sold"}),
    "outcome-infinite": logs.feedback("outcome", {"name": "sold", "value": 10**400}),
    "choice": logs.feedback("choice", {"chosen": "r1", "rejected": logs.say("Dry.")}),
    "comment": logs.feedback("thumb", "up", comment=5),
    "actor": logs.feedback("thumb", "up", actor_id=5),
    "two-targets": logs.feedback("thumb", "up", conversation_id="c"),
    "null-targets": logs.feedback("thumb", "up", response_id=None),
    "number-target": logs.feedback("thumb", "up", response_id=5),
}

SOUND: dict[str, dict[str, Json]] = {
    "time-offset": logs.interaction(timestamp="2025-10-09T10:53:20+02:00"),
    "time-zone": logs.interaction(timestamp="2025-10-09 10:53:20 Europe/Berlin"),
    "time-day": logs.interaction(timestamp="2025-10-09"),
    "time-slashes": logs.interaction(timestamp="2025/10/09 10:53:20"),
    "time-tab": logs.interaction(timestamp="02025-10-09\t10:53:20"),
    "time-nanoseconds": logs.interaction(timestamp="2025-10-09T10:53:20.123456789Z"),
    "time-blanks": logs.interaction(timestamp=" 2025-10-09T10:53:20 "),
    "response-odd": {**logs.interaction(), "response": {}},
    "takes-back": logs.feedback("thumb", None),
    "rating": logs.feedback("rating", -1, scale=[-1, 1.5]),
    "outcome": logs.feedback("outcome", {"name": "sold", "value": True}),
    "regenerate": logs.feedback("regenerate", True),
    "conversation": {**logs.without(logs.feedback(), "response_id"), "conversation_id": "c"},
}


def kind_of_record(record: dict[str, Json]) -> objections.Kind:
    return "feedback" if "kind" in record else "interactions"


def quarantined(con: Connection, folder: Path, record: dict[str, Json]) -> bool:
    path = logs.write(folder / "a.jsonl", [record])
    load = logs.load_feedback if kind_of_record(record) == "feedback" else logs.load
    return load(con, path, now=NOW).quarantined == 1


@pytest.mark.parametrize("record", DOUBTFUL.values(), ids=DOUBTFUL)
def test_a_record_that_collecting_will_quarantine_is_objected_to(
    record: dict[str, Json], con: Connection, tmp_path: Path
):
    assert objections.objection(kind_of_record(record), record, LATEST)
    assert quarantined(con, tmp_path, record)


@pytest.mark.parametrize("record", SOUND.values(), ids=SOUND)
def test_a_record_that_collecting_takes_is_not(
    record: dict[str, Json], con: Connection, tmp_path: Path
):
    assert objections.objection(kind_of_record(record), record, LATEST) is None
    assert not quarantined(con, tmp_path, record)


@pytest.mark.parametrize("kind", ["interactions", "feedback"])
def test_no_damaged_record_is_objected_to_that_collecting_takes(
    kind: objections.Kind, con: Connection, tmp_path: Path
):
    samples = [
        record for record in (*DOUBTFUL.values(), *SOUND.values()) if kind_of_record(record) == kind
    ]
    accepted: list[dict[str, Json]] = []
    doubtful: set[int] = set()
    for record in mutation.mutants(samples, 1_000, seed=5):
        with suppress(RefusedError):
            body = json.dumps(record).encode()
            if payloads.read_records(kind, body, now=NOW.timestamp()).doubts:
                doubtful.add(len(accepted))
            accepted.append(record)
    path = logs.write(tmp_path / "a.jsonl", accepted)
    (logs.load_feedback if kind == "feedback" else logs.load)(con, path, now=NOW)
    lines = con.execute("select line from raw.quarantine").fetchall()
    refused = {line - 1 for (line,) in lines}
    assert [accepted[n] for n in doubtful - refused] == []
    assert len(doubtful) > 0.95 * len(refused) > 400


def test_a_sender_is_warned_and_the_record_stored(receiver: Receiver):
    good, bad = logs.interaction(), logs.interaction(timestamp=1_760_000_000_000)
    answer = receiver.post("/v1/interactions", json=[good, bad])
    assert answer.status_code == 200
    assert answer.json() == {
        "accepted": 2,
        "warnings": [
            "record 2 is stored, but collecting will quarantine it: `timestamp` 1760000000000 "
            "lies more than a day in the future, expected unix seconds, not milliseconds"
        ],
    }
    thumb = receiver.post("/v1/feedback", json=logs.feedback("thumb", "maybe"))
    (warning,) = thumb.json()["warnings"]
    assert '`value` of a thumb is "maybe", expected up or down' in warning
    page = receiver.get("/metrics").text
    assert (
        'flywheel_receive_doubtful_records_total{client_id="app",kind="interactions"} 1.0' in page
    )
    receiver.stop()
    stored = receiver.stored()
    assert json.loads(stored[0].body) == [good, bad]


@pytest.mark.parametrize("padding", [0, 20_000], ids=["small", "large"])
def test_only_the_first_warnings_are_written_out(receiver: Receiver, padding: int):
    bad = logs.interaction("x" * padding, timestamp="yesterday")
    answer = receiver.post("/v1/interactions", json=[bad] * 30)
    warnings = answer.json()["warnings"]
    assert (answer.json()["accepted"], len(warnings)) == (30, 11)
    assert warnings[-1] == "20 further records will be quarantined as well"
