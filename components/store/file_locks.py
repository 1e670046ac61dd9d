"""Lock files with ``flock``; the system releases a lock when its process ends, even by SIGKILL."""

import fcntl
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

HOLDER = ".holder"
"""The lock file in a temporary folder."""


@contextmanager
def held(path: Path, *, wait: bool = True, mode: int = 0o666) -> Generator[bool]:
    """Hold a lock file, created if missing; yield whether it could be locked.

    Args:
        path: The file. It is never deleted, so that all processes lock the same one.
        wait: Whether to wait while another process holds it; else yield ``False`` at once.
        mode: The permissions of a new file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, mode)
    try:
        yield lock(descriptor, wait=wait)
    finally:
        os.close(descriptor)


def lock(descriptor: int, *, wait: bool = True, shared: bool = False) -> bool:
    """Lock an open file until it is closed; return ``False`` if another process holds it."""
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def temporary_folder(within: Path, prefix: str) -> Generator[Path]:
    """Provide a temporary folder that ``delete_abandoned`` spares while this process lives."""
    within.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=prefix, dir=within) as name, held(Path(name) / HOLDER):
        yield Path(name)


def delete_abandoned(within: Path) -> None:
    """Delete the folders of ``temporary_folder`` whose process was killed."""
    for path in sorted(within.glob(f"*/{HOLDER}")):
        with held(path, wait=False) as is_abandoned:
            if is_abandoned:
                shutil.rmtree(path.parent)
