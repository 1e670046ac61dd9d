"""Pack a home into one archive while it is in use; verify every byte before it is unpacked."""

import hashlib
import hmac
import io
import json
import os
import shutil
import sqlite3
import tarfile
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

import zstandard
from pydantic import Field, TypeAdapter

from components.schema import Config
from components.store import file_locks, lock, manifest, warehouse
from components.store.warehouse import Location

SQLITE = b"SQLite format 3\x00"
"""How an SQLite database begins (https://www.sqlite.org/fileformat.html, 1.3)."""

BESIDE = ("-wal", "-shm", "-journal", lock.QUEUE)
"""Suffixes of files next to an open database; a copy includes their contents."""


def copy_warehouse(path: Location, to: Path, home: Path) -> None:
    """Copy a home's DuckDB file while no other process can open it, or make one of what is shared.

    Beside that one are the files of retention that are in no home.

    Raises:
        WarehouseBusyError: Another process held it for too long.
    """
    if not isinstance(path, Path):
        path.save_to_file(to, home, lock.PATIENCE_SECONDS)
        return
    with warehouse.connect(path) as con:
        con.execute("checkpoint")
        shutil.copyfile(path, to)


def copy_sqlite(path: Path, to: Path) -> None:
    """Copy a database by SQLite's online backup, which allows concurrent writes.

    What a killed process had half written is undone before, as whoever opens it next would do.
    """
    source = f"{path.absolute().as_uri()}?mode=rw"
    with (
        closing(sqlite3.connect(source, uri=True)) as original,
        closing(sqlite3.connect(to)) as copy,
    ):
        original.backup(copy)


def is_sqlite(path: Path) -> bool:
    """Return whether a file is an SQLite database."""
    with path.open("rb") as file:
        return file.read(len(SQLITE)) == SQLITE


RECORD = "backup.json"
BLOCK = 1 << 20
MAX_RECORD_BYTES = 1 << 29
MAX_WINDOW_BYTES = 1 << 27
"""Zstandard's memory limit in bytes; Flywheel's archives need 8 MiB at most."""

WORKLOADS = "workloads"  # the folder whose links point to workload files elsewhere


class BackupError(RuntimeError):
    """An archive is unfinished or damaged, or can't be written to its target."""


@dataclass(frozen=True, slots=True)
class Record:
    """An archive's record.

    ``home`` is the archived folder, ``version`` Flywheel's version, ``made_at`` the ISO 8601 time,
    ``files`` the SHA-256 of each file by its path in the home.
    """

    home: str
    version: str
    made_at: str
    files: Mapping[str, str]


class Bounds(Config):
    """Limits for the contents of an archive."""

    files: int = Field(default=2_000_000, ge=1)
    """Maximum number of files and links."""

    bytes: int = Field(default=1 << 40, ge=1)
    """Maximum number of unpacked bytes."""


class ArchiveWriter:
    """Writes an archive."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self.files: dict[str, str] = {}

    def add(self, path: Path, name: str, *, may_be_gone: bool = True) -> None:
        """Add a file or a symbolic link under its path in the home.

        A file that grows meanwhile is cut at its initial size. A file deleted meanwhile is left
        out, if it may be gone: finished outputs are never deleted during a turn.
        """
        try:
            member = self._tar.gettarinfo(path, name)
            if member.issym():
                self._tar.addfile(member)
                return
            with path.open("rb") as file:
                member.size = os.fstat(file.fileno()).st_size
                hashing = _Hashing(file)
                self._tar.addfile(member, hashing)
        except FileNotFoundError:
            if may_be_gone:
                return
            raise
        self.files[name] = hashing.digest.hexdigest()

    def close(self, record: Record) -> None:
        """Write the record, which completes the archive."""
        text = json.dumps(asdict(record)).encode()
        last = tarfile.TarInfo(RECORD)
        last.size = len(text)
        self._tar.addfile(last, io.BytesIO(text))


class _Hashing(io.RawIOBase):
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self.digest.update(content)
        return content


@contextmanager
def open_writer(to: Path) -> Generator[ArchiveWriter]:
    """Write an archive of mode 0600; it is at ``to`` after the block ends without an error.

    Raises:
        BackupError: Something is there, or another process writes an archive there.
    """
    _require_free(to)
    to.parent.mkdir(parents=True, exist_ok=True)
    partial = to.with_name(f".{to.name}.partial")
    _delete_abandoned(partial, to)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file_locks.lock(file.fileno())
        if not os.fstat(file.fileno()).st_nlink:  # taken for abandoned before it was locked
            raise _written_now(to)
        try:
            with (
                zstandard.ZstdCompressor(level=3, threads=-1).stream_writer(
                    file, closefd=False
                ) as packed,
                tarfile.open(fileobj=packed, mode="w|") as tar,
            ):
                yield ArchiveWriter(tar)
            file.flush()
            os.fsync(file.fileno())
            _require_free(to)
            partial.replace(to)
        finally:
            partial.unlink(missing_ok=True)


def _require_free(to: Path) -> None:
    if os.path.lexists(to):  # it may be the way back to an older release, or /dev/null
        raise BackupError(f"backing up to {to}: it exists; name another path")


def _delete_abandoned(partial: Path, to: Path) -> None:
    """Delete what a killed process has left of an archive."""
    with suppress(FileNotFoundError), partial.open("rb") as file:
        if not file_locks.lock(file.fileno(), wait=False):
            raise _written_now(to)
    partial.unlink(missing_ok=True)


def _written_now(to: Path) -> BackupError:
    return BackupError(f"backing up to {to}: another backup writes it now; name another path")


def unpack(
    archive: Path,
    to: Path,
    advance: Callable[[str], None],
    *,
    sha256: str | None = None,
    bounds: Bounds | None = None,
) -> Record:
    """Unpack an archive into a new folder and verify each file; all are on the disk by the end.

    Only files and symbolic links are unpacked, all inside the folder. Links are created last, and
    never behind another link, so that nothing is written through one.

    Args:
        archive: The file.
        to: A folder that does not exist.
        advance: Called with the name of each file.
        sha256: The expected digest of the whole archive, checked before and after unpacking.
            Without it the archive's origin is unknown, so links out of the home are allowed for
            workload files only.
        bounds: Limits for its contents.

    Raises:
        BackupError: It is not an archive, is unfinished or changed, or holds members that no backup
            has.
    """
    with archive.open("rb") as file:
        if sha256 is not None:
            _require_digest(archive, sha256, hashlib.file_digest(file, "sha256").hexdigest())
            file.seek(0)
        hashing = _Hashing(file)
        to.mkdir(parents=True)
        try:
            unpacking = _Unpacking(archive, to, bounds or Bounds(), trusts=sha256 is not None)
            for name in unpacking.members(cast("IO[bytes]", hashing)):
                advance(name)
            while hashing.read(BLOCK):
                pass
            record = TypeAdapter(Record).validate_json((to / RECORD).read_bytes())
        except BackupError:
            raise
        except (tarfile.TarError, zstandard.ZstdError, EOFError, ValueError) as error:
            raise BackupError(
                f"restoring {archive}: it is damaged, or not a backup: {error}"
            ) from error
        except FileNotFoundError as error:
            raise BackupError(
                f"restoring {archive}: it has no {RECORD}, so it is unfinished"
            ) from error
    if sha256 is not None:
        _require_digest(archive, sha256, hashing.digest.hexdigest())
    (to / RECORD).unlink()
    if unknown := sorted(unpacking.files - {RECORD} - record.files.keys()):
        raise BackupError(
            f"restoring {archive}: {unknown[0]} is not in its {RECORD}, so it was added later"
        )
    for name, expected in record.files.items():
        if name not in unpacking.files or manifest.file_digest(to / name) != expected:
            raise BackupError(f"restoring {archive}: {name} is not what was written; it is damaged")
    os.sync()  # of millions of files at once: a lost power must leave none of them empty
    return record


def _require_digest(archive: Path, expected: str, digest: str) -> None:
    if not hmac.compare_digest(expected.lower().encode(), digest.encode()):
        raise BackupError(
            f"restoring {archive}: its SHA-256 is {digest}, expected {expected}; it is not the "
            "file that `flywheel backup` wrote"
        )


class _Unpacking:
    def __init__(self, archive: Path, to: Path, bounds: Bounds, *, trusts: bool) -> None:
        self._archive = archive
        self._to = to
        self._bounds = bounds
        self._trusts = trusts
        self._bytes = 0
        self.files: set[str] = set()
        self._links: dict[str, str] = {}

    def members(self, packed: IO[bytes]) -> Iterator[str]:
        """Unpack one member after another, and yield their names."""
        decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
        with (
            decompressor.stream_reader(packed, closefd=False) as unpacked,
            tarfile.open(
                fileobj=_Metered(unpacked, self._bounds.bytes, self._archive), mode="r|"
            ) as tar,
        ):
            for member in tar:
                self._take(tar, member)
                yield member.name
        for name, target in self._links.items():
            self._link(name, target)

    def _take(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        name = member.name
        parts = name.split("/")
        if name.startswith("/") or {"", ".", ".."} & {*parts} or "\0" in name:
            raise self._refused(f"{name!r} is not a path inside the home")
        if name in self.files or name in self._links:
            raise self._refused(f"{name} is in it twice")
        if RECORD in self.files:
            raise self._refused(f"{name} comes after its {RECORD}, which is the last")
        if len(self.files) + len(self._links) >= self._bounds.files:
            raise self._refused(f"it holds more than {self._bounds.files:,} files")
        if member.issym():
            self._links[name] = member.linkname
            return
        if not member.isreg() or member.issparse():
            raise self._refused(f"{name} is neither a file nor a symbolic link")
        if name == RECORD and member.size > MAX_RECORD_BYTES:
            raise self._refused(
                f"{RECORD} has {member.size:,} bytes, expected {MAX_RECORD_BYTES:,}"
            )
        tar.extract(member, self._to, filter="data")
        self.files.add(name)

    def _link(self, name: str, target: str) -> None:
        place = self._to / name
        parents = [str(parent) for parent in PurePosixPath(name).parents]
        if any(parent in self._links or parent in self.files for parent in parents):
            raise self._refused(f"{name} lies behind another link or file")
        resolved = os.path.normpath(PurePosixPath("/home") / PurePosixPath(name).parent / target)
        is_inside = PurePosixPath(resolved).is_relative_to("/home") and not target.startswith("/")
        is_inside = is_inside and not self._passes_link(PurePosixPath(name).parent, target)
        if not (is_inside or self._trusts or parents[:1] == [WORKLOADS]):
            raise self._refused(
                f"the link {name} leads out of the home, to {target}, and the archive is not "
                "verified; pass its SHA-256"
            )
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)

    def _passes_link(self, folder: PurePosixPath, target: str) -> bool:
        # What `..` leads to behind a link, its text does not say.
        parts = PurePosixPath(target).parts
        steps = [os.path.normpath(folder.joinpath(*parts[:n])) for n in range(1, len(parts))]
        return not self._links.keys().isdisjoint(steps)

    def _refused(self, reason: str) -> BackupError:
        return BackupError(f"restoring {self._archive}: {reason}")


class _Metered(io.RawIOBase):
    """Limits the number of bytes that can be read, headers included."""

    def __init__(self, unpacked: IO[bytes], most: int, archive: Path) -> None:
        self._unpacked = unpacked
        self._left = most
        self._most = most
        self._archive = archive

    def read(self, size: int = -1) -> bytes:
        content = self._unpacked.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise BackupError(
                f"restoring {self._archive}: more than {self._most:,} bytes come out of it, which "
                "--most-gib sets, or by default the room on the disk; if it is that large, free "
                "some space, or pass a higher one"
            )
        return content
