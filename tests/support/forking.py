"""Start a process in a few milliseconds, so that it can be killed where it works, not imports.

All are forked from one process that has imported what they need.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Concatenate, ParamSpec

Parameters = ParamSpec("Parameters")
Ready = Callable[[str], None]

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "tests.components.collect.test_exactly_once",
        "tests.components.register.test_interrupted_changes",
        "tests.support.fake_engine",
        "tests.support.fake_production",
        "tests.support.launch_gateway",
        "tests.support.launch_receiver",
        "tests.support.scripted_engine",
        "moto.s3.urls",
        "moto.server",
        "rich.table",
        "typer",
        "tests.support.frozen_imports",
    ]
)

END_SECONDS = 40


def process(target: Callable[..., None], *args: object) -> BaseProcess:
    """Return a process that has this one's environment; not started yet."""
    return PROCESSES.Process(target=_in_environment, args=(dict(os.environ), target, args, {}))


def _in_environment(
    environment: dict[str, str],
    target: Callable[..., None],
    args: tuple[object, ...],
    more: dict[str, object],
) -> None:
    # that which others are forked from has the environment of the test that was first
    os.environ.clear()
    os.environ.update(environment)
    target(*args, **more)


def ready() -> None:
    """Start that process where these modules are found: in the folder that is the current one."""
    forkserver.ensure_running()


@contextmanager
def server(
    is_forked: bool,
    serve: Callable[Concatenate[Ready, Parameters], None],
    *args: Parameters.args,
    **more: Parameters.kwargs,
) -> Generator[tuple[BaseProcess, str]]:
    """Run a server for the block; yield its process and the URL that it says when it listens.

    If it is not forked, it loads what it needs itself, and nothing else.
    """
    context = PROCESSES if is_forked else multiprocessing.get_context("spawn")
    urls, to_parent = context.Pipe(duplex=False)
    asked = dict(os.environ), serve, (to_parent.send, *args), more
    process = context.Process(target=_in_environment, args=asked)
    process.start()
    to_parent.close()
    try:
        yield process, urls.recv()
    finally:
        urls.close()
        end(process)


def run(
    command: Callable[[], None], arguments: Sequence[str], environment: Mapping[str, str]
) -> "subprocess.CompletedProcess[str]":
    """Call ``command`` in a process of its own, with these ``sys.argv``; return what it wrote."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / name for name in ("stdout", "stderr")]
        asked = dict(environment), Path.cwd(), [*arguments], outputs, command
        process = PROCESSES.Process(target=_call, args=asked)
        process.start()
        process.join()
        assert process.exitcode is not None
        texts = [output.read_text() for output in outputs]
        return subprocess.CompletedProcess([*arguments], process.exitcode, *texts)


def _call(
    environment: dict[str, str],
    current: Path,
    arguments: list[str],
    outputs: list[Path],
    command: Callable[[], None],
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(current)
    for number, output in enumerate(outputs, start=1):
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT), number)
    sys.argv = arguments
    command()


def end(process: BaseProcess) -> int | None:
    """Ask a process to end, and wait; return its exit code."""
    process.terminate()
    process.join(END_SECONDS)
    return process.exitcode
