"""Copy finished outputs between a home and an object store, each held against its manifest."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from components.store import manifest, object_store
from components.store.object_store import ObjectStore

Outcome: TypeAlias = Literal["copied", "there", "other", "damaged"]
"""``there``: it was there with the same manifest. ``other``: there is another output under its key.
``damaged``: a file is not what its manifest says."""


@dataclass(frozen=True, slots=True)
class MovedOutput:
    """What became of one output, with its files and their bytes where they are known."""

    outcome: Outcome
    files: int = 0
    size: int = 0
    reason: str = ""


def places_here(home: Path, roots: Sequence[str]) -> list[str]:
    """List the finished outputs of a home, as their paths in it and in a store."""
    folders = [folder for root in roots for folder in sorted((home / root).glob("*/[!.]*"))]
    return [
        folder.relative_to(home).as_posix()
        for folder in folders
        if (folder / manifest.NAME).exists()
    ]


def places_there(store: ObjectStore, roots: Sequence[str], bases: str) -> list[str]:
    """List the outputs and bases in a store, those whose push has not ended among them."""
    outputs = [
        f"{root}/{workload}/{key}"
        for root in roots
        for workload in store.names(root)
        for key in store.names(f"{root}/{workload}")
    ]
    return outputs + [f"{bases}/{name}" for name in store.names(bases)]


def push(store: ObjectStore, home: Path, place: str) -> MovedOutput:
    """Push an output of a home, unless the store has one under its key.

    Of an output that the store has, what is missing there is pushed again.
    """
    folder = home / place
    try:
        record = _record(folder)
        files, size = _unchanged(folder, record)
        there = store.read(f"{place}/{manifest.NAME}")
    except (ValueError, FileNotFoundError) as error:
        return MovedOutput("damaged", reason=str(error))
    if there is None:
        try:
            there = store.push(place, folder, record)
        except FileNotFoundError:
            if (folder / manifest.NAME).exists():
                raise
        if not (folder / manifest.NAME).exists():  # erased meanwhile, in the store after that
            _withdraw(store, place, record)
            return MovedOutput("damaged", reason="it was deleted meanwhile, as an erasure does")
        return MovedOutput("copied" if there == record else "other", files, size)
    if there != record:
        return MovedOutput("other", files, size)
    if not store.complete(place, folder, record):
        return MovedOutput("there", files, size)
    if store.read(f"{place}/{manifest.NAME}") != record:  # erased meanwhile
        store.tidy(place)
    return MovedOutput("copied", files, size)


def _withdraw(store: ObjectStore, place: str, record: str) -> None:
    if store.read(f"{place}/{manifest.NAME}") == record:
        store.remove(place)
    else:
        store.tidy(place)


def pull(store: ObjectStore, home: Path, place: str) -> MovedOutput:
    """Pull an output of a store, unless the home has one under its key."""
    folder = home / place
    try:
        record = store.read(f"{place}/{manifest.NAME}")
        if record is None:
            return MovedOutput("there", reason="its push has not ended")
        is_here = (folder / manifest.NAME).exists()
        if is_here and _record(folder) != record:
            return MovedOutput("other")
        if not is_here:
            store.pull(place, folder)
        return MovedOutput("there" if is_here else "copied", *_unchanged(folder, record))
    except ValueError as error:
        return MovedOutput("damaged", reason=str(error))


def _record(folder: Path) -> str:
    try:
        return (folder / manifest.NAME).read_text()
    except (UnicodeDecodeError, OSError) as error:
        raise ValueError(f"its manifest can't be read: {error}") from error


def _unchanged(folder: Path, record: str) -> tuple[int, int]:
    """Return the number of an output's files and their bytes.

    Raises:
        ValueError: One is not as it was when it was finished, or the manifest can't be read.
    """
    files = object_store.files_of(folder.name, record)
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{name} is gone")
        if manifest.file_digest(path) != expected:
            raise ValueError(f"{name} was changed after it was finished")
    return len(files), sum((folder / name).stat().st_size for name in files)
