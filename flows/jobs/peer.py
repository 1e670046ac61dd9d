"""Join the trainings of another machine: `python -m flows.jobs.peer`, until it is stopped.

The machine that runs the flow is number 0 (``FLYWHEEL_MACHINE``); each other one runs this.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

from components.models import device, shared_bases
from components.store import manifest, object_store
from components.store.object_store import ObjectStore
from flows import settings as environment
from flows.jobs import launch, machines, shared_job
from flows.jobs.machines import Announcement, SharedTraining, ShownTrainings
from flows.settings import Machines, Settings, SettingsError
from flows.stack.processes import dying_with_parent

POLL_SECONDS = 1.0

GRACE_SECONDS = 30.0  # for a training to end by itself once the first machine has let it go


def main() -> None:
    """Join each training that the first machine announces."""
    argparse.ArgumentParser(
        prog="python -m flows.jobs.peer",
        description="Join the trainings of the machine that runs the flows, until SIGTERM.",
    ).parse_args()
    # A container ends with this process, and as its first one it would not heed the signal.
    signal.signal(signal.SIGTERM, _leave)
    settings = environment.load()
    ours = settings.machines
    if ours is None or ours.number == 0:
        raise SettingsError(
            "joining trainings: FLYWHEEL_MACHINES has to be the number of machines, at least 2, "
            "and FLYWHEEL_MACHINE this one's, at least 1; number 0 runs the flow"
        )
    if settings.store is not None:
        _follow_store(settings, ours, settings.store)
    file = machines.announcement_file(settings, ours)
    _say(f"machine {ours.number} of {ours.count}, waiting for trainings announced in {file}")
    last = ""
    while True:
        announcement = machines.announced(file)
        if announcement is not None and announcement.attempt != last:
            last = announcement.attempt
            join(settings, ours, announcement, partial(machines.announced, file))
        time.sleep(POLL_SECONDS)


def _follow_store(settings: Settings, ours: Machines, store: ObjectStore) -> NoReturn:
    place = machines.store_place(ours)
    trainings = ShownTrainings(store, place)
    _say(f"machine {ours.number} of {ours.count}, waiting for trainings in {store.url}/{place}")
    last = ""
    while True:
        with suppress(*object_store.network_errors()):
            training = trainings.read(time.monotonic())
            if training is not None and training.announcement.attempt != last:
                last = training.announcement.attempt
                _join_shared(settings, ours, training, trainings)
        time.sleep(POLL_SECONDS)


def _join_shared(
    settings: Settings, ours: Machines, training: SharedTraining, trainings: ShownTrainings
) -> None:
    """Take part in a training of a machine with another home; delete what it leaves here."""
    try:
        announcement = fetch_training(settings, training)
    except (LookupError, OSError, ValueError) as error:
        _say(f"can't join the training of {training.spec.folder}: {error}")
        return
    known = announcement

    def announced() -> Announcement | None:
        nonlocal known
        with suppress(*object_store.network_errors()):  # a store that is away ends no training
            shown = trainings.read(time.monotonic())
            is_same = shown is not None and shown.announcement.attempt == announcement.attempt
            known = announcement if is_same else None
        return known

    try:
        join(settings, ours, announcement, announced)
    finally:
        folder = settings.home / training.spec.folder.relative_to(training.home)
        if not (folder / manifest.NAME).exists():
            shutil.rmtree(folder, ignore_errors=True)


def fetch_training(settings: Settings, training: SharedTraining) -> Announcement:
    """Pull what a training of another machine reads; return where its specification is here.

    Raises:
        ValueError: A path is not of that machine's home, or a base has another content.
        LookupError: The store lacks the snapshot or the adapter to start from.
        OSError: It lacks the base, or can't be reached.
    """
    spec = training.spec

    def moved(path: Path) -> Path:
        inside = path.relative_to(training.home)
        if ".." in inside.parts:
            raise ValueError(f"{path} is not in {training.home}")
        return settings.home / inside

    places = {
        name: moved(path)
        for name in ("snapshot", "folder", "warm_start", "rows", "reached")
        if isinstance(path := getattr(spec, name), Path)
    }
    for name in ("snapshot", "warm_start"):
        if name in places and not manifest.is_finished(places[name]):
            raise LookupError(f"the object store has no {settings.portable(places[name])}")
    base = shared_bases.local_base(settings.models, spec.base, training.base)
    stop = spec.stop
    if stop is not None and stop.keep is not None:
        stop = replace(stop, keep=str(moved(Path(stop.keep))))
    own = spec.model_copy(update={**places, "base": base, "stop": stop})
    shared_job.copy_checkpoints(settings, own.folder)
    path = moved(Path(training.announcement.spec))
    path.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_atomically(path, own.model_dump_json(indent=2))
    return replace(training.announcement, spec=str(path))


def join(
    settings: Settings,
    ours: Machines,
    announcement: Announcement,
    announced: Callable[[], Announcement | None],
) -> int | None:
    """Take part in a training until it ends; return its exit code, ``None`` if it can't be joined.

    It is stopped if the first machine has let it go (``announced``) and it goes on.
    """
    spec = Path(announcement.spec)
    if not spec.is_file():
        _say(f"can't join the training of {spec}: it is not here; do the machines share the home?")
        return None
    gpus = device.cuda_devices()
    if gpus and len(gpus) < announcement.processes:
        _say(
            f"can't join the training of {spec}: the first machine takes {announcement.processes} "
            f"GPUs of each machine, and here are {len(gpus)}; set FLYWHEEL_PROCESSES there"
        )
        return None
    arguments = ["-m", "flows.jobs.entrypoint", announcement.kind, str(spec)]
    command = launch.processes_command(arguments, announcement.processes, ours)
    with ExitStack() as stack:
        variables = launch.cpu_environment(announcement.processes, os.environ)
        if gpus:
            uuids = [gpu.uuid for gpu in gpus]
            report = partial(launch.report_waiting, count=announcement.processes)
            held = launch.hold_gpus(
                settings.gpus, uuids, announcement.processes, spec.parent.name, report
            )
            places = [uuids.index(uuid) for uuid in stack.enter_context(held)]
            variables = {launch.VISIBLE: launch.visible_devices(places, os.environ)}
        variables |= machines.network_environment(ours, os.environ)
        _say(f"joining the training of {spec}")
        process = subprocess.Popen(
            dying_with_parent(command, "TERM"), env=os.environ | variables, stdout=sys.stderr
        )
        code = _wait_for(process, announced, announcement)
    _say(f"the training of {spec} ended here with code {code}")
    return code


def _wait_for(
    process: "subprocess.Popen[bytes]",
    announced: Callable[[], Announcement | None],
    announcement: Announcement,
) -> int:
    let_go = 0.0
    try:
        while process.poll() is None:
            time.sleep(POLL_SECONDS)
            if announced() == announcement:
                let_go = 0.0
            else:
                let_go += POLL_SECONDS
            if let_go > GRACE_SECONDS:
                _say("the first machine has let this training go, and it goes on here: stopping it")
                break
    finally:  # this process may have been told to stop
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
    return process.wait()


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def _say(message: str) -> None:
    sys.stderr.write(message + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
