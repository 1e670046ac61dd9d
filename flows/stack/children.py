"""The processes that the supervisor holds: its services, and the orphans that come to it."""

import os
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from flows.stack.logs import Format, Log, Pump
from flows.stack.processes import Identity, dying_with_parent, identify, lives
from flows.stack.pulse import BUSY_SHARE, Pulse, seconds_computed
from flows.stack.services import Service
from flows.stack.state import Condition, ServiceState

LONGEST_WAIT = 30.0  # seconds between two restarts of a service that dies at once
STEADY_AFTER = 60.0  # seconds: who lived this long starts with a short wait again
WORDS_WAIT = 1.0  # seconds for the last lines of a process that has ended
ORPHAN_GRACE = 15.0  # seconds in which an orphaned trainer may still save its checkpoint


@dataclass(slots=True)
class Child:
    """One service, its process and how often that had to be started again."""

    service: Service
    log_format: Format = "text"
    condition: Condition = "starting"
    restarts: int = 0
    retry_at: float = 0.0
    last_heartbeat: str | None = None
    """What Prefect has heard of a worker; before it works, of the process before this one."""
    pulse: Pulse | None = None
    """Whether it still works; ``None`` before it did."""
    _popen: "subprocess.Popen[bytes] | None" = None
    _identity: Identity | None = None
    _failures: int = 0
    _pump: Pump | None = None
    _born: float = 0.0
    _judged: float = 0.0
    _computed: float = 0.0

    def start(self, environment: Mapping[str, str], folder: Path) -> None:
        """Start the service's process; its output goes to the end of its log."""
        service = self.service
        self._popen = subprocess.Popen(
            dying_with_parent(service.command, service.death_signal),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
        )
        assert self._popen.stdout
        self._pump = Pump(self._popen.stdout, Log(service.log, self.log_format))
        self._identity = identify(self._popen.pid)
        self._born = time.monotonic()
        self.condition = "starting"
        self.pulse = None
        self._judged, self._computed = self._born, 0.0

    def stands_still(self, seconds: float) -> bool:
        """Return whether the process has not even computed for so long; judged once in that time.

        On a machine that has much else to do a start takes minutes, and each that is given up makes
        it worse.
        """
        now = time.monotonic()
        if self.pid is None or now - self._judged < seconds:
            return False
        before, self._computed = self._computed, seconds_computed(self.pid)
        self._judged = now
        return self._computed - before < BUSY_SHARE * seconds

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

    def kill(self) -> None:
        """Kill a process that hangs; of a server all that is below it, too, for that has the port.

        What runs below a worker is told by the kernel, and ends as an orphan does.
        """
        if self._popen is None:
            return
        below: list[psutil.Process] = []
        if self.service.health_url:
            with suppress(psutil.NoSuchProcess):
                below = psutil.Process(self._popen.pid).children(recursive=True)
        self._popen.kill()
        for process in below:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def last_words(self) -> str:
        """Return the end of what this process printed."""
        return self._pump.last_words(WORDS_WAIT) if self._pump else ""

    def state(self) -> ServiceState:
        """Describe this child for ``stack.json``."""
        return ServiceState(
            name=self.service.name,
            condition=self.condition,
            process=self._identity,
            url=self.service.url,
            log=str(self.service.log),
            restarts=self.restarts,
            health_url=self.service.health_url,
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
