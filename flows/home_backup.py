"""Back up a home while it works, and restore it elsewhere."""

import errno
import logging
import os
import shutil
import sqlite3
from collections.abc import Callable, Generator, Iterator, Set
from contextlib import ExitStack, contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from components import home_archive
from components.extensions.machines import moved_outputs, sharing
from components.extensions.machines.sharing import Files
from components.home_archive import BackupError, Record
from components.release import installation
from components.store import (
    archived_files,
    counters,
    file_locks,
    home_files,
    lock,
    manifest,
    spool,
    warehouse,
    working_copy,
)
from flows import access
from flows.machines import erased_copies
from flows.settings import OUTPUTS, Settings

LOG = logging.getLogger(__name__)

LOGINS = "credentials.json"

LEFT_OUT = {
    "gpus",
    "judgements",
    sharing.TABLES,
    "logs",
    "serve",
    "tmp",
    "stack.json",
    "stack.lock",
    "up.lock",
    erased_copies.BEING_PRUNED,
    LOGINS,
}
"""What belongs to the processes of this machine; the judgements, which a curation makes again; and
the files of a shared warehouse, whose tables are archived as a DuckDB file. Every home draws logins
of its own, and a gateway stages what it serves from the registry."""

SQLITES = {".db", Path(counters.NAME).suffix}  # of the servers' databases, and of the counters'

RESERVE = 1 << 28  # bytes of a disk that no archive may fill

FETCHED = ".archive"  # the copy of a bucket's archive, where the home is a volume
RESTORING = ".restoring"  # the name, or its end, of a folder into which an archive is unpacked

MODELS = "models"  # base models and downloads, which can be had again, are large


def back_up(
    home: Settings, to: Path, *, with_models: bool, now: datetime, advance: Callable[[str], None]
) -> Record:
    """Write all that the home holds into one archive.

    The spool comes before the warehouse, which empties it, and the databases before the folders
    that they name, so that the archive holds all that it refers to.

    Raises:
        BackupError: There is no home; the archive would lie in it, be a folder or replace what is
            there; a disk is full; or an erasure ran meanwhile.
    """
    _require_home(home)
    if to.is_dir():
        raise BackupError(
            f"backing up {home.home}: {to} is a folder; name a file, such as "
            f"{to / 'flywheel.tar.zst'}"
        )
    if to.resolve().is_relative_to(home.home.resolve()):
        raise BackupError(f"backing up {home.home}: {to} lies in it; name a place elsewhere")
    return _write(home, to, with_models=with_models, now=now, advance=advance)


@contextmanager
def _full_disk_named(home: Settings, to: Path) -> Generator[None]:
    """Raise ``BackupError`` where the system or SQLite finds no room on a disk."""
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        if getattr(error, "errno", None) != errno.ENOSPC and "disk is full" not in str(error):
            raise
        free = {str(place): shutil.disk_usage(place).free for place in (home.scratch, to.parent)}
        left = " and ".join(f"{size:,} bytes in {place}" for place, size in free.items())
        raise BackupError(
            f"backing up {home.home}: a disk is full ({error}). Copies of the databases were made "
            f"in the home, and the archive at {to}; with both deleted again {left} are free. Free "
            "more, and do the same again"
        ) from error


def _require_home(home: Settings) -> None:
    if not home.home.is_dir():
        raise BackupError(f"backing up {home.home}: there is no such folder")


def _write(
    home: Settings, to: Path, *, with_models: bool, now: datetime, advance: Callable[[str], None]
) -> Record:
    left_out = LEFT_OUT if with_models else {*LEFT_OUT, MODELS}
    with (
        _full_disk_named(home, to),
        # What the warehouse names must be there until it is in the archive.
        file_locks.held(home.home / erased_copies.BEING_PRUNED, shared=True),
        # Where an erasure, or the next `up`, deletes what a killed backup leaves in clear.
        file_locks.temporary_folder(home.scratch, "backup-") as scratch,
        home_archive.open_writer(to) as writer,
    ):
        erasures = _erasures(home) if home.has_warehouse else None
        copies = _copies(home, scratch, left_out)
        for name, copy in copies.items():
            advance(name)
            writer.add(copy, name, may_be_gone=False)
        for name in _names(home.home, left_out):
            if name not in copies and not name.endswith(home_archive.BESIDE):
                advance(name)
                writer.add(home.home / name, name)
        if home.has_warehouse and _erasures(home) != erasures:
            raise BackupError(
                f"backing up {home.home}: an erasure began or ended meanwhile, so the archive "
                "would lack files that its warehouse names; do the same again"
            )
        record = Record(
            str(home.home), version("lora-flywheel"), now.isoformat(), dict(writer.files)
        )
        writer.close(record)
    return record


def back_up_to(
    home: Settings, to: str, *, with_models: bool, now: datetime, advance: Callable[[str], None]
) -> tuple[Record, int, str]:
    """Write the archive to a path or as an object; return its record, bytes and SHA-256.

    An object, ``s3://bucket/path``, is written on this machine before: the home's disk needs the
    room.

    Raises:
        BackupError: As ``back_up``; or machines that share outputs in this bucket could read the
            secrets of approvers.
        StoreError: The bucket can't be reached or written.
    """
    if not archived_files.is_remote(to):
        record = back_up(home, Path(to), with_models=with_models, now=now, advance=advance)
        return record, Path(to).stat().st_size, manifest.file_digest(Path(to))
    _require_home(home)
    store, name = sharing.located(to)
    if home.store and sharing.located(home.store.url)[0] == store:
        raise BackupError(
            f"backing up to {to}: every machine of {home.store.url} may read that bucket, and the "
            "archive has the secrets of approvers; name a bucket of its own"
        )
    folder, _, file = name.rpartition("/")
    if not file:
        raise BackupError(f"backing up to {to}: expected s3://BUCKET/PATH/flywheel.tar.zst")
    with store.reaching(f"backing up to {to}"):
        if file in store.sizes(folder):
            raise BackupError(f"backing up to {to}: it exists; name another path")
    with file_locks.temporary_folder(home.scratch, "backup-") as scratch:
        archive = scratch / file
        record = _write(home, archive, with_models=with_models, now=now, advance=advance)
        size, digest = archive.stat().st_size, manifest.file_digest(archive)
        advance(f"as {to}")
        with store.reaching(f"backing up to {to}"):
            store.put(name, archive)
            sent = store.sizes(folder).get(file)
        if sent != size:
            raise BackupError(f"backing up to {to}: {sent} bytes are there, expected {size}")
    return record, size, digest


@contextmanager
def fetched(home: Settings, source: str) -> Generator[Path]:
    """Yield the path of an archive, of one in a bucket that of a copy for its owner's eyes only.

    Raises:
        BackupError: There is none.
        StoreError: The bucket can't be reached.
    """
    if not archived_files.is_remote(source):
        yield Path(source)
        return
    place = home.home.resolve()
    # What a container can write besides its volume is in memory.
    copy = place / FETCHED if _is_volume(place) else place.with_name(f".{place.name}.archive")
    copy.unlink(missing_ok=True)  # what a killed restore has left
    os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        store, name = sharing.located(source)
        with store.reaching(f"restoring {source}"):
            if not store.get(name, copy):
                raise BackupError(f"restoring {source}: there is no such object")
        yield copy
    finally:
        copy.unlink()


def restore(
    home: Settings,
    source: Path,
    *,
    sha256: str | None,
    advance: Callable[[str], None],
    most_bytes: int | None = None,
) -> Record:
    """Put an archive where its home was; it appears whole or not at all.

    A home that is a volume, such as a container mounts, can't be replaced: all is unpacked and
    verified in it, and then put in place one after another, which a kill may interrupt.

    ``sha256`` is the digest that ``flywheel backup`` printed; ``None`` accepts any. ``most_bytes``
    limits the unpacked size; ``None``: the free disk space.

    A shared warehouse is filled after that from the home's DuckDB file, which is deleted at the
    end, and an object store gets the outputs that it lacks.

    Raises:
        BackupError: The home or the shared warehouse is not empty, or a disk is full; or the
            archive is another home's, damaged, of another digest, or holds what no backup holds.
        MovedTablesError: A table of the shared warehouse is not what the archive has.
    """
    if home.shared_warehouse and not home.shared_warehouse.is_new():
        raise BackupError(
            f"restoring to {home.shared_warehouse}: it has tables already; "
            "name a database without any"
        )
    if any(_names(home.home, {LOGINS, RESTORING, FETCHED})):
        raise BackupError(
            f"restoring to {home.home}: it is not empty; move what is there away first"
        )
    access.set_umask(home.home)
    place = home.home.resolve()  # it may be a link
    is_volume = _is_volume(place)
    unpacked = place / RESTORING if is_volume else place.with_name(f".{place.name}{RESTORING}")
    shutil.rmtree(unpacked, ignore_errors=True)
    unpacked.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(unpacked.parent).free
    if most_bytes is None and free <= RESERVE:
        raise BackupError(
            f"restoring to {home.home}: its disk has {free:,} bytes left, expected more than "
            f"{RESERVE:,} besides what comes out of {source}; free some space"
        )
    bounds = home_archive.Bounds(bytes=most_bytes or free - RESERVE)
    try:
        record = home_archive.unpack(source, unpacked, advance, sha256=sha256, bounds=bounds)
        if record.home != str(home.home):
            raise BackupError(
                f"restoring to {home.home}: the backup is of {record.home}, and its records name "
                f"files there; set FLYWHEEL_HOME={record.home}"
            )
        # At most empty folders and new logins are there.
        if is_volume:
            _fill(place, unpacked)
        else:
            shutil.rmtree(place, ignore_errors=True)
            unpacked.replace(place)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    if home.shared_warehouse and home.warehouse.exists():
        home.shared_warehouse.fill(home.warehouse, advance, lock.PATIENCE_SECONDS)
        home.warehouse.unlink()
    if home.store:
        push_outputs(home, home.store, advance)
    return record


def push_outputs(home: Settings, store: Files, advance: Callable[[str], None]) -> None:
    """Push the finished outputs that a store lacks, but for what was erased since the backup."""
    store.check()
    with store.reaching(f"restoring to {store.url}"):
        known, pushed = erased_copies.forget(home), list[str]()
        for place in moved_outputs.places_here(home.home, OUTPUTS):
            advance(place)
            output = moved_outputs.push(store, home.home, place)
            if output.objection:
                LOG.warning("not in %s: %s: %s", store.url, place, output.objection)
            elif output.is_copied:
                pushed.append(place)
        for place in erased_copies.take_back(home, known, pushed):
            LOG.warning("deleted again: %s: its rows were erased meanwhile", place)


def _is_volume(place: Path) -> bool:
    """Return whether a folder can't be replaced by another one."""
    return place.is_mount() or (place.exists() and not os.access(place.parent, os.W_OK))


def _fill(place: Path, unpacked: Path) -> None:
    """Put the files of a folder in a volume that has none but new logins."""
    (place / LOGINS).unlink(missing_ok=True)
    for path in sorted(unpacked.iterdir()):
        target = place / path.name
        if target.is_symlink():  # to a folder elsewhere without files
            target.unlink()
        shutil.rmtree(target, ignore_errors=True)
        path.replace(target)


def outside_files(home: Settings) -> list[Path]:
    """List the workload files outside the home, to which a backup has the links only."""
    return [path.resolve() for path in sorted(home.workloads.glob("*")) if path.is_symlink()]


def _copies(home: Settings, scratch: Path, left_out: Set[str]) -> dict[str, Path]:
    """Copy the spool, all SQLite databases, then the warehouse; by their path in the home.

    In this order the warehouse has everything the servers refer to: answers, decisions named by
    versions. Champion changes are locked out, so that aliases and chain agree.
    """
    copies: dict[str, Path] = {}
    if home.spool.is_dir():
        spool.copy_segments(home.spool, scratch / "spool")
        copies |= {f"spool/{name}": scratch / "spool" / name for name in _names(scratch / "spool")}
    with ExitStack() as stack:
        for held in sorted(home.locks.glob("*.lock")):
            stack.enter_context(installation.lock_champion(home.tables, home.locks, held.stem))
        for number, name in enumerate([*_names(home.home, left_out)]):
            path = home.home / name
            if name in copies or path.suffix not in SQLITES or not home_archive.is_sqlite(path):
                continue
            copies[name] = scratch / f"{number}{path.suffix}"
            home_archive.copy_sqlite(path, copies[name])
        if home.has_warehouse:
            name = home.warehouse.name
            copies[name] = scratch / name
            home_archive.copy_warehouse(home.tables, copies[name], home.home)
            folder = home.archive.name  # a shared warehouse's store has had what is here
            copies |= {
                f"{folder}/{file}": scratch / folder / file for file in _names(scratch / folder)
            }
    return copies


def _erasures(home: Settings) -> tuple[int, int]:
    """Return how many erasures were begun, and how many of them are finished."""
    with warehouse.reading(home.tables) as con:
        ((begun, finished),) = con.execute(working_copy.ERASURES).fetchall()
    return begun, finished


def _names(folder: Path, left_out: Set[str] = frozenset()) -> Iterator[str]:
    """Yield the files and links of a folder as sorted relative paths."""
    for path in home_files.files(folder, left_out):
        if path.suffix != ".wal" and (path.is_symlink() or path.is_file()):
            yield str(path.relative_to(folder))
