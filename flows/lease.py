"""Take GPUs for one job at a time: a lock on a file for each, held as long as a process lives.

The system gives a lock back when the last process that holds its file open has ended, however it
ended: nothing has to be cleaned up, and nobody waits for the dead.
"""

import json
import os
import socket
import time
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from components.store import file_locks

POLL_SECONDS = 0.5

QUEUE = "queue"
"""The file whose holder gathers GPUs; others stand in line until it has them all, so that two jobs
never wait for what the other has, and one that wants many is not passed by for ever."""


@contextmanager
def held(
    folder: Path, devices: Sequence[str], count: int, doing: str, say: Callable[[str], None]
) -> Generator[list[str]]:
    """Hold ``count`` of the devices, waiting for them first if need be.

    A program that this process becomes (``os.execv``) goes on holding them.

    Args:
        folder: Where the locks are, one folder for all who share the devices.
        devices: Names that are the same in every process; the order numbers them where it is said.
        count: How many of them, at most all.
        doing: What for, told to those who wait.
        say: Called with a sentence when waiting begins, and when what is waited for changes.

    Yields:
        The devices that are held, in the given order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wait = _Wait(say)
    with ExitStack() as stack:
        with _opened(folder / QUEUE) as queue:
            while not _locked(queue, doing):
                wait.a_moment(f"waiting for a GPU, after {_holder(folder / QUEUE)}")
            taken = _taken(folder, devices, count, doing, stack)
            while len(taken) < count:
                wait.a_moment(_message(folder, devices, taken))
                left = [device for device in devices if device not in taken]
                taken |= _taken(folder, left, count - len(taken), doing, stack)
        yield [device for device in devices if device in taken]


class _Wait:
    """Waits in short naps, and says what for, but not twice the same."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.said = ""

    def a_moment(self, sentence: str) -> None:
        if sentence != self.said:
            self.say(sentence)
            self.said = sentence
        time.sleep(POLL_SECONDS)


def _taken(
    folder: Path, devices: Sequence[str], count: int, doing: str, stack: ExitStack
) -> set[str]:
    """Lock up to ``count`` devices that nobody holds; ``stack`` gives them back."""
    taken: set[str] = set()
    for device in devices:
        with ExitStack() as attempt:
            lock = attempt.enter_context(_opened(folder / device))
            if len(taken) < count and _locked(lock, doing):
                os.set_inheritable(lock, True)  # a program that this process becomes keeps it
                stack.push(attempt.pop_all())
                taken.add(device)
    return taken


@contextmanager
def _opened(path: Path) -> Generator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _locked(descriptor: int, doing: str) -> bool:
    """Lock the file and write into it who holds it, unless another process does."""
    if not file_locks.lock(descriptor, wait=False):
        return False
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "doing": doing}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(holder).encode(), 0)
    return True


def _message(folder: Path, devices: Sequence[str], taken: Collection[str]) -> str:
    others = [
        f"GPU {number}, held by {_holder(folder / device)}"
        for number, device in enumerate(devices)
        if device not in taken
    ]
    return f"waiting for {'; '.join(others)}"


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text())
    except json.JSONDecodeError:
        return "a process that took it just now"
    return f"pid {holder['pid']} on {holder['host']} running {holder['doing']}"
