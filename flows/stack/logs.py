"""The services' logs: what their processes print, in files that are rotated by size."""

import json
import os
import re
import threading
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Literal, TypeAlias

Format: TypeAlias = Literal["text", "json"]

BYTES = 10 * 2**20
"""How large a log gets before it is put aside."""

KEPT = 5
"""How many are kept beside the newest, as ``NAME.1`` to ``NAME.5``: 60 MiB a service in all."""

LINE_BYTES = 2**16
"""Longer lines are cut into pieces."""

LAST_BYTES = 2000
"""How much of its end is remembered for who asks why a process ended."""

LEVEL = re.compile(r"\b(DEBUG|INFO|WARNING|ERROR|CRITICAL)\b")
LEVEL_WITHIN = 60
"""Characters from a line's beginning in which Prefect, MLflow and uvicorn name its level."""


class Log:
    """One service's log; a full disk loses lines, says so later, and stops nobody."""

    def __init__(self, path: Path, form: Format = "text", *, size: int = BYTES) -> None:
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
                rotate(self._path)
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


class Pump:
    """Carries what one process prints, and all below it, into a log, in a thread of its own."""

    def __init__(self, pipe: IO[bytes], log: Log) -> None:
        self._last = deque[bytes]()
        self._thread = threading.Thread(target=self._run, args=(pipe, log), daemon=True)
        self._thread.start()

    def last_words(self, wait_seconds: float) -> str:
        """Return the end of what was printed, once the process has ended."""
        self._thread.join(wait_seconds)
        return b"".join(self._last)[-LAST_BYTES:].decode(errors="replace").strip()

    def _run(self, pipe: IO[bytes], log: Log) -> None:
        with pipe:
            while line := pipe.readline(LINE_BYTES):
                log.write(line)
                self._last.append(line)
                while len(self._last) > 1 and sum(map(len, self._last)) > 2 * LAST_BYTES:
                    self._last.popleft()


def rotate(path: Path) -> None:
    """Put a log aside under the next number, and drop the oldest."""
    for number in range(KEPT - 1, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        if older.exists():
            older.replace(path.with_name(f"{path.name}.{number + 1}"))
    if path.exists():
        path.replace(path.with_name(f"{path.name}.1"))
