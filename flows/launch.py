"""Start a job on the GPUs it may have: ``python -m flows.launch KIND SPEC``, which becomes it.

An evaluation takes one GPU, a training one for each of its processes; they wait until these are
free and keep them until they end. A plan computes nothing and takes none. Without CUDA there is
nothing to take: that one job at a time runs there is the limit of the ``gpu`` pool.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from components import hardware
from components.schema import Progress
from flows import job, job_specs, lease
from flows import settings as environment
from flows.job_specs import JobSpec, PlanSpec, TrainSpec
from flows.settings import SettingsError
from flows.stack.processes import dying_with_parent

VISIBLE = "CUDA_VISIBLE_DEVICES"


def main(kind: str, spec_path: Path) -> None:
    """Wait for GPUs and become the job, or several processes of it under ``accelerate launch``."""
    settings, gpus = environment.load(), hardware.gpus()
    spec = job_specs.read(kind, spec_path)
    count = processes(spec, settings.processes, len(gpus))
    arguments = ["-m", "flows.job", kind, str(spec_path)]
    if gpus and not isinstance(spec, PlanSpec):
        uuids, doing = [gpu.uuid for gpu in gpus], spec_path.parent.name
        say = partial(wait, count=count)
        with lease.held(settings.gpus, uuids, count, doing, say) as taken:
            places = [uuids.index(uuid) for uuid in taken]
            become(command(arguments, count), {VISIBLE: visible(places, os.environ)})
    elif count > 1:
        become(command(arguments, count), cpu_environment(count, os.environ))
    else:
        job.main(kind, spec_path)


def processes(spec: JobSpec, wanted: int | None, gpus: int) -> int:
    """Count the processes of a job: of a training one for each GPU, or as many as are wanted.

    Each takes a part of every step, so there are never more than a step has examples, and their
    number changes the adapter no more than another order of summing does.

    Raises:
        SettingsError: More are wanted than there are GPUs.
    """
    if not isinstance(spec, TrainSpec):
        return 1
    if wanted and wanted > gpus > 0:
        raise SettingsError(
            f"FLYWHEEL_PROCESSES is {wanted}, but this process sees {gpus} GPU(s); each process "
            "needs one of its own"
        )
    return min(wanted or max(gpus, 1), spec.recipe.step_size)


def command(arguments: list[str], count: int) -> list[str]:
    """Give the command of a job's processes; those of several are killed if their launcher is."""
    if count == 1:
        return [sys.executable, *arguments]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    launch += ["--num_machines", "1", "--num_processes", str(count), "--main_process_port", "0"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no"]  # the trainer chooses itself
    return [*launch, "--no_python", *dying_with_parent([sys.executable, *arguments], "KILL")]


def visible(places: Sequence[int], given: Mapping[str, str]) -> str:
    """Name the GPUs at these places among those that this process sees, as CUDA wants it."""
    names = given[VISIBLE].split(",") if given.get(VISIBLE) else None
    return ",".join(names[place] if names else str(place) for place in places)


def cpu_environment(count: int, given: Mapping[str, str]) -> dict[str, str]:
    """Let each of several processes compute on its part of the cores."""
    threads = max(1, len(os.sched_getaffinity(0)) // count)
    return {"ACCELERATE_USE_CPU": "true"} | (
        {} if "OMP_NUM_THREADS" in given else {"OMP_NUM_THREADS": str(threads)}
    )


def become(command: list[str], added: Mapping[str, str]) -> None:
    """Run a command in place of this program, which keeps its process, its pipes and its GPUs."""
    sys.stdout.flush()
    os.execve(command[0], command, os.environ | added)


def wait(said: str, count: int) -> None:
    """Tell the flow that waits for this job what the job waits for."""
    job.say(Progress(said, 0, count, "GPUs"))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
