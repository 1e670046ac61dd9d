"""The processes that the supervisor holds: its services, and the orphans that come to it."""

import os
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil

from flows.stack.processes import Identity, dying_with_parent, identify, lives
from flows.stack.services import Service
from flows.stack.state import Condition, ServiceState

LONGEST_WAIT = 30.0  # seconds between two restarts of a service that dies at once
STEADY_AFTER = 60.0  # seconds: who lived this long starts with a short wait again
ORPHAN_GRACE = 15.0  # seconds in which an orphaned trainer may still save its checkpoint


@dataclass(slots=True)
class Child:
    """One service, its process and how often that had to be started again."""

    service: Service
    condition: Condition = "starting"
    restarts: int = 0
    retry_at: float = 0.0
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    _popen: "subprocess.Popen[bytes] | None" = None
    _identity: Identity | None = None
    _failures: int = 0
    _log_start: int = 0
    _born: float = 0.0

    def start(self, environment: Mapping[str, str], folder: Path) -> None:
        """Start the service's process; its output goes to the end of its log."""
        service = self.service
        with service.log.open("ab") as log:
            self._log_start = log.tell()
            self._popen = subprocess.Popen(
                dying_with_parent(service.command, service.death_signal),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=folder,
                start_new_session=True,
            )
        self._identity = identify(self._popen.pid)
        self._born = time.monotonic()
        self.started_at = datetime.now(UTC)
        self.condition = "starting"

    @property
    def pid(self) -> int | None:
        """The process, unless none runs."""
        return self._popen.pid if self._popen else None

    @property
    def exit_code(self) -> int | None:
        """How the process ended; ``None`` while it runs."""
        return self._popen.poll() if self._popen else None

    def plan_restart(self) -> None:
        """Note that the process ended, and wait longer each time that it ended soon."""
        now = time.monotonic()
        steady = now - self._born > STEADY_AFTER
        self._failures = 1 if steady else self._failures + 1
        self.retry_at = now + min(LONGEST_WAIT, 0.25 * 2**self._failures)
        self.restarts += 1
        self._popen = self._identity = None
        self.condition = "restarting"

    def last_words(self) -> str:
        """Give the end of what this process wrote to its log."""
        with self.service.log.open("rb") as log:
            log.seek(max(self._log_start, self.service.log.stat().st_size - 2000))
            return log.read().decode(errors="replace").strip()

    def state(self) -> ServiceState:
        """Describe this child for ``stack.json``."""
        return ServiceState(
            name=self.service.name,
            condition=self.condition,
            process=self._identity,
            url=self.service.url,
            log=str(self.service.log),
            restarts=self.restarts,
        )


class Orphans:
    """Whatever the supervisor did not start itself but became the parent of.

    Nobody is left who answers for such a process: a flow run of a killed worker, the trainer of a
    killed flow run, the server below a killed launcher. So each is asked to stop, once, and killed
    when it takes too long.
    """

    def __init__(self) -> None:
        self._deadlines: dict[int, float] = {}

    def end(self, own: set[int]) -> bool:
        """Go on ending the orphans, without waiting; tell whether any is left."""
        orphans = [child for child in psutil.Process().children() if child.pid not in own]
        self._deadlines = {
            orphan.pid: self._press(orphan) for orphan in orphans if not _buried(orphan)
        }
        return bool(self._deadlines)

    def _press(self, orphan: psutil.Process) -> float:
        now = time.monotonic()
        deadline = self._deadlines.get(orphan.pid)
        with suppress(psutil.NoSuchProcess):
            if deadline is None:
                orphan.terminate()
            elif now > deadline:
                orphan.kill()
        return now + ORPHAN_GRACE if deadline is None else deadline


def _buried(orphan: psutil.Process) -> bool:
    if lives(orphan):
        return False
    with suppress(ChildProcessError):
        os.waitpid(orphan.pid, os.WNOHANG)
    return True
