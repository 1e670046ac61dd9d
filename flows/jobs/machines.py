"""One training over several machines: who leads it, and how the others find it.

The first machine runs the flow and announces each training in a file of its home, which it holds
locked until the training ends, by ``kill -9`` too. The others (``flows.jobs.peer``) join what is
announced. If machines share an object store instead of the home, ``shown`` writes there every
``BEAT_SECONDS`` what the file announces.
"""

import json
import os
import socket
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from components.models import shared_bases
from components.store import file_locks, object_store
from components.store.object_store import ObjectStore
from flows.jobs.job_specs import JobSpec, TrainSpec
from flows.settings import Machines, Settings

BEAT_SECONDS = 2.0
SILENT_SECONDS = 60.0  # after which a machine that shows a training is taken to be gone

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


def for_job(spec: JobSpec, settings: Settings) -> Machines | None:
    """Return the machines that a job is spread over; ``None`` if it runs on one.

    Only trainings are, and none whose steps have fewer examples than there are machines, or that
    has a deadline: each machine's clock has its own. With an object store neither is one that is
    measured as it goes on: what was measured before an interruption is on the first machine only.
    """
    machines = settings.machines
    if machines is None or not isinstance(spec, TrainSpec):
        return None
    if settings.store is not None and spec.recipe.eval_steps is not None:
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


@contextmanager
def shown(
    settings: Settings, machines: Machines, spec: JobSpec, spec_path: Path
) -> Generator[None]:
    """Show a training in the object store while its job announces it, for the whole block.

    Raises:
        StoreError: The store can't be reached before the training.
    """
    store = settings.store
    assert store is not None
    assert isinstance(spec, TrainSpec)
    with object_store.reaching("sharing the base of a training over several machines"):
        base = shared_bases.push(store, spec.base)
    place = store_place(machines)
    content = {"home": str(settings.home), "base": base, "spec": spec.model_dump(mode="json")}
    is_over = threading.Event()

    def beat() -> None:
        beats, file = 0, announcement_file(settings, machines)
        while not is_over.wait(BEAT_SECONDS):
            announcement = announced(file)
            if announcement is None or announcement.spec != str(spec_path.absolute()):
                continue
            beats += 1
            body = {**content, "beat": beats, "announcement": asdict(announcement)}
            with suppress(*object_store.network_errors()):  # the next beat may reach it
                store.write(place, json.dumps(body))

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        with suppress(*object_store.network_errors()):  # it has no beat any more
            store.remove_file(place)


def store_place(machines: Machines) -> str:
    """Return where the store has the training of the machines that meet at this address."""
    return f"machines/{machines.host}-{machines.port}.json"


@dataclass(frozen=True, slots=True)
class SharedTraining:
    """A training that another machine shows in the object store."""

    announcement: Announcement
    home: Path
    """The home of that machine."""

    base: str
    """The hash of the base's content."""

    spec: TrainSpec


@dataclass(slots=True)
class ShownTrainings:
    """What the first machine shows in the object store, as long as it goes on to show it.

    Machines' clocks are not compared: what counts is that a beat followed another one lately.
    """

    store: ObjectStore
    place: str
    _last: tuple[str, int] = ("", 0)  # attempt and beat
    _seen_at: float | None = None  # when a beat followed another one

    def read(self, now: float) -> SharedTraining | None:
        """Return the training that is shown; ``None`` if there is none, or its machine is gone.

        Raises:
            OSError: The store can't be reached.
        """
        text = self.store.read(self.place)
        if text is None:
            self._seen_at = None
            return None
        content = json.loads(text)
        announcement = Announcement(**content["announcement"])
        beat = announcement.attempt, int(content["beat"])
        if beat[0] != self._last[0]:
            self._seen_at = None
        elif beat != self._last:
            self._seen_at = now
        self._last = beat
        if self._seen_at is None or now - self._seen_at > SILENT_SECONDS:
            return None
        spec = TrainSpec.model_validate(content["spec"])
        return SharedTraining(announcement, Path(content["home"]), str(content["base"]), spec)


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
