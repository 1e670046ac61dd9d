"""Two receivers, their shippers and collects of a third machine, killed again and again."""

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path

import httpx
import pytest

from components.extensions.machines import shared_spool
from components.extensions.machines.object_store import ObjectStore
from components.receive import client_tokens
from components.receive.settings import Limits
from components.store import spool
from flows import settings, sources
from flows.machines import spool_shipper
from tests.support import buckets, forking, launch_receiver, logs, telemetry, warehouses

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

FLYWHEEL = str(Path(sys.executable).with_name("flywheel"))
STORE = ObjectStore("s3://flywheel/team")
KILLS = 20
CALLS_EVERY = 10  # records between two calls whose span and log records go to different receivers
MESSAGES: list[telemetry.Event] = [
    ("gen_ai.user.message", {"content": "Is it raining?"}),
    ("gen_ai.choice", {"index": 0, "finish_reason": "stop", "message": {"content": "No."}}),
]


class Machine:
    """A home whose processes are started again when they are killed."""

    def __init__(self, home: Path) -> None:
        home.mkdir()
        self.home = home
        self.environment = os.environ | {"FLYWHEEL_HOME": str(home), "FLYWHEEL_STORE": STORE.url}
        self.token = client_tokens.add_token(home / "tokens.json", "app", now=datetime.now(UTC))
        self.url = ""
        self.commands: dict[str, subprocess.Popen[bytes]] = {}
        self._receiver: tuple[ExitStack, BaseProcess] | None = None

    def receive(self) -> None:
        stack, limits = ExitStack(), Limits(segment_seconds=0.3)
        place = (self.home / "spool", self.home / "tokens.json")
        server = forking.server(True, launch_receiver.launch, *place, limits)
        process, self.url = stack.enter_context(server)
        self._receiver = stack, process

    def end_receiver(self, *, is_kill: bool) -> None:
        assert self._receiver is not None
        stack, process = self._receiver
        if is_kill:
            process.kill()
        stack.close()

    def run(self, command: str) -> "subprocess.Popen[bytes]":
        self.commands[command] = subprocess.Popen(
            [FLYWHEEL, command], env=self.environment, stdout=subprocess.DEVNULL
        )
        return self.commands[command]

    def post(self, path: str, body: object) -> bool:
        """Send as a client does; return whether it was acknowledged."""
        head = {"authorization": f"Bearer {self.token}"}
        try:
            return httpx.post(self.url + path, json=body, headers=head, timeout=5).is_success
        except httpx.HTTPError:
            return False


class Client(threading.Thread):
    """Sends to one receiver and, if that does not acknowledge, to the other, until one does."""

    def __init__(self, receivers: list[Machine], draw: random.Random) -> None:
        super().__init__()
        self.receivers, self.draw = receivers, draw
        self.is_over = threading.Event()
        self.records: list[str] = []
        self.calls: list[str] = []
        self.resent_calls: set[str] = set()

    def run(self) -> None:
        while not self.is_over.is_set() or len(self.records) < 200:
            name = f"r{len(self.records)}"
            self.send("/v1/interactions", logs.interaction(f"{name}?", response_id=name))
            if self.draw.random() < 0.1:  # its answer was lost, it believes
                self.send("/v1/interactions", logs.interaction(f"{name}?", response_id=name))
            self.records.append(name)
            if len(self.records) % CALLS_EVERY == 0:
                self.send_call(f"call-{len(self.calls)}")

    def send_call(self, name: str) -> None:
        """Send the span and the log records of a call to different receivers."""
        first = self.draw.randrange(2)
        for number, request in enumerate(telemetry.logs_of_a_span(*MESSAGES)):
            body = json.dumps(telemetry.json_form(request)).replace("chatcmpl-1", name)
            path = ("/v1/traces", "/v1/logs")[number]
            if self.send(path, json.loads(body), (first + number) % 2) > 1:
                self.resent_calls.add(name)
        self.calls.append(name)

    def send(self, path: str, body: object, first: int | None = None) -> int:
        at, tries = self.draw.randrange(2) if first is None else first, 1
        while not self.receivers[at].post(path, body):
            at, tries = 1 - at, tries + 1
            time.sleep(0.05)
        return tries


def test_what_was_acknowledged_is_stored_once_whatever_is_killed(tmp_path: Path) -> None:
    draw = random.Random(1)
    with buckets.serving():
        receivers = [Machine(tmp_path / f"receiver-{number}") for number in range(2)]
        collecting = Machine(tmp_path / "collecting")
        for machine in receivers:
            machine.receive()
            machine.run("ship")
        client = Client(receivers, draw)
        client.start()
        killed = kill(receivers, collecting, draw)
        client.is_over.set()
        client.join()
        for machine in receivers:
            machine.commands["ship"].terminate()
            machine.commands["ship"].wait()
            machine.end_receiver(is_kill=False)
            home = settings.load(machine.environment)
            spool_shipper.ship_once(home, STORE)
            assert spool.sealed(home.spool) == []
        home = settings.load(collecting.environment)
        sources.load_spool(home, now=datetime.now(UTC) + timedelta(minutes=2))
        assert shared_spool.listed(STORE) == []
    assert sum(killed.values()) == KILLS
    check(collecting.home, client)


def kill(receivers: list[Machine], collecting: Machine, draw: random.Random) -> Counter[str]:
    """Kill a process of a kind that is drawn, and start it again; return how many of each kind."""
    killed = Counter[str]()
    while sum(killed.values()) < KILLS:
        if (running := collecting.commands.get("collect")) is None or running.poll() is not None:
            collecting.run("collect")
        time.sleep(draw.uniform(0.5, 2.5))
        kind, machine = draw.choice(["receiver", "ship", "collect"]), draw.choice(receivers)
        if kind == "receiver":
            machine.end_receiver(is_kill=True)
            machine.receive()
        else:
            process = (machine if kind == "ship" else collecting).commands[kind]
            if process.poll() is not None:
                continue  # a collect that has just ended
            process.kill()
            process.wait()
            (machine if kind == "ship" else collecting).run(kind)
        killed[kind] += 1
    collecting.commands["collect"].wait()
    return killed


def check(home: Path, client: Client) -> None:
    """Compare what is stored with what was acknowledged."""
    with warehouses.connect(home / "warehouse.duckdb") as con:
        stored = con.execute(
            "select coalesce(record, payload) ->> '$.response.id',"
            " coalesce(record, payload) ->> '$.request.model' from raw.interactions"
        ).fetchall()
        refused = con.execute("select reason, content::varchar from raw.quarantine").fetchall()
    records = [name for name, _ in stored if name.startswith("r")]
    assert sorted(records) == sorted(client.records)
    whole = Counter(name for name, model in stored if model == "gpt-4o-mini")
    assert whole == Counter(client.calls)
    # A part that is sent again after its call was loaded is a call of its own.
    bare = len(stored) - len(records) - len(client.calls) + len(refused)
    assert bare <= len(client.resent_calls), refused
