"""Join the trainings of another machine: `python -m flows.jobs.peer`, until it is stopped.

The machine that runs the flow is number 0 (``FLYWHEEL_MACHINE``); each other one runs this.
"""

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from components.models import device
from flows import settings as environment
from flows.jobs import launch, machines
from flows.jobs.machines import Announcement
from flows.settings import Machines, Settings, SettingsError
from flows.stack.processes import dying_with_parent

POLL_SECONDS = 1.0

GRACE_SECONDS = 30.0  # for a training to end by itself once the first machine has let it go


def main() -> None:
    """Join each training that the first machine announces."""
    settings = environment.load()
    ours = settings.machines
    if ours is None or ours.number == 0:
        raise SettingsError(
            "joining trainings: FLYWHEEL_MACHINES has to be the number of machines, at least 2, "
            "and FLYWHEEL_MACHINE this one's, at least 1; number 0 runs the flow"
        )
    file = machines.announcement_file(settings, ours)
    _say(f"machine {ours.number} of {ours.count}, waiting for trainings announced in {file}")
    last = ""
    while True:
        announcement = machines.announced(file)
        if announcement is not None and announcement.attempt != last:
            last = announcement.attempt
            join(settings, ours, file, announcement)
        time.sleep(POLL_SECONDS)


def join(settings: Settings, ours: Machines, file: Path, announcement: Announcement) -> int | None:
    """Take part in a training until it ends; return its exit code, ``None`` if it can't be joined.

    It is stopped if the first machine has let it go and it goes on.
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
        code = _wait_for(process, file, announcement)
    _say(f"the training of {spec} ended here with code {code}")
    return code


def _wait_for(process: "subprocess.Popen[bytes]", file: Path, announcement: Announcement) -> int:
    let_go = 0.0
    while process.poll() is None:
        time.sleep(POLL_SECONDS)
        if machines.announced(file) == announcement:
            let_go = 0.0
        else:
            let_go += POLL_SECONDS
        if let_go > GRACE_SECONDS:
            _say("the first machine has let this training go, and it goes on here: stopping it")
            process.terminate()
            try:
                process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
    return process.wait()


def _say(message: str) -> None:
    sys.stderr.write(message + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
