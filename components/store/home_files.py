"""List the files of a home, also of folders that a link leads to; keep whose they are."""

import os
import stat
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path


def files(folder: Path, leaving_out: AbstractSet[str] = frozenset()) -> Iterator[Path]:
    """Yield all files below a folder, and links but those to folders elsewhere, in order.

    What is in a folder elsewhere counts as what is in the link to it. A link to a folder that is
    listed anyway, or holds this one, is yielded itself. What is deleted meanwhile is left out.

    Args:
        folder: The folder.
        leaving_out: Names in it, but not in its folders, that are passed over.

    Raises:
        PermissionError: A folder may not be listed, so it is unknown what is there.
    """
    return _below(folder, leaving_out, [folder.resolve()])


def _below(folder: Path, leaving_out: AbstractSet[str], listed: list[Path]) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    for entry in ordered:
        path = folder / entry.name
        if entry.name in leaving_out:
            continue
        if entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and _enter(path, listed)):
            yield from _below(path, frozenset(), listed)
        else:
            yield path


def _enter(link: Path, listed: list[Path]) -> bool:
    """Enter the folder that a link leads to, unless it overlaps with one that is listed."""
    if not link.is_dir():
        return False
    target = link.resolve()
    if any(target.is_relative_to(other) or other.is_relative_to(target) for other in listed):
        return False
    listed.append(target)
    return True


def give_to_owner(copy: Path, file: Path) -> None:
    """Let who may open a file open what will replace it, too, though root made it."""
    status = file.stat()
    copy.chmod(stat.S_IMODE(status.st_mode))
    if os.geteuid() == 0:
        os.chown(copy, status.st_uid, status.st_gid)
