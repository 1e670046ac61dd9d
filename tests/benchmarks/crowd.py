"""Other clients of a receiver, and what they wait while one client attacks."""

import json
import subprocess
import sys
import time
from datetime import UTC, datetime

from components.receive import client_tokens
from tests.benchmarks import attacker, load
from tests.benchmarks.attacker import Answered
from tests.benchmarks.load import Sent
from tests.support import attacks
from tests.support.receivers import Receiver

CONNECTIONS = 4
ATTACKERS = 8
"""Connections of the client that attacks."""

LEAD_SECONDS = 0.5
"""The attack has begun when the others start to send."""


class Crowd:
    """Clients that send one small interaction after the other, each over its own connection."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._log = receiver.folder.with_name("small.jsonl")
        self._log.write_bytes(attacks.LINE * 200_000)
        self._token = _token(receiver, "other")

    def send(self, seconds: float) -> Sent:
        """Send for so long."""
        asked = [self._receiver.url, self._token, self._log, seconds, CONNECTIONS]
        command = [sys.executable, load.__file__, *map(str, asked)]
        return Sent(**json.loads(subprocess.check_output(command, text=True)))

    def send_under_attack(
        self, attacked: Receiver, name: str, size: int, seconds: float
    ) -> tuple[Sent, Answered]:
        """Send for so long while a client attacks a receiver, this one or another.

        What the attack on another one costs is not the fault of this one: it takes cores and disk.
        """
        made = attacks.REQUESTS[name](size)
        is_otlp = made.path == "/v1/traces"
        token = attacked.token if is_otlp else _token(attacked, "attacker", "w*")
        message = attacker.message(attacked.url, made.path, token, made.content, made.headers)
        file = self._receiver.folder.with_name("attack")
        with attacker.start(
            attacked.url, [message], file, seconds + 2 * LEAD_SECONDS, ATTACKERS
        ) as attacking:
            time.sleep(LEAD_SECONDS)
            sent = self.send(seconds)
            return sent, attacker.answered(attacking)


def _token(receiver: Receiver, client_id: str, workloads: str = "*") -> str:
    """Let a client in; one that may send for some workloads only costs more to check."""
    file, now = receiver.folder.with_name("tokens.json"), datetime.now(UTC)
    return client_tokens.add_token(file, client_id, now=now, workloads=(workloads,))
