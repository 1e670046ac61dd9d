"""Sealed segments in the object store: receivers put them there, and a collect fetches them."""

import contextlib
import hashlib
import os
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from components.extensions.machines.object_store import ObjectStore
from components.store import spool
from components.store.shared_files import StoreError
from components.store.spool import SEALED

PLACE = "spool"

BATCH_BYTES = 256 * 2**20  # of segments that are on the collecting machine's disk at once

CLOCK_SECONDS = 10.0
"""Clocks that differ by less count as equal; larger differences are rounded to it, so that a
segment mostly has the same name again."""

_FETCHED = ".fetched"  # ends the name of a file that is being fetched

_NAME = re.compile(r"(?P<sealed_at_ns>\d{20})-(?P<digest>[0-9a-f]{64})" + re.escape(SEALED))


@dataclass(frozen=True, slots=True)
class SharedSegment:
    """A segment in the store; its name has its age and content, so a second put changes nothing.

    The age is by the store's clock, since those of receivers may differ by minutes.
    """

    name: str
    size: int

    @property
    def sealed_at_ns(self) -> int:
        """When it was sealed, in nanoseconds since 1970."""
        return int(self.name[:20])

    @property
    def digest(self) -> str:
        """The SHA-256 of its content, in hex."""
        return self.name[21:85]


def ship(store: ObjectStore, folder: Path) -> list[SharedSegment]:
    """Move the sealed segments of a spool, and those of killed receivers, to the store.

    Each is deleted here once it is there, so a kill at any time leaves it in one or both places.
    """
    spool.recover(folder)
    shipped: list[SharedSegment] = []
    sealed = spool.sealed(folder)
    ahead_ns = clock_ahead_ns(store) if sealed else 0
    for path in sealed:
        with contextlib.suppress(FileNotFoundError):  # a collect on this machine has loaded it
            status = path.stat()
            name = f"{status.st_mtime_ns + ahead_ns:020d}-{path.stem}{SEALED}"
            store.put(f"{PLACE}/{name}", path)
            shipped.append(SharedSegment(name, status.st_size))
            spool.remove(path)
    return shipped


def clock_ahead_ns(store: ObjectStore) -> int:
    """Return how far the store's clock is ahead of this machine's, in nanoseconds.

    Multiples of ``CLOCK_SECONDS``; 0 where it can't be known.
    """
    with contextlib.suppress(StoreError, KeyError), store.reaching("reading its clock"):
        return round(store.seconds_ahead(PLACE) / CLOCK_SECONDS) * int(CLOCK_SECONDS * 1e9)
    return 0


def listed(store: ObjectStore) -> list[SharedSegment]:
    """List the segments in the store, the oldest first; other objects there are left alone."""
    sizes = store.sizes(PLACE)
    return [SharedSegment(name, sizes[name]) for name in sorted(sizes) if _NAME.fullmatch(name)]


def batches(segments: Sequence[SharedSegment]) -> Iterator[list[SharedSegment]]:
    """Yield the segments in batches of at most ``BATCH_BYTES``, or of one that is larger."""
    batch, size = list[SharedSegment](), 0
    for segment in segments:
        if batch and size + segment.size > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(segment)
        size += segment.size
    if batch:
        yield batch


def clear(folder: Path) -> None:
    """Delete what fetches that were killed left in a spool; none may run meanwhile."""
    for path in folder.glob(f"*{_FETCHED}"):
        path.unlink()


def fetch(
    store: ObjectStore, segment: SharedSegment, folder: Path, *, now: datetime, ahead_ns: int
) -> Path | None:
    """Copy a segment into a spool; ``None`` if another collect has taken it meanwhile.

    What was damaged gets the name of the content that came, twice: its lines are loaded, and those
    that are no lines go to quarantine. None is newer than ``now``, since the parts of a call wait
    for as long as they are new, and a receiver's clock may be a day ahead; ``ahead_ns`` is that of
    the store (``clock_ahead_ns``).
    """
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{uuid.uuid4().hex}{_FETCHED}"
    sealed_at_ns = min(segment.sealed_at_ns - ahead_ns, int(now.timestamp() * 1e9))
    try:
        digest = _get(store, segment, partial)
        if digest not in (None, segment.digest):  # perhaps only on its way
            digest = _get(store, segment, partial)
        if digest is None:
            return None
        os.utime(partial, ns=(sealed_at_ns, sealed_at_ns))
        return partial.rename(folder / f"{digest}{SEALED}")
    finally:
        partial.unlink(missing_ok=True)


def _get(store: ObjectStore, segment: SharedSegment, path: Path) -> str | None:
    """Copy a segment to a path and return the digest of what came; ``None`` if there is none."""
    if not store.get(f"{PLACE}/{segment.name}", path):
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove(store: ObjectStore, segment: SharedSegment) -> None:
    """Delete a segment whose rows are committed to the warehouse."""
    store.remove_file(f"{PLACE}/{segment.name}")
