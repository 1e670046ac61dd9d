"""One service of the stack while its supervisor runs it: process, log, checks and restarts."""

import logging
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO

import psutil

from flows.stack.processes import (
    Condition,
    ProcessIdentity,
    ServiceState,
    dying_with_parent,
    identify_process,
)
from flows.stack.stack_services import STEP, Service

LOG_BYTES = 10 * 2**20  # how large a log gets before it is put aside
KEPT_LOGS = 5  # older logs, ``NAME.1`` to ``NAME.5``: 60 MiB a service in all
LINE_BYTES = 2**16  # longer lines are cut into pieces
LAST_LINES = 30  # of a process's output, to explain why it ended

CHECK_EVERY, CHECK_DEADLINE = 5.0, 3.0  # seconds between a server's checks, and for an answer
HANGING_AFTER = 3  # misses in a row after which the state says so
LOST_AFTER = 12  # misses in a row after which a server is restarted: a minute, as it may be busy
WORKER_EVERY = 30.0  # seconds between two looks at a worker's heartbeats, which come as often
WORKER_LOST_AFTER = 5  # looks in a row without a new heartbeat

SHORTEST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds before the restart of a service that dies
STEADY_AFTER = 60.0  # seconds after which the wait before a restart is short again
START_SECONDS = 600.0  # in which a service is up; a first start takes 20 on two idle cores


def open_log(path: Path) -> RotatingFileHandler:
    """Open a log that is put aside when it is large; on a full disk it loses lines."""
    return RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=KEPT_LOGS, delay=True)


@dataclass(slots=True)
class ServiceProcess:
    """One service, its process and the number of its restarts."""

    service: Service
    condition: Condition = "starting"
    restarts: int = 0
    retry_at: float = 0.0
    last_heartbeat: str | None = None  # a worker's; until it works, of the process before it
    step: str = ""  # what its start is doing, if it says so
    misses: int = 0  # failed checks in a row
    _next_check: float = 0.0
    _popen: "subprocess.Popen[bytes] | None" = None
    _identity: ProcessIdentity | None = None
    _wait: float = SHORTEST_WAIT / 2  # seconds before the last restart
    _born: float = 0.0
    _log: logging.Handler | None = None
    _copying: threading.Thread | None = None
    _last: Iterable[str] = ()

    def start(self, environment: Mapping[str, str], folder: Path) -> None:
        """Start the service's process; append its output to its log."""
        self._born = time.monotonic()
        self._popen = subprocess.Popen(
            dying_with_parent(self.service.command, self.service.death_signal),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
        )
        self._log = self._log or open_log(self.service.log)
        self._last = deque[str](maxlen=LAST_LINES)
        self._copying = threading.Thread(
            target=self._copy, args=(self._popen.stdout, self._log, self._last), daemon=True
        )
        self._copying.start()
        self._identity = identify_process(self._popen.pid)
        self.condition, self.misses, self._next_check = "starting", 0, 0.0

    def _copy(self, pipe: IO[bytes], log: logging.Handler, last: deque[str]) -> None:
        with pipe:
            while line := pipe.readline(LINE_BYTES):
                text = line.decode(errors="replace").rstrip("\r\n")
                log.handle(logging.makeLogRecord({"msg": text}))
                last.append(text)
                if text.startswith(STEP):
                    self.step = text.removeprefix(STEP)

    @property
    def is_overdue(self) -> bool:
        """Whether it is still not up, long after its start."""
        late = time.monotonic() > self._born + START_SECONDS
        return self.condition == "starting" and late

    @property
    def pid(self) -> int | None:
        """The process id; ``None`` while it does not run."""
        return self._popen.pid if self._popen else None

    @property
    def exit_code(self) -> int | None:
        """The process's exit code; ``None`` while it runs."""
        return self._popen.poll() if self._popen else None

    @property
    def has_ended(self) -> bool:
        """Whether its process has ended, and it has not been started again."""
        return self.condition == "restarting" or self.exit_code is not None

    def check(self, works: Callable[[], bool], now: float) -> bool:
        """Check a service that works, if it is time; return whether it must be restarted."""
        is_server = self.service.health_url is not None
        if now >= self._next_check:
            self.misses = 0 if works() else self.misses + 1
            self.condition = "hanging" if self.misses >= HANGING_AFTER else "up"
            self._next_check = now + (CHECK_EVERY if is_server else WORKER_EVERY)
        return self.misses >= (LOST_AFTER if is_server else WORKER_LOST_AFTER)

    def plan_restart(self) -> None:
        """Plan the restart of a process that ended; the wait grows each time it ended soon."""
        now = time.monotonic()
        steady = now - self._born > STEADY_AFTER
        self._wait = SHORTEST_WAIT if steady else min(LONGEST_WAIT, 2 * self._wait)
        self.retry_at = now + self._wait
        self.restarts += 1
        self._popen = self._identity = None
        self.condition = "restarting"

    def kill(self) -> None:
        """Kill a process that hangs, and a server's descendants, since one of them has the port."""
        if self._popen is None:
            return
        # A worker's descendants get a signal from the kernel, and end as orphans do.
        below: list[psutil.Process] = []
        if self.service.health_url:
            with suppress(psutil.NoSuchProcess):
                below = psutil.Process(self._popen.pid).children(recursive=True)
        self._popen.kill()
        for process in below:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def last_words(self) -> str:
        """Return the end of what this process printed, which has ended."""
        if self._copying is not None:
            self._copying.join(1.0)  # what it started may keep the pipe open
        return "\n".join(self._last).strip()

    def state(self) -> ServiceState:
        """Describe this service for ``stack.json``."""
        return ServiceState(
            name=self.service.name,
            condition=self.condition,
            process=self._identity,
            url=self.service.url,
            log=str(self.service.log),
            restarts=self.restarts,
            health_url=self.service.health_url,
        )
