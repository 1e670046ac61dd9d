"""Another process that has a warehouse open."""

import time
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path

from components.store import warehouse
from tests.support import forking


def held_elsewhere(path: Path, seconds: float) -> BaseProcess:
    """Start a process that holds the warehouse for so long; return it once it does."""
    is_held = forking.PROCESSES.Event()
    holder = forking.process(hold, path, is_held, seconds)
    holder.start()
    assert is_held.wait(30)
    return holder


def hold(path: Path, is_held: Event, seconds: float) -> None:
    """Hold the warehouse."""
    with warehouse.connect(path):
        is_held.set()
        time.sleep(seconds)
