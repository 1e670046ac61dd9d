"""Run a training or an evaluation in a process of its own, which ends when its flow run does.

Torch stays out of the flow's process, so a cancel in the Prefect UI, a crash of the worker or a
``kill -9`` of the engine ends the job within seconds; a training keeps its last checkpoint.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeAlias

from components import costs, manifest
from components.costs import Work
from components.schema import Progress

Listener: TypeAlias = Callable[[Progress], None]
"""Called for each progress line of a job."""

WORK = "work.json"
"""The file in a job's folder that records what the job took of the machine, once it has ended."""

GRACE_SECONDS = 25.0
"""How long a job may take to save its checkpoint before it is killed (Prefect allows 30)."""


class JobError(RuntimeError):
    """A job ended without finishing its work."""


def run(
    kind: str,
    spec: Mapping[str, object],
    folder: Path,
    on_progress: Listener,
    module: str = "flows.launch",
) -> None:
    """Run ``python -m flows.launch KIND`` on ``spec`` and pass on each progress line it prints.

    Args:
        kind: ``train`` or ``evaluate``.
        spec: The job's arguments, JSON.
        folder: Where spec, log and the newest progress are kept (``jobs/<kind>-<key>``).
        on_progress: Called in this process for each progress line.
        module: The program, which gets ``kind`` and the path of the specification.

    Raises:
        JobError: The job failed; the message ends with the last lines of its log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest.write_atomically(folder / "spec.json", json.dumps(spec, indent=2, default=str))
    for stale in ("progress.json", WORK):  # of a run before this one
        (folder / stale).unlink(missing_ok=True)
    log = folder / "log.txt"
    command = [sys.executable, "-m", module, kind, str(folder / "spec.json")]
    with log.open("ab") as errors, _process(command, errors) as process:
        assert process.stdout is not None
        for progress in _progress_lines(process.stdout):
            manifest.write_atomically(folder / "progress.json", to_json(progress))
            on_progress(progress)
        code = process.wait()
    if code != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise JobError(f"{kind} job ended with code {code}; the end of {log}:\n{tail}")


def to_json(progress: Progress) -> str:
    """Give one progress line as the job prints it."""
    return json.dumps(
        {
            "stage": progress.stage,
            "done": progress.done,
            "total": progress.total,
            "unit": progress.unit,
            "figures": progress.figures,
        }
    )


def newest_progress(folder: Path) -> Progress | None:
    """Read how far the job in ``folder`` has come; ``None`` before its first line."""
    try:
        return Progress(**json.loads((folder / "progress.json").read_text()))
    except FileNotFoundError:
        return None


def work(folder: Path) -> Work | None:
    """Read what the job in ``folder`` took of the machine; ``None`` if it was killed."""
    path = folder / WORK
    return costs.work_in(json.loads(path.read_text())) if path.exists() else None


def _progress_lines(lines: Iterable[bytes]) -> Iterator[Progress]:
    for line in lines:
        if line.startswith(b'{"stage"'):
            yield Progress(**json.loads(line))


@contextmanager
def _process(command: list[str], errors: BinaryIO) -> Generator[subprocess.Popen[bytes]]:
    """Start a process that gets SIGTERM when this one dies, and is ended when the block ends."""
    wrapper = ["setpriv", "--pdeathsig", "TERM", "--"] if shutil.which("setpriv") else []
    process = subprocess.Popen(
        [*wrapper, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        start_new_session=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        yield process
    finally:  # cancelled, timed out or interrupted: the job first saves what it has
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
