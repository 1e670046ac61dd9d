"""Check that file locks hold in the home: `python -m flows.doctor.lock_probe FOLDER`."""

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

MOUNTS = Path("/proc/self/mountinfo")  # the kernel's table of mounts; Linux only

# How each kind of lock is taken; each in a file of its own, since NFS makes one kind of both.
KINDS: dict[str, Callable[[IO[bytes], int], None]] = {"flock": fcntl.flock, "fcntl": fcntl.lockf}

REMEDY = (
    "keep FLYWHEEL_HOME on a file system whose locks hold: a local disk, or NFS 4 without `nolock` "
    "and `local_lock` (infra/README.md)"
)

# Mount options under which only one machine knows of a lock.
LOCAL_ONLY = {
    "nfs": ("nolock", "local_lock=all", "local_lock=flock", "local_lock=posix"),
    "nfs4": ("nolock", "local_lock=all", "local_lock=flock", "local_lock=posix"),
    "cifs": ("nobrl", "forcemandatorylock"),
    "smb3": ("nobrl", "forcemandatorylock"),
    "lustre": ("localflock", "noflock"),
}

# File systems whose files other machines have, but never the locks.
NEVER_SHARED = frozenset(
    f"fuse.{name}" for name in ("sshfs", "s3fs", "rclone", "gcsfuse", "goofys", "mount-s3")
)


@dataclass(frozen=True, slots=True)
class Mount:
    """The mount of the home."""

    point: str
    kind: str
    options: tuple[str, ...] = ()


def check_locks(home: Path, troubles: Sequence[str], mount: Mount | None) -> Iterator[CheckResult]:
    """Check the troubles of ``probe_locks`` and the mount."""
    for trouble in troubles:
        yield wrong("locks", f"{trouble} in {home}", REMEDY)
    if local := local_only(mount):
        yield wrong("locks", f"{home} is {local}: locks hold on this machine only", REMEDY)
    elif not troubles:
        on = f", on {mount.kind}" if mount else ""
        yield fine("locks", f"hold between two processes in {home}{on}")


def local_only(mount: Mount | None) -> str | None:
    """Describe a mount whose locks other machines ignore; ``None`` for any other."""
    if mount is None:
        return None
    if mount.kind in NEVER_SHARED:
        return f"on {mount.kind}"
    bad = [option for option in mount.options if option in LOCAL_ONLY.get(mount.kind, ())]
    return f"on {mount.kind} mounted with {', '.join(bad)}" if bad else None


def probe_locks(home: Path) -> list[str]:
    """Take a lock of each kind; try it from another process meanwhile and afterwards."""
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
        *(f"a {kind} lock that was released can't be taken ({afterwards[kind]})" for kind in never),
    ]


def mount_of(path: Path, table: str) -> Mount | None:
    """Find the mount of a path in the kernel's ``mountinfo``."""
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
    """Try each lock from another process, and print the outcome of each."""
    for kind, take in KINDS.items():
        with (folder / kind).open("ab") as file:
            try:
                take(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                outcome = os.strerror(error.errno or 0)
            else:
                outcome = "taken"
        sys.stdout.write(f"{kind} {outcome}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
