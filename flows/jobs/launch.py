"""Wait for GPUs, then become the job: `python -m flows.jobs.launch KIND SPEC`."""

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from components.models import device
from components.schema import Progress
from components.store import file_locks, manifest
from flows import settings as environment
from flows.jobs import entrypoint, job_specs, runner
from flows.jobs.job_specs import JobSpec, LengthsSpec, PlanSpec, TrainSpec
from flows.settings import SettingsError
from flows.stack.processes import dying_with_parent

POLL_SECONDS = 0.5

# The holder of this file gathers its GPUs while others wait, so that two jobs never wait for what
# the other has, and one that needs many does not starve.
QUEUE = "queue"


@contextmanager
def hold_gpus(
    folder: Path, devices: Sequence[str], count: int, doing: str, report: Callable[[str], None]
) -> Generator[list[str]]:
    """Hold ``count`` of the devices, waiting for them first if need be; yield their names in order.

    A program that replaces this process (``os.execv``) keeps them. ``devices`` are names that are
    the same in every process, and ``folder`` holds the locks of all who share them. ``doing`` is
    shown to those who wait; ``report`` is called when waiting begins, and when what it waits for
    changes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wait = _GpuWait(report)
    with ExitStack() as stack:
        with _open_lock_file(folder / QUEUE) as queue:
            while not _try_lock(queue, doing):
                wait.sleep(f"waiting for a GPU, after {_read_holder(folder / QUEUE)}")
            taken = _lock_devices(folder, devices, count, doing, stack)
            while len(taken) < count:
                wait.sleep(_waiting_message(folder, devices, taken))
                left = [device for device in devices if device not in taken]
                taken |= _lock_devices(folder, left, count - len(taken), doing, stack)
        yield [device for device in devices if device in taken]


class _GpuWait:
    """Sleeps for moments, and reports the reason when it changes."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self.report = report
        self.reason = ""

    def sleep(self, reason: str) -> None:
        if reason != self.reason:
            self.report(reason)
            self.reason = reason
        time.sleep(POLL_SECONDS)


def _lock_devices(
    folder: Path, devices: Sequence[str], count: int, doing: str, stack: ExitStack
) -> set[str]:
    """Lock up to ``count`` free devices until ``stack`` closes."""
    taken: set[str] = set()
    for name in devices:
        with ExitStack() as attempt:
            lock = attempt.enter_context(_open_lock_file(folder / name))
            if len(taken) < count and _try_lock(lock, doing):
                os.set_inheritable(lock, True)  # a program that this process becomes keeps it
                stack.push(attempt.pop_all())
                taken.add(name)
    return taken


@contextmanager
def _open_lock_file(path: Path) -> Generator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, doing: str) -> bool:
    """Lock the file, unless another process does, and write this process into it as holder."""
    if not file_locks.lock(descriptor, wait=False):
        return False
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "doing": doing}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(holder).encode(), 0)
    return True


def _waiting_message(folder: Path, devices: Sequence[str], taken: Collection[str]) -> str:
    others = [
        f"GPU {number}, held by {_read_holder(folder / device)}"
        for number, device in enumerate(devices)
        if device not in taken
    ]
    return f"waiting for {'; '.join(others)}"


def _read_holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text())
    except json.JSONDecodeError:
        return "a process that took it just now"
    return f"pid {holder['pid']} on {holder['host']} running {holder['doing']}"


VISIBLE = "CUDA_VISIBLE_DEVICES"


def main(kind: str, spec_path: Path) -> None:
    """Wait for GPUs and become the job, or several processes of it under ``accelerate launch``."""
    settings, gpus = environment.load(), device.cuda_devices()
    spec, started = job_specs.read(kind, spec_path), time.monotonic()
    count = process_count(spec, settings.processes, len(gpus))
    arguments = ["-m", "flows.jobs.entrypoint", kind, str(spec_path)]
    command = processes_command(arguments, count)
    with ExitStack() as stack:
        variables = dict[str, str]()
        if gpus and not isinstance(spec, PlanSpec | LengthsSpec):  # they compute on the CPU
            uuids, doing = [gpu.uuid for gpu in gpus], spec_path.parent.name
            report = partial(report_waiting, count=count)
            held = hold_gpus(settings.gpus, uuids, count, doing, report)
            places = [uuids.index(uuid) for uuid in stack.enter_context(held)]
            variables = {VISIBLE: visible_devices(places, os.environ)}
        elif count > 1:
            variables = cpu_environment(count, os.environ)
        note_waiting(spec, spec_path, time.monotonic() - started)
        if variables:
            exec_command(command, variables)
    entrypoint.main(kind, spec_path)


def note_waiting(spec: JobSpec, spec_path: Path, seconds: float) -> None:
    """Record how long a job waited before it began, and move a training's deadline by as much."""
    manifest.write_atomically(spec_path.with_name(runner.WAITED), json.dumps(seconds))
    stop = spec.stop if isinstance(spec, TrainSpec) else None
    if stop is not None and stop.deadline is not None:
        later = spec.model_copy(update={"stop": replace(stop, deadline=stop.deadline + seconds)})
        manifest.write_atomically(spec_path, later.model_dump_json(indent=2))


def process_count(spec: JobSpec, requested: int | None, gpus: int) -> int:
    """Return a job's processes: for a training, as configured or one per GPU."""
    if not isinstance(spec, TrainSpec):
        return 1
    if requested and requested > gpus > 0:
        raise SettingsError(
            f"FLYWHEEL_PROCESSES is {requested}, but this process sees {gpus} GPU(s); each process "
            "needs one of its own"
        )
    # Each process takes a part of every step: more than a step's examples would be idle. Their
    # number changes only the order in which gradients are summed.
    return min(requested or max(gpus, 1), spec.recipe.step_size)


def processes_command(arguments: list[str], count: int) -> list[str]:
    """Return the command of a job's processes; several are killed with their launcher."""
    if count == 1:
        return [sys.executable, *arguments]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    launch += ["--num_machines", "1", "--num_processes", str(count), "--main_process_port", "0"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no"]  # the trainer chooses itself
    return [*launch, "--no_python", *dying_with_parent([sys.executable, *arguments], "KILL")]


def visible_devices(places: Sequence[int], environment: Mapping[str, str]) -> str:
    """Return ``CUDA_VISIBLE_DEVICES`` for the GPUs at these places of those this process sees."""
    names = environment[VISIBLE].split(",") if environment.get(VISIBLE) else None
    return ",".join(names[place] if names else str(place) for place in places)


def cpu_environment(count: int, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that give each of ``count`` processes its part of the cores."""
    threads = max(1, len(os.sched_getaffinity(0)) // count)
    return {"ACCELERATE_USE_CPU": "true"} | (
        {} if "OMP_NUM_THREADS" in environment else {"OMP_NUM_THREADS": str(threads)}
    )


def exec_command(command: list[str], added: Mapping[str, str]) -> None:
    """Replace this program by a command, which keeps the process, its pipes and its GPUs."""
    sys.stdout.flush()
    os.execve(command[0], command, os.environ | added)


def report_waiting(message: str, count: int) -> None:
    """Report to the waiting flow what the job waits for."""
    entrypoint.print_progress(Progress(message, 0, count, "GPUs"))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
