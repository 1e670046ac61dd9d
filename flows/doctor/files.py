"""Whether others on this machine can read or change what is kept in the home."""

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from flows.doctor.finding import Finding, fine, note, wrong


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder of the home, and its permissions."""

    path: Path
    mode: int
    is_secret: bool = False
    """Whether it lets somebody in who has read it."""


def check(home: Entry, inside: Iterable[Entry]) -> Iterator[Finding]:
    """Look at the home, and at what in it matters most."""
    secrets = [entry for entry in inside if entry.is_secret]
    found = [
        *filter(None, (changeable(entry) for entry in (home, *inside))),
        *filter(None, (readable(entry, home) for entry in secrets)),
        *filter(None, (private(home),)),
    ]
    yield from found or [fine("home", f"{home.path}, its owner's alone")]


def changeable(entry: Entry) -> Finding | None:
    """Object to what anybody may write: a workload's file says what is read and run."""
    if entry.mode & stat.S_IWOTH and not entry.mode & stat.S_ISVTX:
        return wrong("home", f"anybody may change {entry.path}", f"chmod o-w {entry.path}")
    return None


def readable(entry: Entry, home: Entry) -> Finding | None:
    """Object to a secret that others may read; a home that nobody else enters hides it."""
    if entry.mode & (stat.S_IRGRP | stat.S_IROTH) and home.mode & (stat.S_IXGRP | stat.S_IXOTH):
        return wrong("home", f"others may read {entry.path}", f"chmod 600 {entry.path}")
    return None


def private(home: Entry) -> Finding | None:
    """Point at a home that others may enter: it holds what people wrote, and databases."""
    if home.mode & stat.S_IXOTH:
        return note(
            "home",
            f"others on this machine may enter {home.path}, where people's requests are kept",
            f"chmod o-rx {home.path}",
        )
    return None
