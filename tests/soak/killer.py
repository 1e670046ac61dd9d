"""Somebody who ends processes with ``kill -9``, at times and of kinds that a seed draws."""

import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psutil

from tests.soak.machine import Machine

REST = (0.5, 3.5)
"""Between two kills, at least and at most: in starts of the stack, as long as one took here."""

Running = Callable[[psutil.Process], bool]


def _module(*words: str) -> Running:
    def is_it(process: psutil.Process) -> bool:
        return process.cmdline()[1 : 1 + len(words)] == list(words)

    return is_it


def _receiver(process: psutil.Process) -> bool:
    return "receive" in process.cmdline()[1:4]


PROCESSES: Mapping[str, Running] = {
    "trainer": _module("-m", "flows.jobs.launch", "train"),
    "evaluator": _module("-m", "flows.jobs.launch", "evaluate"),
    "flow run": _module("-m", "flows.stack.engine"),
    "receiver": _receiver,
}
SERVICES = {
    "prefect": "server",
    "mlflow": "mlflow",
    "worker-cpu": "cpu worker",
    "worker-gpu": "gpu worker",
    "supervisor": "supervisor",
}
SELDOM = {"supervisor": 0.3, "receiver": 0.5}
"""How often a kind is drawn, of the times that others are: with the supervisor all turns end."""


@dataclass
class Killer:
    """What was killed so far."""

    machine: Machine
    draw: random.Random
    killed: Counter[str] = field(default_factory=Counter[str])

    def strike(self) -> None:
        """Kill one process of a kind that runs now."""
        found = self._victims()
        if not found:
            return
        kinds = sorted(found)
        (kind,) = self.draw.choices(kinds, [SELDOM.get(one, 1.0) for one in kinds])
        pid = self.draw.choice(sorted(found[kind]))
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.killed[kind] += 1
            self.machine.note(("(killed)", kind), pid, "")

    def _victims(self) -> dict[str, set[int]]:
        found = {
            kind: {pid}
            for name, kind in SERVICES.items()
            if (pid := self.machine.services().get(name)) and psutil.pid_exists(pid)
        }
        for process in self.machine.processes():
            with suppress(psutil.NoSuchProcess):
                for kind, is_it in PROCESSES.items():
                    if is_it(process):
                        found.setdefault(kind, set()).add(process.pid)
        return found


@contextmanager
def about(machine: Machine, seed: int) -> Generator[Killer]:
    """Let the killer go about until the block ends."""
    killer, ending = Killer(machine, random.Random(seed)), threading.Event()

    def go() -> None:
        while not ending.wait(killer.draw.uniform(*REST) * machine.start_seconds):
            killer.strike()

    thread = threading.Thread(target=go, name="killer")
    thread.start()
    try:
        yield killer
    finally:
        ending.set()
        thread.join()
