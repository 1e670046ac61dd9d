"""The files of rows that retention took out: in a home, or where machines share files.

A root is a folder or an ``s3://`` address; ``raw.archived`` names each file by its own one,
``<root>/<kind>/<workload>/<month>/<name>.parquet``.
"""

import hashlib
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from components.store import home_files, shared_files

ROOT = "archive"  # the folder's name in a home and in a store

PARTIAL = ".partial"


def is_remote(address: str) -> bool:
    """Return whether a file or root is in an object store."""
    return address.startswith("s3://")


def new_name(folder: str) -> str:
    """Return the address of a file that a store does not have yet.

    No two attempts have the same: one that was killed left a file that nothing names, and an
    erasure that lost its lock may delete that one at any time.
    """
    return f"{folder}/{uuid.uuid4().hex}.parquet"


def listed(root: str) -> list[str]:
    """List all files below a root, sorted, what killed processes left among them."""
    if is_remote(root):
        store, place = shared_files.located(root)
        return [f"{root}/{name}" for name in store.files(place)]
    return [str(path) for path in home_files.files(Path(root)) if path.is_file()]


def resolved(file: str) -> str:
    """Return the one address of a file, whichever path to its home was used, such as a link's."""
    return file if is_remote(file) else str(Path(file).resolve())


def put_in_place(partial: Path) -> Path:
    """Give a new file of a home its name, the digest of its content; return its path.

    Both are on the disk by then: what it replaces is deleted next.
    """
    _sync(partial)
    with partial.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    path = partial.with_name(f"{digest[:16]}.parquet")
    partial.replace(path)
    _sync(path.parent)
    return path


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def missing(files: Iterable[str]) -> Iterator[str]:
    """Yield those of the files that are gone."""
    known: dict[str, set[str]] = {}
    for file in files:
        if not is_remote(file):
            if not Path(file).exists():
                yield file
            continue
        folder = file.rpartition("/")[0]
        if folder not in known:
            known[folder] = {*listed(folder)}
        if file not in known[folder]:
            yield file


def remove(file: str) -> None:
    """Delete a file, if it is there."""
    if is_remote(file):
        store, place = shared_files.located(file)
        store.remove_file(place)
    else:
        Path(file).resolve().unlink(missing_ok=True)
        Path(file).unlink(missing_ok=True)  # if it was a link to another disk


def forget_uploads(root: str) -> None:
    """Delete what killed processes have sent to a store, as far as that is allowed."""
    if is_remote(root):
        store, place = shared_files.located(root)
        with suppress(OSError):
            store.forget_uploads(f"{place}/")


def fetch(file: str, copy: Path) -> bool:
    """Copy a file of a store to a path; return ``False`` if it is gone."""
    store, place = shared_files.located(file)
    return store.get(place, copy)


def move(file: str, target: str) -> bool:
    """Copy a file between a home and a store; return ``False`` if it is gone."""
    if is_remote(target):
        if not Path(file).exists():
            return False
        store, place = shared_files.located(target)
        store.put(place, Path(file))
        return True
    path = Path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(PARTIAL)
    if not fetch(file, partial):
        return False
    partial.replace(path)
    return True
