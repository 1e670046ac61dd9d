"""A job without a model: ``python -m tiny_job count|fail|wait|wait_together SPEC``."""

import json
import os
import signal
import sys
import time
from pathlib import Path

from components.schema import Progress
from flows import job


def count(spec: dict[str, str]) -> None:
    sys.stdout.write("a library says something\n")
    for done in (1, 2, 3):
        say(done)


def fail(spec: dict[str, str]) -> None:
    sys.stderr.writelines(f"line {number}\n" for number in range(30))
    sys.exit(3)


def wait(spec: dict[str, str]) -> None:
    """Note the own pid, and save something when asked to stop."""

    def save(*_: object) -> None:
        Path(spec["saved"]).write_text("saved")
        sys.exit(143)

    signal.signal(signal.SIGTERM, save)
    Path(spec["pid"]).write_text(str(os.getpid()))
    say(1)
    time.sleep(60)


def wait_together(spec: dict[str, str]) -> None:
    """Do as ``wait`` does, in one of several processes, each with files of its own."""
    rank = os.environ["RANK"]
    wait({name: path + rank for name, path in spec.items()})


def say(done: int) -> None:
    job.say(Progress("count", done, 3, "steps", {"loss": 1 / done}))


if __name__ == "__main__":
    kinds = {"count": count, "fail": fail, "wait": wait, "wait_together": wait_together}
    kinds[sys.argv[1]](json.loads(Path(sys.argv[2]).read_text()))
