"""Whether others on this machine can read or change what is kept in the home."""

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from flows import permissions
from flows.doctor.finding import Finding, fine, wrong
from flows.settings import GROUP


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
    shared = stat.S_IMODE(home.mode) & permissions.SHARED == permissions.SHARED
    whose = "shared with its group" if shared else "its owner's alone"
    yield from found or [fine("home", f"{home.path}, {whose}")]


def changeable(entry: Entry) -> Finding | None:
    """Object to what anybody may write: a workload's file says what is read and run."""
    if entry.mode & stat.S_IWOTH and not entry.mode & stat.S_ISVTX:
        return wrong("home", f"anybody may change {entry.path}", f"chmod o-w {entry.path}")
    return None


def readable(entry: Entry, home: Entry) -> Finding | None:
    """Object to a secret that others may read; a home that nobody else enters hides it."""
    shared = stat.S_IMODE(home.mode) & permissions.SHARED == permissions.SHARED
    seen = stat.S_IROTH if shared else stat.S_IRGRP | stat.S_IROTH
    if entry.mode & seen and home.mode & (stat.S_IXGRP | stat.S_IXOTH):
        return wrong("home", f"others may read {entry.path}", f"chmod 600 {entry.path}")
    return None


def private(home: Entry) -> Finding | None:
    """Object to a home that others may enter: it holds what people wrote, and databases."""
    mode = stat.S_IMODE(home.mode)
    if mode & stat.S_IRWXO:
        return wrong(
            "home",
            f"others on this machine may enter {home.path}, where people's requests are kept",
            "`flywheel up` closes it, or chmod o-rwx",
        )
    if mode & stat.S_IRWXG and mode & permissions.SHARED != permissions.SHARED:
        return wrong(
            "home",
            f"a group may enter {home.path}, though it does not share it",
            f"`flywheel up` closes it, or shares it with the group that {GROUP} names",
        )
    return None
