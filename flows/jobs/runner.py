"""Run a job in a process that ends with its flow run, and pass on its progress."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO, TypeAlias

from pydantic import TypeAdapter

from components.costs import Work
from components.schema import Progress
from components.store import file_locks, manifest
from flows import settings
from flows.jobs.job_specs import JobSpec, TrainSpec
from flows.machines import shared_job

Listener: TypeAlias = Callable[[Progress], None]  # called for each progress line of a job

WORK = "work.json"  # in a job's folder, once it has ended: the work that it took

WAITED = "waited.json"  # beside it: the seconds that it waited for GPUs

PROGRESS, WORK_DONE = TypeAdapter(Progress), TypeAdapter(Work)

GRACE_SECONDS = 25.0  # for a job to save its checkpoint; Prefect allows 30


LOCK, POLL_SECONDS = "lock", 0.5  # the file of ``sole`` in a job's folder, and how often it looks

STOPPED = (-signal.SIGTERM, 128 + signal.SIGTERM)  # exit codes of a job that somebody stopped


class JobError(RuntimeError):
    """A job ended without finishing its work.

    ``is_interrupted``: it was stopped, so that nothing is wrong with its work.
    """

    def __init__(self, message: str, *, is_interrupted: bool = False) -> None:
        super().__init__(message)
        self.is_interrupted = is_interrupted


_held: dict[Path, int] = {}  # open lock files of ``sole``, by their folder


@contextmanager
def sole(folder: Path, waiting: Callable[[], None]) -> Generator[None]:
    """Hold a job's folder while the block, and any job that it has run there, goes on.

    Another process that holds it, such as a run of a turn that was killed, makes the same output;
    ``waiting`` is called once before waiting for it. A job outlives its killed flow for as long as
    it saves, and holds the folder until then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if not file_locks.lock(descriptor, wait=False):
            waiting()
            while not file_locks.lock(descriptor, wait=False):
                time.sleep(POLL_SECONDS)
        _held[folder] = descriptor
        yield
    finally:
        _held.pop(folder, None)
        os.close(descriptor)


def run_job(
    spec: JobSpec, folder: Path, on_progress: Listener, module: str = "flows.jobs.launch"
) -> None:
    """Run ``python -m flows.jobs.launch KIND`` on ``spec``; pass on each progress line it prints.

    ``folder`` keeps spec, log and the newest progress (``jobs/<kind>-<key>``). ``JobError`` ends
    with the last lines of the log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest.write_atomically(folder / "spec.json", spec.model_dump_json(indent=2))
    for stale in ("progress.json", WORK, WAITED):  # of a run before this one
        (folder / stale).unlink(missing_ok=True)
    log = folder / "log.txt"
    command = [sys.executable, "-m", module, spec.kind, str(folder / "spec.json")]
    with (
        shared_job.shared(folder, spec.folder if isinstance(spec, TrainSpec) else None),
        log.open("ab") as errors,
        _job_process(command, errors, [_held[folder]] if folder in _held else []) as process,
    ):
        assert process.stdout is not None
        for progress in _progress_lines(process.stdout):
            manifest.write_atomically(folder / "progress.json", progress_line(progress))
            on_progress(progress)
        code = process.wait()
    if code != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise JobError(
            f"{spec.kind} job ended with code {code}; the end of {log}:\n{tail}",
            is_interrupted=code in STOPPED,
        )


def progress_line(progress: Progress) -> str:
    """Return one progress line as the job prints it."""
    return json.dumps(asdict(progress))


def newest_progress(folder: Path) -> Progress | None:
    """Read the newest progress of the job in ``folder``; ``None`` before its first line.

    If it runs on another machine, it is some seconds old.
    """
    text = settings.load().read(folder / "progress.json")
    return PROGRESS.validate_json(text) if text is not None else None


def read_work(folder: Path) -> Work | None:
    """Read the work that the job in ``folder`` took; ``None`` if it was killed."""
    path = folder / WORK
    return WORK_DONE.validate_json(path.read_text()) if path.exists() else None


def read_waiting(folder: Path) -> float:
    """Read the seconds that the last job in ``folder`` waited before it began."""
    path = folder / WAITED
    return float(path.read_text()) if path.exists() else 0.0


def forget_waiting(folder: Path) -> None:
    """Delete what ``read_waiting`` reads, before a job that may not be run again."""
    (folder / WAITED).unlink(missing_ok=True)


def _progress_lines(lines: Iterable[bytes]) -> Iterator[Progress]:
    for line in lines:
        if line.startswith(b'{"stage"'):
            yield PROGRESS.validate_json(line)


@contextmanager
def _job_process(
    command: list[str], errors: BinaryIO, locks: Sequence[int]
) -> Generator[subprocess.Popen[bytes]]:
    """Start a process that gets SIGTERM when this one dies, and that ends with the block."""
    wrapper = ["setpriv", "--pdeathsig", "TERM", "--"] if shutil.which("setpriv") else []
    process = subprocess.Popen(
        [*wrapper, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        start_new_session=True,
        pass_fds=locks,
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
