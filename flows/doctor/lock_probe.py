"""Check that file locks hold in the home: `python -m flows.doctor.file_locks FOLDER`."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from flows.doctor.finding import CheckResult, fine, wrong

RIVAL_SECONDS = 60.0

KINDS: dict[str, Callable[[IO[bytes], int], None]] = {"flock": fcntl.flock, "fcntl": fcntl.lockf}
"""How each kind of lock is taken; a file for each, for NFS makes one kind of both."""

REMEDY = (
    "keep FLYWHEEL_HOME on a file system whose locks hold: a local disk, or NFS 4 without `nolock` "
    "and `local_lock` (infra/README.md)"
)

LOCAL_ONLY = {
    "nfs": ("nolock", "local_lock=all", "local_lock=flock", "local_lock=posix"),
    "nfs4": ("nolock", "local_lock=all", "local_lock=flock", "local_lock=posix"),
    "cifs": ("nobrl", "forcemandatorylock"),
    "smb3": ("nobrl", "forcemandatorylock"),
    "lustre": ("localflock", "noflock"),
}
"""Mount options under which a lock is known to one machine only."""

NEVER_SHARED = frozenset(
    f"fuse.{name}" for name in ("sshfs", "s3fs", "rclone", "gcsfuse", "goofys", "mount-s3")
)
"""File systems of which other machines have the files, but never the locks."""


@dataclass(frozen=True, slots=True)
class Mount:
    """What the home lies on."""

    point: str
    kind: str
    options: tuple[str, ...] = ()


def check_locks(home: Path, troubles: Sequence[str], mount: Mount | None) -> Iterator[CheckResult]:
    """Judge what was tried, and what the kernel says of the file system."""
    for trouble in troubles:
        yield wrong("locks", f"{trouble} in {home}", REMEDY)
    if local := local_only(mount):
        yield wrong("locks", f"{home} is {local}: locks hold on this machine only", REMEDY)
    elif not troubles:
        on = f", on {mount.kind}" if mount else ""
        yield fine("locks", f"hold between two processes in {home}{on}")


def local_only(mount: Mount | None) -> str | None:
    """Describe a mount whose locks no other machine heeds; ``None`` for any other."""
    if mount is None:
        return None
    if mount.kind in NEVER_SHARED:
        return f"on {mount.kind}"
    bad = [option for option in mount.options if option in LOCAL_ONLY.get(mount.kind, ())]
    return f"on {mount.kind} mounted with {', '.join(bad)}" if bad else None


def probe_locks(home: Path) -> list[str]:
    """Take a lock of each kind, and see what another process makes of it, now and afterwards."""
    try:
        with TemporaryDirectory(prefix=".locks-", dir=home) as name, ExitStack() as held:
            folder = Path(name)
            troubles = [*_take_lock(folder, held)]
            if troubles:
                return troubles
            while_held = _probe_from_rival(folder)
            held.close()
            afterwards = _probe_from_rival(folder)
    except OSError as error:
        return [f"locks can't be tried ({error})"]
    both = [kind for kind in KINDS if while_held[kind] == "taken"]
    never = [kind for kind in KINDS if afterwards[kind] != "taken"]
    return [
        *(f"two processes had the same {kind} lock at once" for kind in both),
        *(
            f"a {kind} lock that was given up is not to be had ({afterwards[kind]})"
            for kind in never
        ),
    ]


def mount_of(path: Path, table: str) -> Mount | None:
    """Find what a path lies on in the kernel's ``mountinfo``."""
    real, best = str(path.resolve()), None
    for line in table.splitlines():
        words, _, rest = line.partition(" - ")
        kind, _, options = rest.split(maxsplit=2)
        point = words.split()[4].encode().decode("unicode_escape")
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and (best is None or len(point) >= len(best.point)):
            best = Mount(point, kind, (*words.split()[5].split(","), *options.split(",")))
    return best


def _take_lock(folder: Path, held: ExitStack) -> Iterator[str]:
    for kind, take in KINDS.items():
        file = held.enter_context((folder / kind).open("wb"))
        try:
            take(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            yield f"{kind} locks can't be taken ({error.strerror})"


def _probe_from_rival(folder: Path) -> dict[str, str]:
    command = [sys.executable, "-m", "flows.doctor.lock_probe", str(folder)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, timeout=RIVAL_SECONDS
    )
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


def main(folder: Path) -> None:
    """Try each lock from another process, and print of each what came of it."""
    for kind, take in KINDS.items():
        with (folder / kind).open("ab") as file:
            try:
                take(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                said = os.strerror(error.errno or 0)
            else:
                said = "taken"
        sys.stdout.write(f"{kind} {said}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
