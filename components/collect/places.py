"""Find the files of a path, a folder or a glob, also remote ones (``s3://``), and fetch those."""

import errno
import glob
import os
import re
import socket
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.store import file_locks
from components.store.addresses import without_secrets

REMOTE = "://"

_RECURSIVE = re.compile(r"(?:(?<=/)|^)(?:\*\*(?:/+|$))+")  # "**" as a part of a path, or several


class UnreachableError(OSError):
    """Raised when a remote path can't be listed or read, such as one of an unknown protocol."""


class UnreadableError(UnreachableError):
    """Raised when a remote path is gone, refused or answered by an error: others may be read."""


class AwayError(UnreadableError):
    """Raised when the server of a remote path doesn't answer: nor will it for its other paths."""


def matching_files(pattern: str) -> list[str]:
    """Return the sorted files of a path, a folder (recursively) or a glob.

    Raise ``ImportError`` if fsspec's package for a remote path is missing (``s3fs`` for ``s3://``).
    """
    if REMOTE in pattern:
        return _remote(pattern)[0]
    if Path(pattern).is_dir():
        return sorted(map(str, _files_in(Path(pattern))))
    if Path(pattern).is_file():  # its name may have brackets
        return [pattern]
    return sorted(name for name in _glob(pattern) if Path(name).is_file())


def matching_folders(pattern: str) -> list[str]:
    """Return the sorted folders with files that a glob matches; the files are not the glob's.

    A path, of a folder too, is no glob.
    """
    if REMOTE in pattern:
        return _remote(pattern)[1]
    if Path(pattern).exists():
        return []
    folders = (name for name in _glob(pattern) if Path(name).is_dir())
    return sorted(name for name in folders if any(True for _ in _files_in(Path(name))))


def _files_in(folder: Path) -> Iterator[Path]:
    names = (folder + entry.name for folder, entries in _walk([f"{folder}/"]) for entry in entries)
    return (path for path in map(Path, names) if path.is_file())


def _glob(pattern: str) -> list[str]:
    """Return what a glob matches; its ``**`` follows links to folders, but to none twice.

    The standard library's follows a link to a folder above it again and again.
    """
    recursive = _RECURSIVE.search(pattern)
    if recursive is None:
        return glob.glob(pattern)  # noqa: PTH207 - the pattern may be absolute
    head, tail = pattern[: recursive.start()], pattern[recursive.end() :]
    roots = glob.glob(head) if head else [""]  # noqa: PTH207 - as above
    matches: dict[str, None] = {}
    for folder, entries in _walk(roots):
        if tail:
            matches |= dict.fromkeys(_glob(glob.escape(folder) + tail))
            continue
        matches |= {folder: None} if folder else {}
        if not pattern.endswith("/"):
            matches |= {folder + entry.name: None for entry in entries}
    return [*matches]


def _walk(roots: Iterable[str]) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    """Yield folders, each with a final slash, and those below them, each once with its entries.

    Hidden ones are left out: editors and uploads write unfinished files under such names, or into
    folders of such names.
    """
    seen: set[tuple[int, int]] = set()
    below, linked = [*roots], list[str]()
    while below or linked:  # links last: a folder is found under its own name if it has one
        folder = (below or linked).pop()
        try:
            status = Path(folder).stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            with os.scandir(folder or ".") as listed:
                entries = [entry for entry in listed if not entry.name.startswith(".")]
        except OSError:  # a file, a link to nothing, or a folder that may not be read
            continue
        seen.add((status.st_dev, status.st_ino))
        yield folder, entries
        below += [f"{folder}{each.name}/" for each in entries if each.is_dir(follow_symlinks=False)]
        linked += [f"{folder}{each.name}/" for each in entries if each.is_symlink()]


@contextmanager
def local_copy(place: str, scratch: Path) -> Generator[Path]:
    """Yield a local path of the file; a remote file is copied for the duration of the block.

    The copy is in a temporary folder in ``scratch``. Raise ``UnreachableError``, mostly its
    ``UnreadableError``.
    """
    if REMOTE not in place:
        yield Path(place)
        return
    with file_locks.temporary_folder(scratch, "fetched-") as folder:
        copy = folder / "copy"  # an address may be longer than a file's name
        with _named(place, UnreachableError):
            system, path = _system(place)
        with _named(place):
            system.get_file(path, str(copy))
        yield copy


def server_of(place: str) -> str:
    """Return the server or bucket of a remote path."""
    scheme, _, rest = without_secrets(place).partition(REMOTE)
    return f"{scheme}{REMOTE}{rest.partition('/')[0]}"


def _system(place: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs  # noqa: PLC0415 - few have remote files

    return url_to_fs(place)


@contextmanager
def _named(place: str, kind: type[UnreachableError] | None = None) -> Generator[None]:
    """Name the place in errors, which become this ``kind``, or what of ``UnreadableError`` fits."""
    try:
        yield
    except ImportError:  # names the package to install
        raise
    except Exception as error:  # botocore's errors share no narrower base class
        reason = str(error) or type(error).__name__
        message = f"reaching {place}: {reason}"
        kind = kind or _kind(error)
        if (shown := without_secrets(message)) != message:
            raise kind(shown) from None  # a traceback would show the cause's text
        raise kind(message) from error


def _kind(error: Exception) -> type[UnreachableError]:
    if getattr(error, "errno", None) == errno.ENOSPC:  # here, so of no other file either
        return UnreachableError
    if isinstance(error, FileNotFoundError | PermissionError):
        return UnreadableError
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    away = ConnectionError | TimeoutError | socket.gaierror
    return AwayError if any(isinstance(cause, away) for cause in causes) else UnreadableError


def _remote(pattern: str) -> tuple[list[str], list[str]]:
    with _named(pattern, UnreachableError):
        system, path = _system(pattern)
    with _named(pattern):
        system.invalidate_cache()  # otherwise listings are cached for the life of the process
        names, folders = [path], list[str]()
        if system.isdir(path):
            names = system.find(path)
        elif glob.has_magic(path):
            matches = system.glob(path, detail=True)
            names = [name for name, entry in matches.items() if entry["type"] != "directory"]
            folders = [*matches.keys() - names]
            if not matches:
                _require_bucket(system, path)
    unstrip = system.unstrip_protocol
    return sorted(map(unstrip, names)), sorted(map(unstrip, folders))


def _require_bucket(system: Any, pattern: str) -> None:  # noqa: ANN401 - fsspec has no types
    """Raise the server's error for a bucket that does not exist: a glob takes it for empty."""
    folder = re.split(r"[*?\[]", pattern, maxsplit=1)[0].rpartition("/")[0]
    try:
        system.ls(folder)
    except FileNotFoundError as error:
        if error.__cause__ is not None:  # the server says so; else the folder may yet come
            raise
