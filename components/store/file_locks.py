"""Lock files with ``flock``; the system releases a lock when its process ends, even by SIGKILL."""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


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
