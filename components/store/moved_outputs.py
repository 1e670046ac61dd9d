"""Copy finished outputs between a home and an object store, each held against its manifest."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from components.store import manifest
from components.store.object_store import DamagedObjectError, ObjectStore

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
    """Push an output of a home, unless the store has one under its key."""
    folder = home / place
    record = (folder / manifest.NAME).read_text()
    try:
        files = _files(record)
        size = sum((folder / name).stat().st_size for name in files)
        there = store.read(f"{place}/{manifest.NAME}")
        changed = [
            name
            for name, expected in files.items()
            if there is None and manifest.file_digest(folder / name) != expected
        ]
    except (ValueError, FileNotFoundError) as error:
        return MovedOutput("damaged", reason=str(error))
    if changed:
        return MovedOutput("damaged", reason=f"{changed[0]} was changed after it was finished")
    if there is None and store.push(place, folder, record) == record:
        return MovedOutput("copied", len(files), size)
    return MovedOutput("there" if there == record else "other", len(files), size)


def pull(store: ObjectStore, home: Path, place: str) -> MovedOutput:
    """Pull an output of a store, unless the home has one under its key."""
    folder = home / place
    try:
        record = store.read(f"{place}/{manifest.NAME}")
    except DamagedObjectError as error:
        return MovedOutput("damaged", reason=str(error))
    if record is None:
        return MovedOutput("there", reason="its push has not ended")
    outcome: Outcome = "copied"
    if (folder / manifest.NAME).exists():
        outcome = "there" if (folder / manifest.NAME).read_text() == record else "other"
    try:
        if outcome == "copied":
            store.pull(place, folder)
        files = _files(record)
    except DamagedObjectError as error:
        return MovedOutput("damaged", reason=str(error))
    return MovedOutput(outcome, len(files), sum((folder / name).stat().st_size for name in files))


def _files(record: str) -> Mapping[str, str]:
    try:
        files: dict[str, str] = json.loads(record)["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"its manifest can't be read: {error!r}") from error
    return files
