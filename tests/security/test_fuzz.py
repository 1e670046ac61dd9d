"""Hostile rows on the whole way from the receiver to a snapshot: no exception, and no lost row."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path

import httpx
import pytest

from components.collect.load_file import Loaded
from components.receive import payloads
from components.receive.settings import RefusedError
from flows import snapshots
from flows.settings import Settings
from tests.flows.test_snapshots import workload
from tests.support import hostile, logs, receivers, warehouses
from tests.support.receivers import Receiver

TOGETHER = 50
SOUND = 20
PUT_TO_THE_RECEIVER = 2000
"""Of so many rows those that it refuses are sent, too; each takes a request of its own to find."""


def batches(lines: Iterator[str]) -> Iterator[list[str]]:
    while some := list(islice(lines, TOGETHER)):
        yield some


def send(client: httpx.Client, path: str, lines: list[str]) -> int:
    """Send lines together, without those that are refused; return how many were taken."""
    left = [*lines]
    while left:
        answer = client.post(path, content="\n".join(left).encode("utf-8", "surrogatepass"))
        if answer.status_code == 200:
            return int(answer.json()["accepted"])
        assert answer.status_code in (400, 422), answer.text
        named = re.match(r"line (\d+)", answer.json()["detail"])
        del left[int(named[1]) - 1 if named else 0]
    return 0


def not_refused(kind: payloads.Kind, lines: Iterator[str]) -> Iterator[str]:
    """Leave out what the receiver would refuse, but for what comes first."""
    yield from islice(lines, PUT_TO_THE_RECEIVER)
    for line in lines:
        with suppress(RefusedError):
            payloads.read_records(kind, line.encode("utf-8", "surrogatepass"), now=0)
            yield line


def accepted(receiver: Receiver, seed: int, count: int) -> int:
    """Send records; return how many interactions and signals were taken."""
    made = hostile.Hostile(seed)
    sound = (
        json.dumps(logs.interaction(f"{n} {n} {n}: how is it there?", response_id=f"sound-{n}"))
        for n in range(SOUND)
    )
    interactions = chain(sound, made.interactions(count))
    sent: tuple[tuple[payloads.Kind, Iterator[str]], ...] = (
        ("interactions", interactions),
        ("feedback", made.feedback(count // 10, count)),
    )
    headers = {"authorization": f"Bearer {receiver.token}"}
    with httpx.Client(base_url=receiver.url, headers=headers, timeout=60) as client:
        taken = sum(
            send(client, f"/v1/{kind}", some)
            for kind, lines in sent
            for some in batches(not_refused(kind, lines))
        )
    receiver.stop()
    return taken


def require_nothing_lost(home: Settings, loaded: list[Loaded], taken: int, seed: int) -> None:
    """Check that each record is in the warehouse: loaded, the same as another one, or put aside."""
    new, known = sum(one.new for one in loaded), sum(one.known for one in loaded)
    quarantined = sum(one.quarantined for one in loaded)
    assert new + known + quarantined == taken, f"seed {seed}: {taken} were taken, {loaded} found"
    with warehouses.connect(home.warehouse) as con:
        ((stored,),) = con.execute(
            "select (select count(*) from raw.interactions) + (select count(*) from raw.feedback)"
        ).fetchall()
        put_aside = con.execute(
            "select count(*), count(*) filter (reason <> ''), count(*) filter (content <> '')"
            " from raw.quarantine"
        ).fetchall()
    assert stored == new, f"seed {seed}"
    assert put_aside == [(quarantined,) * 3], f"seed {seed}: not all have a reason and their bytes"


def revolve(folder: Path, seed: int, count: int) -> dict[str, int]:
    """Send, collect, curate and freeze; check that every row is somewhere; count the verdicts."""
    home = Settings(folder / "home", 4200, 5000)
    home.home.mkdir()
    with receivers.running(home.home) as receiver:
        taken = accepted(receiver, seed, count)
    with warehouses.connect(home.warehouse) as con:
        loaded = logs.load_spool(con, home.spool, now=logs.NOW)
    require_nothing_lost(home, loaded, taken, seed)
    curated = snapshots.freeze_workload(workload(home), home, now=logs.NOW, ask=False)
    assert curated.snapshot is not None
    with warehouses.connect(home.warehouse) as con:
        ((rows,),) = con.execute(
            "select count(*) from raw.interactions where workload_id = 'weather'"
        ).fetchall()
        ((signals,),) = con.execute(
            "select count(*) from raw.feedback where workload_id = 'weather'"
        ).fetchall()
        ((fates,),) = con.execute("select count(*) from curated.fates").fetchall()
    assert sum(curated.tally.counts.values()) == rows, f"seed {seed}"
    assert fates == signals, f"seed {seed}"
    return curated.tally.counts | {f"! {name}": n for name, n in curated.tally.unjudgeable.items()}


@pytest.mark.timeout(900)
def test_no_hostile_row_is_lost_or_ends_anything(tmp_path: Path):
    counts = revolve(tmp_path, seed=1, count=250)
    assert counts["kept"] > SOUND / 2


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("seed", range(2, 12))
def test_no_row_of_a_million_is_lost_or_ends_anything(tmp_path: Path, seed: int):
    counts = revolve(tmp_path, seed, count=100_000)
    assert counts["kept"] > SOUND / 2
