"""A receiver killed under load, and the warehouse after the next collect."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import httpx

from components.receive.settings import Limits
from components.store import spool
from tests.benchmarks import load
from tests.benchmarks.load import Sent
from tests.support import logs, receivers, warehouses
from tests.support.receivers import Receiver

ROWS = 8_000
CONNECTIONS = 32


def log(path: Path) -> list[str]:
    """Write a log whose n-th line has the response id ``r<n>``."""
    lines = [logs.interaction("x" * 500, response_id=f"r{n}") for n in range(1, ROWS + 1)]
    logs.write(path, lines)
    return path.read_text().splitlines()


def send(receiver: Receiver, path: Path) -> "subprocess.Popen[str]":
    asked = [receiver.url, receiver.token, path, 60, CONNECTIONS]
    command = [sys.executable, load.__file__, *map(str, asked)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def stored_ids(home: Path) -> list[str]:
    """Collect the spool of ``home``; return the sorted response ids of all interactions."""
    with warehouses.connect(home / "warehouse.duckdb") as con:
        logs.load_spool(con, home / "spool", now=logs.NOW)
        rows = con.execute("select payload ->> '$.response.id' from raw.interactions").fetchall()
    return sorted(response_id for (response_id,) in rows)


def test_records_acknowledged_before_a_kill_are_stored_once(tmp_path: Path):
    lines = log(tmp_path / "log.jsonl")
    limits = Limits(segment_seconds=0.2)
    with receivers.running(tmp_path, limits) as receiver:
        generator = send(receiver, tmp_path / "log.jsonl")
        receivers.until(
            lambda: spool.stored_bytes(receiver.folder), lambda size: size > 500 * len(lines) / 10
        )
        receiver.kill()
        printed, _ = generator.communicate()
    sent = Sent(**json.loads(printed))
    acknowledged = {f"r{number}" for number in sent.acknowledged}
    assert 0 < len(acknowledged) < ROWS, "the kill came too early or too late"

    with receivers.running(tmp_path) as receiver:  # started again, it recovers; more is sent
        first = stored_ids(tmp_path)
        assert acknowledged <= set(first)
        assert len(first) == len(set(first))
        assert len(first) <= len(acknowledged) + CONNECTIONS  # on the disk, but the answer was lost
        rest = [line for n, line in enumerate(lines, 1) if f"r{n}" not in acknowledged]
        answer = receiver.post("/v1/interactions", content="\n".join(rest))
        assert answer.json() == {"accepted": len(rest)}
    assert stored_ids(tmp_path) == sorted(f"r{n}" for n in range(1, ROWS + 1))
    assert list((tmp_path / "spool").iterdir()) == []


def test_collect_recovers_the_segment_of_a_killed_receiver_without_a_restart(tmp_path: Path):
    with receivers.running(tmp_path) as receiver:
        for number in range(5):
            line = logs.interaction(response_id=f"r{number}")
            assert receiver.post("/v1/interactions", json=line).status_code == 200
        assert stored_ids(tmp_path) == []  # its writer lives
        receiver.kill()
    assert stored_ids(tmp_path) == [f"r{number}" for number in range(5)]


def test_duplicate_requests_are_stored_once(tmp_path: Path):
    with receivers.running(tmp_path) as receiver:
        for _ in range(3):
            receiver.post("/v1/interactions", json=[logs.interaction(), logs.interaction()])
    assert stored_ids(tmp_path) == ["r1"]


def test_a_stopping_receiver_answers_its_open_requests(tmp_path: Path):
    async def ask(receiver: Receiver) -> list[int]:
        header = {"authorization": f"Bearer {receiver.token}"}
        async with httpx.AsyncClient(headers=header, timeout=20) as client:
            lines = [logs.interaction(response_id=f"r{n}") for n in range(20)]
            asked = [client.post(f"{receiver.url}/v1/interactions", json=line) for line in lines]
            answers = asyncio.gather(*asked, return_exceptions=True)
            await asyncio.sleep(0.1)
            receiver.process.terminate()
            return [
                number
                for number, answer in enumerate(await answers)
                if isinstance(answer, httpx.Response) and answer.is_success
            ]

    with receivers.running(tmp_path) as receiver:
        acknowledged = asyncio.run(ask(receiver))
    assert {f"r{number}" for number in acknowledged} <= set(stored_ids(tmp_path))
    assert list((tmp_path / "spool").iterdir()) == []
