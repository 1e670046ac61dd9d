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
"""Several workloads' nights begin at one hour: the last one waits for all others' curation."""

NOTICE_SECONDS = 5.0
"""After so long a person wants to know what is waited for."""

POLL_SECONDS = 0.05

COUNTED_FROM = 0.2
"""A shorter wait is not counted."""

QUEUE = ".queue"
"""Ends the name of the file beside it that whoever is next has locked: so who lets go of the
warehouse and wants it again comes after who waits."""

QUEUE_SECONDS = 5.0
"""So long is waited for whoever is next; then it is not next any more, or it waits for us."""

COUNT_SECONDS = 5.0
"""So often a wait that goes on is counted, for whoever watches meanwhile."""


class WarehouseBusyError(TimeoutError):
    """Another process held the file for longer than we were willing to wait."""


def open_file(
    path: Path, wait_seconds: float, prepare: Callable[[duckdb.DuckDBPyConnection], None]
) -> duckdb.DuckDBPyConnection:
    """Open the file, and not one that a rewrite has just replaced.

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
    """Attempt to open the file again and again, saying after a while who has it.

    Who waits comes before who comes later.

    Raises:
        WarehouseBusyError: It was still held after ``wait_seconds``.
    """
    began, is_told = time.monotonic(), False
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
                    if waited >= NOTICE_SECONDS and not is_told:
                        logging.getLogger(__name__).warning("waiting for %s: %s", path, error)
                        is_told = True
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
    """A lock that whoever is next has; the file is made when somebody waits for the first time.

    Where none can be made or locked, nobody is next, and everybody attempts at any time.
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
        """Return whether nobody else is next."""
        self._open("rb")
        if self._file is None:
            return True
        try:
            return file_locks.lock(self._file.fileno(), wait=False)
        except OSError:  # a file system without locks
            return True

    def stand_in(self) -> None:
        """Be next, unless somebody else is."""
        self._open("ab")
        self.is_our_turn()

    def _open(self, mode: Literal["rb", "ab"]) -> None:
        with suppress(OSError):
            self._file = self._file or self._path.open(mode)


def _count(path: Path, name: str, value: float) -> None:
    counters.add(path.parent, [Count(name, value)])


def _create(path: Path, prepare: Callable[[duckdb.DuckDBPyConnection], None]) -> None:
    """Put a prepared database there as a whole: one whose making was killed can't be opened."""
    with TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
        made = Path(folder) / path.name
        con = _connect(made)
        try:
            prepare(con)
        finally:
            con.close()
        # Where another process was faster, or there are no links, DuckDB opens or makes it itself.
        with suppress(OSError):
            os.link(made, path)


def _connect(path: Path) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(path, config={"storage_compatibility_version": STORAGE})


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None
