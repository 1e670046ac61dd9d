"""Lock files with ``flock``; the system releases a lock when its process ends, even by SIGKILL."""

import fcntl
import os
import shutil
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

HOLDER = ".holder"
"""The lock file in a temporary folder."""


@contextmanager
def held(
    path: Path, *, wait: bool = True, shared: bool = False, mode: int = 0o666
) -> Generator[bool]:
    """Hold a lock file, created if missing; yield whether it could be locked.

    Args:
        path: The file. It is never deleted, so that all processes lock the same one.
        wait: Whether to wait while another process holds it; else yield ``False`` at once.
        shared: Whether others may hold it at the same time, if they share it, too.
        mode: The permissions of a new file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, mode)
    try:
        yield lock(descriptor, wait=wait, shared=shared)
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
    """Provide a temporary folder that ``delete_abandoned`` and ``clear`` spare while it is used."""
    within.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        while (folder := _held_folder(stack, within, prefix)) is None:
            pass
        yield folder


def _held_folder(stack: ExitStack, within: Path, prefix: str) -> Path | None:
    """Create a folder and lock it; ``None`` if it was taken for abandoned before."""
    folder = Path(stack.enter_context(TemporaryDirectory(prefix=prefix, dir=within)))
    stack.enter_context(held(folder / HOLDER))
    return folder if (folder / HOLDER).exists() else None


def delete_abandoned(within: Path) -> None:
    """Delete the folders of ``temporary_folder`` whose process was killed."""
    for path in within.glob(f"*/{HOLDER}"):
        _delete_unless_held(path.parent)


def clear(within: Path) -> None:
    """Delete all that is in a folder but the folders of ``temporary_folder`` that are in use."""
    for path in within.glob("*"):
        if path.is_dir() and not path.is_symlink():
            _delete_unless_held(path)
        else:
            path.unlink(missing_ok=True)


def _delete_unless_held(folder: Path) -> None:
    with ExitStack() as stack:
        with suppress(FileNotFoundError):  # it has none, or its process ends just now
            descriptor = os.open(folder / HOLDER, os.O_RDWR)
            stack.callback(os.close, descriptor)
            if not lock(descriptor, wait=False):
                return
        shutil.rmtree(folder, ignore_errors=True)
