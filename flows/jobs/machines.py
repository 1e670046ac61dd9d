"""One training over several machines: who leads it, and how the others find it.

The first machine runs the flow and announces each training in a file of the shared home, which it
holds locked until the training ends, by ``kill -9`` too. The others (``flows.jobs.peer``) join what
is announced.
"""

import json
import os
import socket
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from components.store import file_locks
from flows.jobs.job_specs import JobSpec, TrainSpec
from flows.settings import Machines, Settings

GLOO_INTERFACE = "GLOO_SOCKET_IFNAME"  # gloo would choose by the host's name, often the loopback


@dataclass(frozen=True, slots=True)
class Announcement:
    """A training that waits for the other machines; ``attempt`` is another for each start.

    ``processes`` are those of each machine.
    """

    attempt: str
    kind: str
    spec: str
    processes: int


def for_job(spec: JobSpec, machines: Machines | None) -> Machines | None:
    """Return the machines that a job is spread over; ``None`` if it runs on one.

    Only trainings are, and none whose steps have fewer examples than there are machines, or that
    has a deadline: each machine's clock has its own.
    """
    if machines is None or not isinstance(spec, TrainSpec):
        return None
    if spec.recipe.step_size < machines.count or (spec.stop and spec.stop.deadline is not None):
        return None
    return machines


def announcement_file(settings: Settings, machines: Machines) -> Path:
    """Return the file that the machines which meet at this address share."""
    return settings.gpus / f"machines-{machines.host}-{machines.port}"


@contextmanager
def leading(file: Path, wait: Callable[[], None]) -> Generator[Callable[[Announcement], None]]:
    """Hold the machines that meet at an address; yield what announces a training to them.

    ``wait`` is called while another training has them. A program that replaces this process keeps
    them.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)

    def announce(announcement: Announcement) -> None:
        os.pwrite(descriptor, json.dumps(asdict(announcement)).encode(), 0)

    try:
        while not file_locks.lock(descriptor, wait=False):
            wait()
        os.ftruncate(descriptor, 0)  # what was announced before is over
        os.set_inheritable(descriptor, True)
        yield announce
    finally:
        os.close(descriptor)


def announced(file: Path) -> Announcement | None:
    """Return the training that is announced, if the machine that announced it still has it."""
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        if file_locks.lock(descriptor, wait=False, shared=True):
            return None
        text = os.read(descriptor, 2**16)
    finally:
        os.close(descriptor)
    try:
        return Announcement(**json.loads(text))
    except json.JSONDecodeError:  # being written, or its GPUs are still waited for
        return None


def network_environment(machines: Machines, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variable that names the network interface towards the first machine.

    Raises:
        OSError: The first machine's name is unknown.
    """
    if environment.get(GLOO_INTERFACE):
        return {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((machines.host, machines.port))  # sends nothing
        own: str = probe.getsockname()[0]
    for name, addresses in psutil.net_if_addrs().items():
        if any(address.address == own for address in addresses):
            return {GLOO_INTERFACE: name}
    return {}
