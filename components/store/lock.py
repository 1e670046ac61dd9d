"""Wait for a DuckDB file, which only one process at a time may open, even to read it."""

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Literal, Self

import duckdb

from components.store import counters, file_locks
from components.store.counters import GAVE_UP, WAITED, Count

STORAGE = "v1.5.0"
"""DuckDB 2's own storage could not be read by 1.5, which the extensions still need."""

PATIENCE_SECONDS = 3600.0
"""Schedules of several workloads start in the same hour: the last waits for all others."""

NOTICE_SECONDS = 5.0  # waits longer than this are logged

POLL_SECONDS = 0.05

COUNTED_FROM = 0.2  # shorter waits (seconds) are not counted

QUEUE = ".queue"
"""Suffix of the file that the next process in line has locked, so that a process that releases the
warehouse and needs it again comes after those that wait."""

QUEUE_SECONDS = 5.0
"""How long to wait for the process that is next; after that it has been served, or waits for us."""

COUNT_SECONDS = 5.0  # interval at which an ongoing wait is counted, so that monitoring sees it


class WarehouseBusyError(TimeoutError):
    """Another process held the file for longer than the allowed wait."""


def open_file(
    path: Path, wait_seconds: float, prepare: Callable[[duckdb.DuckDBPyConnection], None]
) -> duckdb.DuckDBPyConnection:
    """Open the file; open it again if a rewrite replaced it meanwhile.

    Args:
        path: The DuckDB file; created if it does not exist.
        wait_seconds: How long to wait while another process holds it.
        prepare: Sets up a new database before it appears at ``path``.
    """
    if not path.exists():
        _create(path, prepare)
    while True:
        before = _inode(path)
        con = open_read_only(path, wait_seconds, lambda: _connect(path))
        if before in (None, _inode(path)):
            return con
        con.close()


def open_read_only(
    path: Path, wait_seconds: float, attempt: Callable[[], duckdb.DuckDBPyConnection]
) -> duckdb.DuckDBPyConnection:
    """Retry opening the file until it succeeds; log after a while which process holds it.

    Waiting processes come before later ones.

    Raises:
        WarehouseBusyError: It was still held after ``wait_seconds``.
    """
    began, is_logged = time.monotonic(), False
    counted = began
    with _Queue(path) as queue:
        while True:
            waited = time.monotonic() - began
            if queue.is_our_turn() or waited >= min(QUEUE_SECONDS, wait_seconds):
                try:
                    con = attempt()
                except duckdb.IOException as error:
                    if "Could not set lock" not in str(error):
                        raise
                    if waited >= NOTICE_SECONDS and not is_logged:
                        logging.getLogger(__name__).warning("waiting for %s: %s", path, error)
                        is_logged = True
                    if waited >= wait_seconds:
                        _count(path, GAVE_UP, 1)
                        raise WarehouseBusyError(
                            f"opening {path}: another process still holds it after "
                            f"{wait_seconds:g} s of waiting; end that process, or wait for it "
                            f"({error})"
                        ) from error
                    queue.stand_in()
                else:
                    if time.monotonic() - counted >= COUNTED_FROM:
                        _count(path, WAITED, time.monotonic() - counted)
                    return con
            if time.monotonic() - counted >= COUNT_SECONDS:
                _count(path, WAITED, time.monotonic() - counted)
                counted = time.monotonic()
            time.sleep(POLL_SECONDS)


class _Queue:
    """The lock of the process that is next; its file is created at the first wait.

    Where the file can't be created or locked there is no order, and every process tries at any
    time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + QUEUE)
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def is_our_turn(self) -> bool:
        """Return whether no other process is next."""
        self._open("rb")
        if self._file is None:
            return True
        try:
            return file_locks.lock(self._file.fileno(), wait=False)
        except OSError:  # a file system without locks
            return True

    def stand_in(self) -> None:
        """Become next, unless another process is."""
        self._open("ab")
        self.is_our_turn()

    def _open(self, mode: Literal["rb", "ab"]) -> None:
        with suppress(OSError):
            self._file = self._file or self._path.open(mode)


def _count(path: Path, name: str, value: float) -> None:
    counters.add(path.parent, [Count(name, value)])


def _create(path: Path, prepare: Callable[[duckdb.DuckDBPyConnection], None]) -> None:
    # In one step: a database whose preparation was killed can't be opened.
    with TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
        prepared = Path(folder) / path.name
        con = _connect(prepared)
        try:
            prepare(con)
        finally:
            con.close()
        # If another process was faster, or links are unsupported, DuckDB opens or creates it.
        with suppress(OSError):
            os.link(prepared, path)


def _connect(path: Path) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(path, config={"storage_compatibility_version": STORAGE})


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None
