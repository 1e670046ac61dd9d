"""A job without a model: ``python -m tiny_job count|fail|wait|wait_together SPEC``."""

import os
import signal
import sys
import time
from pathlib import Path

from components.schema import Progress
from flows.jobs import entrypoint
from flows.jobs.job_specs import JobSpec


class Count(JobSpec):
    kind = "count"


class Fail(JobSpec):
    kind = "fail"


class Bake(JobSpec):
    kind = "bake"


class Wait(JobSpec):
    kind = "wait"
    pid: str
    saved: str


class WaitTogether(Wait):
    kind = "wait_together"


def count() -> None:
    sys.stdout.write("a library says something\n")
    for done in (1, 2, 3):
        report(done)


def fail() -> None:
    sys.stderr.writelines(f"line {number}\n" for number in range(30))
    sys.exit(3)


def wait(spec: Wait) -> None:
    """Write its pid, and save something when stopped."""

    def save(*_: object) -> None:
        Path(spec.saved).write_text("saved")
        sys.exit(143)

    signal.signal(signal.SIGTERM, save)
    Path(spec.pid).write_text(str(os.getpid()))
    report(1)
    time.sleep(60)


def wait_together(spec: Wait) -> None:
    """Wait in one of several processes, each with its own files."""
    rank = os.environ["RANK"]
    wait(Wait(pid=spec.pid + rank, saved=spec.saved + rank))


def report(done: int) -> None:
    entrypoint.print_progress(Progress("count", done, 3, "steps", {"loss": 1 / done}))


if __name__ == "__main__":
    text = Path(sys.argv[2]).read_text()
    match sys.argv[1]:
        case "count":
            count()
        case "fail":
            fail()
        case "wait":
            wait(Wait.model_validate_json(text))
        case _:
            wait_together(WaitTogether.model_validate_json(text))
