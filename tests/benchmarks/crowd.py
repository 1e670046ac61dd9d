"""Other clients of a receiver, and what they wait while one client attacks."""

import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from components.receive import tokens
from tests.benchmarks import attacker, load
from tests.benchmarks.attacker import Answered
from tests.benchmarks.load import Sent
from tests.receive.receivers import Receiver
from tests.security import attacks

CONNECTIONS = 4
ATTACKERS = 8
"""Connections of the client that attacks."""

LEAD_SECONDS = 0.5
"""The attack has begun when the others start to send."""


class Crowd:
    """Clients that send one small interaction after the other, each over its own connection."""

    def __init__(self, receiver: Receiver, folder: Path) -> None:
        self._receiver = receiver
        self._log = folder / "small.jsonl"
        self._log.write_bytes(attacks.LINE * 200_000)
        file, now = folder / "tokens.json", datetime.now(UTC)
        self._other = tokens.add(file, "other", now=now)
        self._limited = tokens.add(file, "attacker", now=now, workloads=("w*",))
        """Costs more to check than a token for everything."""

    def send(self, seconds: float) -> Sent:
        """Send for so long."""
        return Sent(**json.loads(self._start(seconds).communicate()[0]))

    def send_under_attack(self, name: str, size: int, seconds: float) -> tuple[Sent, Answered]:
        """Send for so long while another client attacks."""
        is_otlp = attacks.REQUESTS[name](1000).path == "/v1/traces"
        token = self._receiver.token if is_otlp else self._limited
        asked = [self._receiver.url, token, name, size, seconds + 2 * LEAD_SECONDS, ATTACKERS]
        command = [sys.executable, "-m", attacker.__name__, *map(str, asked)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as attacking:
            assert attacking.stdout is not None
            assert attacking.stdout.readline() == "ready\n"
            time.sleep(LEAD_SECONDS)
            sent = self.send(seconds)
            return sent, Answered(**json.loads(attacking.stdout.read()))

    def _start(self, seconds: float) -> "subprocess.Popen[str]":
        asked = [self._receiver.url, self._other, self._log, seconds, CONNECTIONS]
        command = [sys.executable, load.__file__, *map(str, asked)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
