"""Push finished outputs of a home to an object store, each held against its manifest."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from components.extensions.machines import object_store
from components.extensions.machines.object_store import ObjectStore
from components.store import manifest


@dataclass(frozen=True, slots=True)
class PushedOutput:
    """Whether an output was copied, and why it can't be; it may have been there."""

    is_copied: bool = False
    objection: str | None = None


def places_here(home: Path, roots: Sequence[str]) -> list[str]:
    """List the finished outputs of a home, as their paths in it and in a store."""
    folders = [folder for root in roots for folder in sorted((home / root).glob("*/[!.]*"))]
    return [
        folder.relative_to(home).as_posix()
        for folder in folders
        if (folder / manifest.NAME).exists()
    ]


def push(store: ObjectStore, home: Path, place: str) -> PushedOutput:
    """Push an output of a home, unless the store has one under its key.

    Of an output that the store has, what is missing there is pushed again.
    """
    folder, name = home / place, f"{place}/{manifest.NAME}"
    try:
        record = _unchanged_record(folder)
        there = store.read(name)
    except (ValueError, FileNotFoundError) as error:
        return PushedOutput(objection=str(error))
    if there is None:
        try:
            there = store.push(place, folder, record)
        except FileNotFoundError:
            if (folder / manifest.NAME).exists():
                raise
        if not (folder / manifest.NAME).exists():  # erased meanwhile, in the store after that
            if store.read(name) == record:
                store.remove(place)
            else:
                store.tidy(place)
            return PushedOutput(objection="it was deleted meanwhile, as an erasure does")
        is_copied = there == record
    else:
        is_copied = there == record and store.complete(place, folder, record) > 0
        if is_copied and store.read(name) != record:  # erased meanwhile
            store.tidy(place)
    if there != record:
        return PushedOutput(objection="another output was finished under this key")
    return PushedOutput(is_copied)


def _unchanged_record(folder: Path) -> str:
    """Return an output's manifest.

    Raises:
        ValueError: It can't be read, or a file is not as it was when the output was finished.
    """
    try:
        record = (folder / manifest.NAME).read_text()
    except (UnicodeDecodeError, OSError) as error:
        raise ValueError(f"its manifest can't be read: {error}") from error
    for name, expected in object_store.files_of(folder.name, record).items():
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{name} is gone")
        if manifest.file_digest(path) != expected:
            raise ValueError(f"{name} was changed after it was finished")
    return record
