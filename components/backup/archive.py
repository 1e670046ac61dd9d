"""Pack a home into one file, and unpack it after every byte of it was checked.

The file is a tar, packed by Zstandard. Its last member, the record, names each file with its
SHA-256 and the home that it is of: an archive without it was never finished.
"""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import zstandard

from components import manifest

RECORD = "backup.json"
BLOCK = 1 << 20


class BackupError(RuntimeError):
    """An archive is unfinished or damaged, or can't be put where it was asked to be."""


@dataclass(frozen=True, slots=True)
class Record:
    """What an archive says of itself.

    ``home`` is the folder that it was taken of, ``version`` the Flywheel that took it, ``made_at``
    when (ISO 8601), ``files`` the SHA-256 of each by its path in the home.
    """

    home: str
    version: str
    made_at: str
    files: Mapping[str, str]


class Writer:
    """An archive that is being written."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self.files: dict[str, str] = {}

    def add(self, path: Path, name: str) -> None:
        """Add a file or a symbolic link under its path in the home.

        A file that grows while it is read is cut where it was at the beginning. One that goes away
        meanwhile is left out: what is finished is never deleted in the middle of a turn.
        """
        try:
            found = self._tar.gettarinfo(path, name)
            if found.issym():
                self._tar.addfile(found)
                return
            with path.open("rb") as file:
                found.size = os.fstat(file.fileno()).st_size
                watched = _Hashing(file)
                self._tar.addfile(found, watched)
        except FileNotFoundError:
            return
        self.files[name] = watched.digest.hexdigest()

    def close(self, record: Record) -> None:
        """Write the record, which makes the archive whole."""
        text = json.dumps(asdict(record)).encode()
        last = tarfile.TarInfo(RECORD)
        last.size = len(text)
        self._tar.addfile(last, io.BytesIO(text))


class _Hashing(io.RawIOBase):
    """Hash what is read of a file."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self.digest.update(content)
        return content


@contextmanager
def writing(to: Path) -> Generator[Writer]:
    """Write an archive for its owner only; it is at ``to`` once the block has ended well."""
    to.parent.mkdir(parents=True, exist_ok=True)
    partial = to.with_name(f".{to.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        with (
            os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file,
            zstandard.ZstdCompressor(level=3, threads=-1).stream_writer(file) as packed,
            tarfile.open(fileobj=packed, mode="w|") as tar,
        ):
            yield Writer(tar)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(to)
    finally:
        partial.unlink(missing_ok=True)


def unpack(archive: Path, to: Path, advance: Callable[[str], None]) -> Record:
    """Unpack an archive into a new folder and check each file.

    Args:
        archive: The file.
        to: A folder that does not exist.
        advance: Called with the name of each file.

    Raises:
        BackupError: It is no archive, or unfinished, or not as it was written.
    """
    to.mkdir(parents=True)
    try:
        for member in _members(archive, to):
            advance(member)
        record = Record(**json.loads((to / RECORD).read_text()))
    except (tarfile.TarError, zstandard.ZstdError, EOFError, ValueError, TypeError) as error:
        raise BackupError(f"restoring {archive}: it is damaged, or no backup: {error}") from error
    except FileNotFoundError as error:
        raise BackupError(
            f"restoring {archive}: it has no {RECORD}, so it is unfinished"
        ) from error
    (to / RECORD).unlink()
    for name, expected in record.files.items():
        if not (to / name).is_file() or manifest.file_digest(to / name) != expected:
            raise BackupError(f"restoring {archive}: {name} is not what was written; it is damaged")
    return record


def _members(archive: Path, to: Path) -> Iterator[str]:
    links: list[tarfile.TarInfo] = []
    with (
        archive.open("rb") as file,
        zstandard.ZstdDecompressor().stream_reader(file) as unpacked,
        tarfile.open(fileobj=unpacked, mode="r|") as tar,
    ):
        for member in tar:
            if member.issym():
                links.append(member)
            else:
                tar.extract(member, to, filter="data")
            yield member.name
    for member in links:  # the last, so that nothing is written through one; they may lead out
        place = to / tarfile.data_filter(member.replace(linkname="."), str(to)).name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(member.linkname)
