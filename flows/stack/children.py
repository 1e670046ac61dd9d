"""The supervisor's child processes: their logs, health checks, restarts and orphans."""

import json
import os
import re
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO, Literal, TypeAlias

import psutil

from flows.stack.processes import (
    Condition,
    ProcessIdentity,
    ServiceState,
    dying_with_parent,
    identify_process,
    is_running,
)
from flows.stack.stack_services import Service

LogFormat: TypeAlias = Literal["text", "json"]

LOG_BYTES = 10 * 2**20  # how large a log gets before it is put aside

KEPT_LOGS = 5  # older logs, ``NAME.1`` to ``NAME.5``: 60 MiB a service in all

LINE_BYTES = 2**16  # longer lines are cut into pieces

LAST_BYTES = 2000  # of a process's output, to explain why it ended

STEP = "step: "  # begins a line in which a service says what its start is doing

LEVEL = re.compile(r"\b(DEBUG|INFO|WARNING|ERROR|CRITICAL)\b")
LEVEL_WITHIN = 60  # characters of a line in which Prefect, MLflow and uvicorn name its level

CHECK_EVERY = 5.0  # seconds between two checks of a service that works
CHECK_DEADLINE = 3.0  # seconds in which a check must be answered
HANGING_AFTER = 3  # misses in a row after which the state says so
LOST_AFTER = 12  # misses in a row after which it is restarted: a minute, since it may be busy
WORKER_EVERY = 30.0  # seconds between two looks at a worker's heartbeats, which come as often
WORKER_LOST_AFTER = 5  # looks in a row without a new heartbeat

SHORTEST_WAIT = 0.5  # seconds before the first restart of a service that dies
LONGEST_WAIT = 30.0  # seconds between two restarts of a service that dies at once
STEADY_AFTER = 60.0  # seconds after which the wait before a restart is short again
START_SECONDS = 600.0  # in which a service is up; a first start takes 20 on two idle cores
WORDS_WAIT = 1.0  # seconds for the last lines of a process that has ended
ORPHANS_EVERY = 10.0  # seconds between two looks for orphans while no service ends
ORPHAN_GRACE = 15.0  # seconds in which an orphaned trainer may still save its checkpoint


class ServiceLog:
    """One service's log; a full disk loses lines, which a later line counts, and stops nothing."""

    def __init__(self, path: Path, form: LogFormat = "text", *, size: int = LOG_BYTES) -> None:
        self._path = path
        self._form = form
        self._size = size
        self._lock = threading.Lock()
        self._lost = 0

    def write(self, line: bytes) -> None:
        """Append a line, with or without its line break."""
        text = line.decode(errors="replace").rstrip("\r\n")
        with self._lock:
            try:
                if self._lost:
                    self._append(f"{self._lost} lines were lost: they could not be written here")
                self._append(text)
            except OSError:
                self._lost += 1
            else:
                self._lost = 0

    def _append(self, text: str) -> None:
        content = f"{self._formatted(text)}\n".encode()
        with self._path.open("ab", buffering=0) as file:
            whole = file.tell()
            if whole and whole + len(content) > self._size:
                rotate_log(self._path)
                return self._append(text)
            if file.write(content) < len(content):  # the disk has just become full
                os.ftruncate(file.fileno(), whole)
                raise OSError(f"writing to {self._path}: only a part of a line was written")
        return None

    def _formatted(self, text: str) -> str:
        if self._form == "text":
            return text
        level = LEVEL.search(text[:LEVEL_WITHIN])
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "service": self._path.stem,
            "level": level[1] if level else None,
            "message": text,
        }
        return json.dumps(line, ensure_ascii=False)


class LogPump:
    """Copies what a process and its descendants print into a log, in a thread of its own."""

    def __init__(self, pipe: IO[bytes], log: ServiceLog) -> None:
        self.step = ""
        self._last = deque[bytes]()
        self._thread = threading.Thread(target=self._run, args=(pipe, log), daemon=True)
        self._thread.start()

    def last_words(self, wait_seconds: float) -> str:
        """Return the end of what was printed, once the process has ended."""
        self._thread.join(wait_seconds)
        return b"".join(self._last)[-LAST_BYTES:].decode(errors="replace").strip()

    def _run(self, pipe: IO[bytes], log: ServiceLog) -> None:
        with pipe:
            while line := pipe.readline(LINE_BYTES):
                log.write(line)
                if line.startswith(STEP.encode()):
                    self.step = line.decode(errors="replace").removeprefix(STEP).strip()
                self._last.append(line)
                while len(self._last) > 1 and sum(map(len, self._last)) > 2 * LAST_BYTES:
                    self._last.popleft()


def rotate_log(path: Path) -> None:
    """Rename a log to ``NAME.1``, the older ones to the next number, and drop the oldest."""
    RotatingFileHandler(path, backupCount=KEPT_LOGS, delay=True).doRollover()


class Pulse:
    """The checks of one process, in a thread, so that no hanging server delays the others."""

    def __init__(
        self,
        check: Callable[[], bool],
        *,
        every: float = CHECK_EVERY,
        lost_after: int = LOST_AFTER,
    ) -> None:
        self.misses = 0
        self._check = check
        self._every = every
        self._lost_after = lost_after
        self._pending: Future[bool] | None = None
        self._next = 0.0

    @property
    def is_lost(self) -> bool:
        """Whether the process must be restarted."""
        return self.misses >= self._lost_after

    def look(self, now: float, threads: Executor) -> None:
        """Read the result of the last check, and start the next when it is due; never wait.

        Args:
            now: Seconds on a monotonic clock.
            threads: Runs the check.
        """
        if self._pending is not None:
            if not self._pending.done():
                return
            self.misses = 0 if self._pending.result() else self.misses + 1
            self._pending = None
        if now >= self._next:
            self._next = now + self._every
            self._pending = threads.submit(self._check)


@dataclass(slots=True)
class Child:
    """One service, its process and the number of its restarts."""

    service: Service
    log_format: LogFormat = "text"
    condition: Condition = "starting"
    restarts: int = 0
    retry_at: float = 0.0
    last_heartbeat: str | None = None  # a worker's; until it works, of the process before it
    pulse: Pulse | None = None  # ``None`` until it works
    _popen: "subprocess.Popen[bytes] | None" = None
    _identity: ProcessIdentity | None = None
    _wait: float = SHORTEST_WAIT / 2  # seconds before the last restart
    _pump: LogPump | None = None
    _born: float = 0.0

    def start(self, environment: Mapping[str, str], folder: Path) -> None:
        """Start the service's process; append its output to its log."""
        service = self.service
        self._born = time.monotonic()
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
        self._pump = LogPump(self._popen.stdout, ServiceLog(service.log, self.log_format))
        self._identity = identify_process(self._popen.pid)
        self.condition = "starting"
        self.pulse = None

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
        """Return the end of what this process printed."""
        return self._pump.last_words(WORDS_WAIT) if self._pump else ""

    @property
    def step(self) -> str:
        """What its start is doing now, if it says so."""
        return self._pump.step if self._pump and self.condition == "starting" else ""

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
    """Processes that the supervisor did not start but became the parent of.

    A flow run of a killed worker, the trainer of a killed flow run, the server below a killed
    launcher. Each gets SIGTERM once, and SIGKILL when it takes too long.
    """

    def __init__(self) -> None:
        self._deadlines: dict[int, float] = {}
        self._next_look = 0.0

    def end_round(self, own: set[int], *, at_once: bool) -> bool:
        """Look for orphans now and then, and while any is left; return whether any is.

        Args:
            own: The processes that the supervisor started.
            at_once: Look now, since one of them has ended: what was below it may be left.
        """
        now = time.monotonic()
        if at_once or self._deadlines or now >= self._next_look:
            self._next_look = now + ORPHANS_EVERY  # a look reads all of the machine's processes
            self.end(own)
        return bool(self._deadlines)

    def end(self, own: set[int]) -> bool:
        """Continue ending the orphans, without waiting; return whether any is left."""
        orphans = [child for child in psutil.Process().children() if child.pid not in own]
        self._deadlines = {
            orphan.pid: self._press(orphan) for orphan in orphans if not _reap(orphan)
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


def _reap(orphan: psutil.Process) -> bool:
    if is_running(orphan):
        return False
    with suppress(ChildProcessError):
        os.waitpid(orphan.pid, os.WNOHANG)
    return True
