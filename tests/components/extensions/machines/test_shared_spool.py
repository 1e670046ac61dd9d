"""Segments that receivers ship to an object store, and that a collect on another machine loads."""

import json
import os
from collections.abc import Generator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import pytest
from s3fs import S3FileSystem

from components.collect.segments import HOLD_BACK_SECONDS
from components.extensions.machines import shared_spool
from components.extensions.machines.object_store import ObjectStore, StoreError
from components.store import spool
from flows import settings, sources
from flows.machines import spool_shipper
from flows.settings import Settings
from tests.support import buckets, logs, telemetry, warehouses

STORE = ObjectStore("s3://flywheel/team")
NOW = datetime.now(UTC)
MESSAGES: list[telemetry.Event] = [
    ("gen_ai.user.message", {"content": "Is it raining?"}),
    ("gen_ai.choice", {"index": 0, "finish_reason": "stop", "message": {"content": "No."}}),
]


@pytest.fixture(scope="module")
def server() -> Generator[None]:
    with buckets.serving():
        yield


@pytest.fixture
def root(tmp_path: Path, server: None) -> Path:
    buckets.emptied()
    return tmp_path


def machine(root: Path, name: str) -> Settings:
    return settings.load({"FLYWHEEL_HOME": str(root / name), "FLYWHEEL_STORE": STORE.url})


def receive(home: Settings, *bodies: tuple[spool.Kind, str]) -> Path:
    writer = spool.Writer(home.spool)
    writer.commit([spool.line(kind, "app", body.encode()) for kind, body in bodies])
    segment = writer.seal()
    assert segment is not None
    return segment


def question(number: int) -> tuple[spool.Kind, str]:
    return "interactions", json.dumps(logs.interaction(f"{number}?", response_id=f"r{number}"))


def rows(home: Settings) -> tuple[list[str], int]:
    """Return the response ids of all interactions, and how many lines are in quarantine."""
    with warehouses.connect(home.warehouse) as con:
        ids = con.execute(
            "select coalesce(record, payload) ->> '$.response.id' from raw.interactions order by 1"
        ).fetchall()
        ((lines,),) = con.execute("select count(*) from raw.quarantine").fetchall()
    return [response_id for (response_id,) in ids], lines


def collect(home: Settings) -> None:
    sources.load_spool(home, now=datetime.now(UTC))


def test_what_two_receivers_took_is_loaded_on_a_third_machine_and_nothing_is_left(
    root: Path,
) -> None:
    collecting = machine(root, "collecting")
    for number in range(2):
        home = machine(root, f"receiver-{number}")
        receive(home, question(number), question(9))
        assert spool_shipper.ship_once(home, STORE) == 1
        assert spool.sealed(home.spool) == []
    receive(collecting, question(5))
    collect(collecting)
    assert rows(collecting) == (["r0", "r1", "r5", "r9"], 0)
    assert shared_spool.listed(STORE) == []
    assert list(collecting.spool.iterdir()) == []


def test_the_span_at_one_receiver_and_the_log_records_at_another_are_one_interaction(
    root: Path,
) -> None:
    collecting = machine(root, "collecting")
    parts: list[spool.Kind] = ["traces", "logs"]
    requests = dict(zip(parts, telemetry.logs_of_a_span(*MESSAGES), strict=True))
    for kind in parts:
        home = machine(root, kind)
        receive(home, (kind, json.dumps(telemetry.json_form(requests[kind]))))
        spool_shipper.ship_once(home, STORE)
        collect(collecting)
        assert list(collecting.spool.iterdir()) == [], "what waits, waits where all can find it"
    assert rows(collecting) == (["chatcmpl-1"], 0)
    assert shared_spool.listed(STORE) == []


def test_a_part_waits_as_long_as_it_would_where_it_came(root: Path) -> None:
    collecting, home = machine(root, "collecting"), machine(root, "receiver")
    span, _ = telemetry.logs_of_a_span(*MESSAGES)
    segment = receive(home, ("traces", json.dumps(telemetry.json_form(span))))
    before = datetime.now(UTC) - timedelta(seconds=HOLD_BACK_SECONDS - 20)
    os.utime(segment, (before.timestamp(), before.timestamp()))
    spool_shipper.ship_once(home, STORE)
    collect(collecting)
    collect(collecting)
    assert rows(collecting) == ([], 0)
    sources.load_spool(collecting, now=datetime.now(UTC) + timedelta(seconds=21))
    assert rows(collecting) == ([], 1)
    assert shared_spool.listed(STORE) == []


def test_a_receiver_whose_clock_is_a_day_ahead_delays_nothing_by_a_day(root: Path) -> None:
    collecting, home = machine(root, "collecting"), machine(root, "receiver")
    span, _ = telemetry.logs_of_a_span(*MESSAGES)
    segment = receive(home, ("traces", json.dumps(telemetry.json_form(span))))
    ahead = datetime.now(UTC) + timedelta(days=1)
    os.utime(segment, (ahead.timestamp(), ahead.timestamp()))
    spool_shipper.ship_once(home, STORE)
    collect(collecting)
    assert rows(collecting) == ([], 0)
    later = datetime.now(UTC) + timedelta(seconds=HOLD_BACK_SECONDS + 1)
    sources.load_spool(collecting, now=later)
    assert rows(collecting) == ([], 1)
    assert shared_spool.listed(STORE) == []


def test_a_part_waits_for_the_others_though_its_receivers_clock_is_minutes_behind(
    root: Path,
) -> None:
    collecting, home = machine(root, "collecting"), machine(root, "receiver")
    span, records = telemetry.logs_of_a_span(*MESSAGES)
    segment = receive(home, ("traces", json.dumps(telemetry.json_form(span))))
    behind = datetime.now(UTC) - timedelta(minutes=5)
    os.utime(segment, (behind.timestamp(), behind.timestamp()))
    with buckets.seen_by_a_clock_behind(seconds=300):
        spool_shipper.ship_once(home, STORE)
    collect(collecting)
    assert rows(collecting) == ([], 0)
    receive(collecting, ("logs", json.dumps(telemetry.json_form(records))))
    collect(collecting)
    assert rows(collecting) == (["chatcmpl-1"], 0)
    assert shared_spool.listed(STORE) == []


class CuttingStore(ObjectStore):
    """A store whose first answer is cut, without the client noticing."""

    answers = 0

    def get(self, place: str, path: Path) -> bool:
        is_there = super().get(place, path)
        CuttingStore.answers += 1
        if CuttingStore.answers == 1:
            os.truncate(path, path.stat().st_size // 2)
        return is_there


def test_a_segment_that_came_cut_is_fetched_again_before_it_is_deleted(root: Path) -> None:
    home = machine(root, "receiver")
    content = receive(home, question(1), question(2)).read_bytes()
    spool_shipper.ship_once(home, STORE)
    (shared,) = shared_spool.listed(STORE)
    path = shared_spool.fetch(CuttingStore(STORE.url), shared, home.spool, now=NOW, ahead_ns=0)
    assert path is not None and path.read_bytes() == content


@pytest.mark.slow
def test_a_shipper_beside_a_collect_takes_nothing_away_that_was_not_loaded(
    root: Path,
) -> None:
    collecting, home = machine(root, "collecting"), machine(root, "receiver")
    for number in (1, 2):
        receive(home, question(number))
    spool_shipper.ship_once(home, STORE)
    shipping = Thread(target=spool_shipper.ship_once, args=(collecting, STORE))
    fetched = list[str]()

    class StoreOfBoth(ObjectStore):
        def get(self, place: str, path: Path) -> bool:
            is_there = super().get(place, path)
            fetched.append(place)
            if len(fetched) == 2:  # the first one is in the spool
                shipping.start()
                shipping.join(3)  # where it waits for the collect it goes on later
            return is_there

    collect(replace(collecting, store=StoreOfBoth(STORE.url)))
    shipping.join()
    collect(collecting)
    assert rows(collecting) == (["r1", "r2"], 0)
    assert shared_spool.listed(STORE) == []


def test_shipping_and_loading_a_segment_twice_changes_nothing(root: Path) -> None:
    collecting, home = machine(root, "collecting"), machine(root, "receiver")
    segment = receive(home, question(1), ("interactions", "[1]"))
    content, times = segment.read_bytes(), segment.stat()
    for _ in range(2):  # as if it was killed before it deleted the segment
        spool_shipper.ship_once(home, STORE)
        segment.write_bytes(content)
        os.utime(segment, ns=(times.st_mtime_ns, times.st_mtime_ns))
    assert len(shared_spool.listed(STORE)) == 1
    (shared,) = shared_spool.listed(STORE)
    shared_spool.fetch(
        STORE, shared, collecting.spool, now=NOW, ahead_ns=0
    )  # as if a collect was killed there
    collect(collecting)
    spool_shipper.ship_once(home, STORE)
    collect(collecting)
    assert rows(collecting) == (["r1"], 1)


def test_what_a_killed_fetch_left_is_deleted_by_the_next_collect(root: Path) -> None:
    collecting = machine(root, "collecting")
    receive(collecting, question(1))
    (collecting.spool / "0123.fetched").write_bytes(b"half of a segment")
    collect(collecting)
    assert rows(collecting) == (["r1"], 0)
    assert list(collecting.spool.iterdir()) == []


def test_a_damaged_segment_costs_its_damaged_lines_only(root: Path) -> None:
    collecting, home = machine(root, "collecting"), machine(root, "receiver")
    receive(home, question(1), question(2))
    spool_shipper.ship_once(home, STORE)
    (shared,) = shared_spool.listed(STORE)
    place = f"flywheel/team/spool/{shared.name}"
    system = S3FileSystem(use_listings_cache=False)
    system.pipe_file(place, system.cat_file(place)[:-9])
    system.pipe_file("flywheel/team/spool/somebody's notes.txt", b"not a segment")
    collect(collecting)
    assert rows(collecting) == (["r1"], 1)
    assert shared_spool.listed(STORE) == []
    assert system.exists("flywheel/team/spool/somebody's notes.txt")


def test_a_store_that_is_away_loses_nothing_and_holds_up_nothing_that_is_here(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = machine(root, "receiver")
    receive(home, question(1))
    with monkeypatch.context() as away:
        buckets.take_away(away)
        with pytest.raises(StoreError, match=r"shipping .*receiver/spool to s3://flywheel/team"):
            spool_shipper.ship_once(home, STORE)
        assert len(spool.sealed(home.spool)) == 1
        with pytest.raises(StoreError, match="collecting from s3://flywheel/team"):
            collect(home)
    S3FileSystem.clear_instance_cache()
    assert rows(home) == (["r1"], 0)
    collect(home)
