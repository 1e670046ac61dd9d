"""The port to files that machines share where they share no folder; an extension has them.

``flows.settings`` finds it, and a home's folders of outputs are then a cache of what is there.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, TypeAlias


class StoreError(RuntimeError):
    """The shared files can't be reached or used; the message has the reason and the remedy."""


class DamagedObjectError(ValueError):
    """A shared file is not what the manifest of its output says."""


class SharedFiles(Protocol):
    """Files by their place; an output's is ``<root>/<workload>/<key>``.

    What can't be reached, or is refused, raises errors that ``reaching`` turns into ``StoreError``.
    """

    @property
    def url(self) -> str:
        """The address, without a password."""
        ...

    def reaching(self, doing: str) -> AbstractContextManager[None]:
        """Raise ``StoreError``, which begins with ``doing``, where the block can't reach them."""
        ...

    def pull(self, place: str, folder: Path) -> bool:
        """Replace an unfinished or missing folder by the finished one; ``False``: there is none."""
        ...

    def push(self, place: str, folder: Path, record: str) -> str:
        """Finish a folder there; return its manifest, another machine's if that was first."""
        ...

    def read(self, place: str) -> str | None:
        """Return the text of a file; ``None`` if there is none."""
        ...

    def write(self, place: str, text: str) -> None:
        """Write a text as a file."""
        ...

    def create(self, place: str, text: str) -> str:
        """Write a text as a file unless there is one; return the text that is there now."""
        ...

    def get(self, place: str, path: Path) -> bool:
        """Copy a file to a path; return ``False`` if there is none."""
        ...

    def put(self, place: str, path: Path) -> None:
        """Write a file; the last one to write it wins."""
        ...

    def names(self, place: str) -> list[str]:
        """List the names below a place, finished or not."""
        ...

    def files(self, place: str) -> list[str]:
        """List all files below a place, relative to it."""
        ...

    def written(self, place: str) -> tuple[dict[str, float], float]:
        """Return when each file right below a place was written, and what time it is there."""
        ...

    def remove(self, place: str) -> None:
        """Delete all below a place, its manifest first."""
        ...

    def remove_file(self, place: str) -> None:
        """Delete a file, if it is there."""
        ...

    def forget_uploads(self, below: str) -> None:
        """Delete what killed processes have sent; ``OSError`` if that is not allowed."""
        ...


Place: TypeAlias = tuple[SharedFiles, str]

_find_place: Callable[[Path], Place | None] | None = None
_locate: Callable[[str], Place] | None = None


def share_by(
    find_place: Callable[[Path], Place | None], locate: Callable[[str], Place] | None = None
) -> None:
    """Set what finds where an output of a home, and the file of an address, lies."""
    global _find_place, _locate
    _find_place, _locate = find_place, locate


def shared_place(folder: Path) -> Place | None:
    """Return where other machines find an output or a folder of outputs; ``None``: nowhere."""
    return _find_place(folder) if _find_place else None


def located(address: str) -> Place:
    """Return the files of an address that is no path, and the place in them."""
    assert _locate is not None, f"{address} is named, and nothing that reaches it is set"
    return _locate(address)
