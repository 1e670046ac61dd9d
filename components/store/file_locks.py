"""Lock whole files with ``flock``: the system releases a lock when its process ends, however."""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held(path: Path, *, wait: bool = True, mode: int = 0o666) -> Generator[bool]:
    """Hold a lock file, made if need be; yield whether it could be locked.

    Args:
        path: The file. It stays, so that all who lock it lock the same one.
        wait: Wait for another process that holds it; else yield ``False`` at once.
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
