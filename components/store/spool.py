"""The spool: the folder of segments that the receiver writes and collect reads and deletes."""

import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from components.store import file_locks

if TYPE_CHECKING:
    from _hashlib import HASH

Kind: TypeAlias = Literal["interactions", "feedback", "traces", "logs"]

SEALED = ".segment"
PARTIAL = ".partial"

PIECE_BYTES = 2**20  # flush size: a small commit on another thread waits for one piece at most

PROBE_BYTES = 2**16  # a new segment with an ordinary line would fit

_HEAD = re.compile(
    rb'\{"kind":"(interactions|feedback|traces|logs)","client_id":("(?:[^"\\]|\\.)*"),"body":'
)
_TAIL = b"}\n"


@dataclass(frozen=True, slots=True)
class Entry:
    """One request; ``client_id`` is the owner of its token, whatever the body contains."""

    number: int
    kind: Kind
    client_id: str
    body: str


@dataclass(frozen=True, slots=True)
class Damaged:
    """A damaged line; ``number`` counts lines from 1."""

    number: int
    content: bytes
    reason: str


def line(kind: Kind, client_id: str, body: bytes) -> bytes:
    """Return the line of one request; ``body`` is valid JSON."""
    if b"\n" in body or b"\r" in body:  # in JSON, only white space between tokens
        body = body.replace(b"\n", b" ").replace(b"\r", b" ")
    head = f'{{"kind":"{kind}","client_id":{json.dumps(client_id)},"body":'
    return head.encode() + body + _TAIL


class Writer:
    """Append lines to a partial segment and seal it; not thread-safe.

    After an ``OSError`` the segment keeps what was committed before, and the next ``commit`` begins
    another one.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        _fsync_folder(folder.parent)
        self._folder = folder
        self._segment: _Open | None = None

    @property
    def size(self) -> int:
        """Bytes committed to the segment that is open now."""
        return self._segment.size if self._segment else 0

    @property
    def age(self) -> float:
        """Seconds since the segment that is open now was begun."""
        return time.monotonic() - self._segment.begun if self._segment else 0.0

    def commit(self, lines: Sequence[bytes]) -> None:
        """Append whole lines and flush them to the disk."""
        if self._segment is None:
            self._segment = _begin(self._folder)
        segment, content = self._segment, b"".join(lines)
        try:
            for start in range(0, len(content), PIECE_BYTES):
                _write(segment.descriptor, content[start : start + PIECE_BYTES])
                os.fdatasync(segment.descriptor)
        except OSError:
            self._segment = None
            _abandon(segment)
            raise
        segment.size += len(content)
        segment.hash.update(content)

    def seal(self) -> Path | None:
        """Give the open segment its final name; ``None`` when there is none."""
        segment, self._segment = self._segment, None
        if segment is None:
            return None
        try:
            return _put_in_place(segment.path, segment.hash.hexdigest())
        finally:
            os.close(segment.descriptor)


def add_segment(folder: Path, lines: Sequence[bytes], sealed_at_ns: int) -> Path:
    """Put a sealed segment of these lines into the spool, as one that was sealed at that time.

    Equal lines make the same segment.
    """
    writer = Writer(folder)
    writer.commit(lines)
    segment = writer.seal()
    assert segment is not None
    os.utime(segment, ns=(sealed_at_ns, sealed_at_ns))
    return segment


def require_writable(folder: Path) -> None:
    """Write a nameless file to the disk; raise ``OSError`` if that fails."""
    path = folder / f"{uuid.uuid4().hex}.probe"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        path.unlink()
        _write(descriptor, bytes(PROBE_BYTES))
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def recover(folder: Path) -> list[Path]:
    """Seal the partial segments of dead writers; return the sealed segments."""
    sealed_paths = [_recover(path) for path in sorted(folder.glob(f"*{PARTIAL}"))]
    return [path for path in sealed_paths if path is not None]


def sealed(folder: Path) -> list[Path]:
    """List the complete segments, the oldest first."""
    ages: list[tuple[int, Path]] = []
    for path in folder.glob(f"*{SEALED}"):
        try:
            ages.append((path.stat().st_mtime_ns, path))
        except FileNotFoundError:  # a parallel collect has just deleted it
            continue
    return [path for _, path in sorted(ages)]


def age(folder: Path, now: float) -> float:
    """Return the age in seconds of the oldest segment; 0 without one.

    Args:
        folder: The spool.
        now: Seconds since 1970; if the clock was set back the age is 0, never negative.
    """
    times: list[float] = []
    for path in [*folder.glob(f"*{SEALED}"), *folder.glob(f"*{PARTIAL}")]:
        try:
            times.append(path.stat().st_mtime)
        except FileNotFoundError:  # sealed or deleted since it was listed
            continue
    return max(0.0, now - min(times, default=now))


def stored_bytes(folder: Path) -> int:
    """Return the size of the spool's files in bytes."""
    total = 0
    for path in folder.iterdir():
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # sealed or deleted since it was listed
            continue
    return total


def copy_segments(folder: Path, to: Path) -> None:
    """Copy a spool's files into a new folder while receivers write and collects delete them.

    Every line that is neither copied nor deleted is newer than this call.
    """
    to.mkdir()
    while _copy_listed(folder, to):  # again: what was sealed meanwhile has another name
        pass


def read(segment: Path) -> Iterator[Entry | Damaged]:
    """Yield the entries of a sealed segment."""
    with segment.open("rb") as file:
        for number, content in enumerate(file, start=1):
            yield _entry(number, content)


def remove(segment: Path) -> None:
    """Delete a segment whose rows are committed to the warehouse."""
    segment.unlink(missing_ok=True)


def _copy_listed(folder: Path, to: Path) -> bool:
    """Copy what is listed and not copied yet; return whether there was anything."""
    is_changed, listed = False, sorted(folder.iterdir())
    for copy in to.glob(f"*{PARTIAL}"):
        if folder / copy.name not in listed:  # sealed meanwhile, so it would be there twice
            copy.unlink()
    for path in listed:
        if not (to / path.name).exists():
            is_changed = True
            with suppress(FileNotFoundError):  # sealed or deleted since it was listed
                shutil.copy2(path, to)
    return is_changed


@dataclass(slots=True)
class _Open:
    path: Path
    descriptor: int
    begun: float
    hash: "HASH"
    size: int = 0


def _begin(folder: Path) -> _Open:
    # Locked, so that a recovery does not take it for a dead writer's.
    while True:
        path = folder / f"{uuid.uuid4().hex}{PARTIAL}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        try:
            file_locks.lock(descriptor)
            # A recovery may have deleted the empty file before it was locked.
            if os.fstat(descriptor).st_nlink:
                _fsync_folder(folder)
                return _Open(path, descriptor, time.monotonic(), hashlib.sha256())
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _abandon(segment: _Open) -> None:
    # Seal only what was committed: after a failed write the rest is unknown.
    try:
        os.ftruncate(segment.descriptor, segment.size)
        if segment.size:
            _put_in_place(segment.path, segment.hash.hexdigest())
        else:
            segment.path.unlink()
    finally:
        os.close(segment.descriptor)


def _recover(path: Path) -> Path | None:
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        if not file_locks.lock(descriptor, wait=False) or not path.exists():
            return None  # its writer is alive, or another process has just sealed it
        size, digest = _whole_lines(descriptor)
        if size == 0:
            path.unlink()
            return None
        os.ftruncate(descriptor, size)
        os.fsync(descriptor)
        return _put_in_place(path, digest)
    finally:
        os.close(descriptor)


def _whole_lines(descriptor: int) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with os.fdopen(os.dup(descriptor), "rb") as file:
        for content in file:
            if content.endswith(b"\n"):
                digest.update(content)
                size += len(content)
    return size, digest.hexdigest()


def _put_in_place(partial: Path, digest: str) -> Path:
    segment = partial.with_name(digest + SEALED)
    partial.replace(segment)
    _fsync_folder(segment.parent)
    return segment


def _entry(number: int, content: bytes) -> Entry | Damaged:
    head = _HEAD.match(content)
    if head is None or not content.endswith(_TAIL):
        return Damaged(number, content, "the line is not one that a receiver writes")
    try:
        body = content[head.end() : -len(_TAIL)].decode()
        return Entry(number, cast("Kind", head[1].decode()), _client(head[2]), body)
    except ValueError as error:
        return Damaged(number, content, f"the line is damaged: {error}")


@lru_cache(maxsize=1024)
def _client(quoted: bytes) -> str:
    # Cached: a segment has few clients on many lines.
    client_id: str = json.loads(quoted)
    return client_id


def _write(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
