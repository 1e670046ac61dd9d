"""The folders of finished outputs: in this home, and where other machines find them.

A folder with a manifest is finished, and never changed again. Its name is its key: the digest of
all inputs, so that equal inputs find the finished folder.
"""

import os
import shutil
from collections.abc import Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote

from components.store import file_locks
from components.store.shared_files import shared_place

NAME = "manifest.json"  # the last file of every output

PARTIAL = ".partial"  # ends the name of a folder that is being fetched


def is_finished(folder: Path) -> bool:
    """Return whether the output in ``folder`` is complete here."""
    return (folder / NAME).exists()


def fetch(folder: Path) -> bool:
    """Return whether the output in ``folder`` is complete, after bringing it here if it must be."""
    if is_finished(folder):
        return True
    place = shared_place(folder)
    return place is not None and place[0].pull(place[1], folder)


def names(root: Path) -> list[str]:
    """List the names in a folder of outputs, here and elsewhere, finished or not, sorted."""
    place = shared_place(root)
    here = {path.name for path in root.glob("[!.]*")}  # a hidden one is being fetched
    return sorted(here.union(place[0].names(place[1])) if place else here)


def folder_name(workload_id: str) -> str:
    """Return a workload's folder name, escaped: no slash, no leading dot."""
    name = quote(workload_id, safe="")
    return "%2E" + name[1:] if name.startswith(".") else name


def find(root: Path, begins: str = "") -> list[Path]:
    """Fetch the finished outputs in a folder whose names begin so; return them sorted by name."""
    folders = [root / name for name in names(root) if name.startswith(begins)]
    return [folder for folder in folders if fetch(folder)]


def read_record(folder: Path) -> str | None:
    """Return the text of a finished output's manifest, and fetch nothing; ``None``: unfinished."""
    try:
        return (folder / NAME).read_text()
    except (FileNotFoundError, NotADirectoryError):
        return _shared_record(folder)


def _shared_record(folder: Path) -> str | None:
    place = shared_place(folder)
    return place[0].read(f"{place[1]}/{NAME}") if place else None


class SourceGoneError(RuntimeError):
    """What an output is made from was deleted meanwhile, as an erasure does."""


def count_copies(folders: Iterable[Path]) -> dict[Path, int]:
    """Count where each output is finished: here, and where other machines find it."""
    return {folder: _copies(folder) for folder in folders}


def _copies(folder: Path) -> int:
    return is_finished(folder) + (_shared_record(folder) is not None)


FINISHING = ".finishing"
"""The lock file in a root of outputs: shared by who finishes one, held alone by an erasure."""


@contextmanager
def while_kept(sources: Mapping[Path, int], output: Path) -> Generator[None]:
    """Finish an output in the block; delete it if a copy of a source was deleted meanwhile.

    Else an erasure, which deletes what it finds, would not know of it.

    Args:
        sources: What the output is made from, such as a snapshot, with the ``count_copies`` of
            each before it was read.
        output: The folder or file of the output, ``<root>/<workload>/<key>``.

    Raises:
        SourceGoneError: There are fewer; the output is not kept.
    """
    with file_locks.held(output.parent.parent / FINISHING, shared=True):
        _require_copies(sources, output)
        yield
        try:
            _require_copies(sources, output)
        except SourceGoneError:
            remove(output)
            raise


@contextmanager
def while_none_finishes(*roots: Path) -> Generator[None]:
    """Let no process of this machine finish an output by ``while_kept`` in the block.

    What an erasure finds there before it deletes anything is all that there will be.
    """
    with ExitStack() as stack:
        for root in roots:
            stack.enter_context(file_locks.held(root / FINISHING))
        yield


def _require_copies(sources: Mapping[Path, int], output: Path) -> None:
    for source, count in sources.items():
        if _copies(source) < count:
            raise SourceGoneError(
                f"finishing {output}: {source}, which it is made from, was deleted meanwhile, as "
                "an erasure does, so it is not kept; run the turn again"
            )


def remove(folder: Path) -> None:
    """Delete an output here and elsewhere; its manifest goes first.

    The one here before the other: by that who pushes it knows that it was too late.
    """
    if folder.is_dir():
        (folder / NAME).unlink(missing_ok=True)
    withdraw(folder)
    forget(folder)


def forget(folder: Path) -> None:
    """Delete this machine's copies of an output, and nothing elsewhere."""
    forget_pulls(folder)
    if folder.is_file():
        folder.unlink()
    elif folder.exists():
        (folder / NAME).unlink(missing_ok=True)  # half a folder must not look finished
        shutil.rmtree(folder.resolve())
        if folder.is_symlink():  # to another disk
            folder.unlink()


def withdraw(folder: Path) -> None:
    """Delete an output elsewhere, so that another one can be finished under its key."""
    if place := shared_place(folder):
        place[0].remove(place[1])


def sync_file(path: Path) -> None:
    """Wait until a file is on the disk: a lost power must not leave it empty."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def sole_puller(root: Path) -> Generator[None]:
    """Let one process of this machine at a time fetch into the folders of a root."""
    descriptor = os.open(root, os.O_RDONLY)
    try:
        file_locks.lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def forget_pulls(folder: Path) -> None:
    """Delete what killed fetches of an output have left beside it; wait for one under way."""
    if folder.parent.exists():
        with sole_puller(folder.parent):
            for path in (partial_folder(folder), replaced_folder(folder)):
                shutil.rmtree(path, ignore_errors=True)


def partial_folder(folder: Path) -> Path:
    """Return where an output is put together while it is fetched."""
    return folder.with_name(f".{folder.name}{PARTIAL}")


def replaced_folder(folder: Path) -> Path:
    """Return where the unfinished folder is put that a fetched one replaces."""
    return folder.with_name(f".{folder.name}.replaced{PARTIAL}")
