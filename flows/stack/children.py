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

KEPT_LOGS = 5
"""How many are kept beside the newest, as ``NAME.1`` to ``NAME.5``: 60 MiB a service in all."""

LINE_BYTES = 2**16  # longer lines are cut into pieces

LAST_BYTES = 2000  # how much of its end is remembered for who asks why a process ended

LEVEL = re.compile(r"\b(DEBUG|INFO|WARNING|ERROR|CRITICAL)\b")
LEVEL_WITHIN = 60
"""Characters from a line's beginning in which Prefect, MLflow and uvicorn name its level."""


class ServiceLog:
    """One service's log; a full disk loses lines, says so later, and stops nobody."""

    def __init__(self, path: Path, form: LogFormat = "text", *, size: int = LOG_BYTES) -> None:
        self._path = path
        self._form = form
        self._size = size
        self._lock = threading.Lock()
        self._lost = 0

    def write(self, line: bytes) -> None:
        """Append a line, with its line break or without."""
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
    """Carries what one process prints, and all below it, into a log, in a thread of its own."""

    def __init__(self, pipe: IO[bytes], log: ServiceLog) -> None:
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
                self._last.append(line)
                while len(self._last) > 1 and sum(map(len, self._last)) > 2 * LAST_BYTES:
                    self._last.popleft()


def rotate_log(path: Path) -> None:
    """Put a log aside under the next number, and drop the oldest."""
    for number in range(KEPT_LOGS - 1, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        if older.exists():
            older.replace(path.with_name(f"{path.name}.{number + 1}"))
    if path.exists():
        path.replace(path.with_name(f"{path.name}.1"))


CHECK_EVERY = 3.0  # seconds between two checks of a service that works
CHECK_DEADLINE = 3.0  # seconds in which a check is to be answered
HANGING_AFTER = 3  # misses in a row of a process that does not even compute
BUSY_AFTER = 40  # misses in a row of one that computes: two minutes
BUSY_SHARE = 0.01  # of a core: who takes more than that between two misses computes
WORKER_EVERY = 15.0  # seconds between two looks at a worker's heartbeats, which come every 30
WORKER_HANGING_AFTER = 10  # looks in a row without a new heartbeat


class Pulse:
    """The checks of one process, made in a thread so that no hanging server holds up the others."""

    def __init__(
        self,
        check: Callable[[], bool],
        *,
        every: float = CHECK_EVERY,
        hanging_after: int = HANGING_AFTER,
        busy_after: int = BUSY_AFTER,
    ) -> None:
        self.misses = 0
        self._check = check
        self._every = every
        self.hanging_after = hanging_after
        self._busy_after = busy_after
        self._pending: Future[bool] | None = None
        self._next = 0.0
        self._seconds_computed = 0.0
        self._is_busy = False

    @property
    def is_lost(self) -> bool:
        """Whether the process is to be started again."""
        return self.misses >= (self._busy_after if self._is_busy else self.hanging_after)

    def look(self, pid: int, now: float, threads: Executor) -> None:
        """Take the answer of the last check, and begin another one when it is time; never waits.

        Args:
            pid: The process that is checked.
            now: Seconds on a clock that never goes back.
            threads: Where the check is made.
        """
        if self._pending is not None:
            if not self._pending.done():
                return
            self._note(self._pending.result(), pid)
            self._pending = None
        if now >= self._next:
            self._next = now + self._every
            self._pending = threads.submit(self._check)

    def _note(self, answered: bool, pid: int) -> None:
        before, self._seconds_computed = self._seconds_computed, seconds_computed(pid)
        if answered:
            self.misses, self._is_busy = 0, False
            return
        self.misses += 1
        self._is_busy = self._seconds_computed - before > BUSY_SHARE * CHECK_DEADLINE


def seconds_computed(pid: int) -> float:
    """Return the processor time that a process and those below it have taken so far."""
    try:
        process = psutil.Process(pid)
        tree = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    return sum(map(_own_seconds, tree))


def _own_seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system


LONGEST_WAIT = 30.0  # seconds between two restarts of a service that dies at once
STEADY_AFTER = 60.0  # seconds: who lived this long starts with a short wait again
WORDS_WAIT = 1.0  # seconds for the last lines of a process that has ended
ORPHAN_GRACE = 15.0  # seconds in which an orphaned trainer may still save its checkpoint


@dataclass(slots=True)
class Child:
    """One service, its process and how often that had to be started again."""

    service: Service
    log_format: LogFormat = "text"
    condition: Condition = "starting"
    restarts: int = 0
    retry_at: float = 0.0
    last_heartbeat: str | None = None
    """What Prefect has heard of a worker; before it works, of the process before this one."""
    pulse: Pulse | None = None
    """Whether it still works; ``None`` before it did."""
    _popen: "subprocess.Popen[bytes] | None" = None
    _identity: ProcessIdentity | None = None
    _failures: int = 0
    _pump: LogPump | None = None
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
        self._pump = LogPump(self._popen.stdout, ServiceLog(service.log, self.log_format))
        self._identity = identify_process(self._popen.pid)
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
