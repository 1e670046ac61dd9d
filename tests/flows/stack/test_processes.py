import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import psutil

from flows.stack import processes

SLEEP = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True);"
    "time.sleep(60)",
]


def spawn(command: list[str], **env: str) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **env})
    assert process.stdout
    process.stdout.readline()
    return process


def eventually(claim: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not claim() and time.monotonic() < deadline:
        time.sleep(0.05)
    return claim()


def test_a_process_is_alive_until_it_ends_even_if_nobody_reaps_it() -> None:
    with spawn(SLEEP) as process:
        identity = processes.identify_process(process.pid)
        assert processes.is_alive(identity)
        process.kill()
        assert eventually(lambda: not processes.is_alive(identity))
        assert psutil.pid_exists(process.pid)  # a zombie


def test_another_process_with_the_same_pid_is_not_taken_for_it() -> None:
    me = processes.identify_process(os.getpid())
    assert processes.is_alive(me)
    assert not processes.is_alive(replace(me, started=me.started - 1))
    assert not processes.is_alive(replace(me, boot="another"))


def test_marked_finds_only_those_started_with_that_value() -> None:
    with spawn(SLEEP, SHOP="a") as ours, spawn(SLEEP, SHOP="b") as other:
        assert [found.pid for found in processes.marked_processes("SHOP", "a")] == [ours.pid]
        ours.kill()
        other.kill()


def test_end_kills_who_does_not_stop() -> None:
    with spawn(SLEEP) as polite, spawn(STUBBORN) as stubborn:
        processes.end_processes(
            [psutil.Process(polite.pid), psutil.Process(stubborn.pid)], grace=0.3
        )
        assert polite.wait() == -15
        assert stubborn.wait() == -9


def test_a_wrapped_command_dies_with_its_parent() -> None:
    start = (
        "import subprocess, sys; from flows.stack.processes import dying_with_parent;"
        f"command = dying_with_parent({SLEEP!r}, 'KILL');"
        "print(subprocess.Popen(command, stdout=sys.stderr).pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", start],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with parent:
        assert parent.stdout
        assert parent.stderr
        child = processes.identify_process(int(parent.stdout.readline()))
        parent.stderr.readline()  # the child runs what it was to run
        parent.kill()
        assert eventually(lambda: not processes.is_alive(child))
