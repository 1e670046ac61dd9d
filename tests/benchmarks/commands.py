"""Measure what commands cost in a home that is used; ``python -m tests.benchmarks.commands``.

Each command's CPU seconds are those of its process and of all that it started and waited for. The
home is built at the first run and kept where ``--place`` says, so that a second run, or another
checkout's, measures the same home. ``--only status,audit`` measures some of them.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks import used_home
from tests.benchmarks.used_home import WORKLOAD, Size
from tests.support import small_workload, terminal
from tests.support.terminal import Terminal

ROUNDS = 3
SHOWN = "{:<12} {:>9} {:>9} {:>9}"


@dataclass(frozen=True)
class Cost:
    """CPU seconds, with those of children, and seconds on the wall."""

    cpu: float
    wall: float


@dataclass(frozen=True)
class Measured:
    """A command, what it may cost, and in which of both it is held to that."""

    name: str
    words: tuple[str, ...]
    target: float
    codes: tuple[int, ...] = (0,)


def commands(config: Path) -> list[Measured]:
    """List the commands that a person types while the stack is up."""
    return [
        Measured("--help", ("--help",), 1.0),
        Measured("check", ("check", str(config)), 1.0),
        Measured("status", ("status",), 1.0),
        Measured("pending", ("pending",), 1.0),
        Measured("audit", ("audit",), 1.0),
        Measured("feedback", ("feedback", WORKLOAD), 1.0),
        Measured("lineage", ("lineage", WORKLOAD), 1.0),
        Measured("doctor", ("doctor",), 4.0, (0, 1)),
        Measured("rollback", ("rollback", WORKLOAD, "--as", "ann", "--reason", "slow"), 2.0),
    ]


def run(shell: Terminal, *words: str, codes: tuple[int, ...] = (0,)) -> Cost:
    """Run a command to its end; raise ``RuntimeError`` if it ends with another code."""
    with tempfile.TemporaryFile("w+") as said:
        began = time.monotonic()
        command = subprocess.Popen(
            [terminal.COMMAND, *words], env=shell.env, stdout=said, stderr=said
        )
        _, status, used = os.wait4(command.pid, 0)
        wall = time.monotonic() - began
        command.returncode = os.waitstatus_to_exitcode(status)
        if command.returncode not in codes:
            said.seek(0)
            raise RuntimeError(f"flywheel {' '.join(words)}: {command.returncode}\n{said.read()}")
    return Cost(used.ru_utime + used.ru_stime, wall)


def median(measure: Callable[[], Cost]) -> Cost:
    """Measure several times, after a first time that does not count."""
    measure()
    costs = [measure() for _ in range(ROUNDS)]
    return Cost(
        statistics.median(cost.cpu for cost in costs),
        statistics.median(cost.wall for cost in costs),
    )


@contextmanager
def used(place: Path, size: Size) -> Generator[tuple[Terminal, Path]]:
    """Bring the used home up, built if it is not there; yield it with its workload's file."""
    shell, is_new = terminal.in_home(place / "home"), not (place / "built").exists()
    if is_new:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        used_home.write_logs(place, size)
    config = place / f"{WORKLOAD}.yaml"
    run(shell, "up")
    try:
        if is_new:
            used_home.fill(shell, config, size)
            (place / "built").touch()
        yield shell, config
    finally:
        run(shell, "down")


def measure_commands(place: Path, size: Size, only: set[str]) -> None:
    """Print what each command costs while the stack is up, beside its target."""
    show("command", "CPU s", "wall s", "target")
    with used(place, size) as (shell, config):
        for one in commands(config):
            if only and one.name not in only:
                continue
            cost = median(lambda one=one: run(shell, *one.words, codes=one.codes))
            show(one.name, f"{cost.cpu:.2f}", f"{cost.wall:.2f}", f"{one.target:.1f} CPU")


def measure_stack(scratch: Path) -> None:
    """Print the seconds of ``up`` in a new home and in one that was up, and of turns by stage."""
    shell, config = terminal.in_home(scratch / "home"), small_workload.write(scratch / "small")
    cold = run(shell, "up")
    run(shell, "down")
    warm = run(shell, "up")
    show("up, cold", f"{cold.cpu:.2f}", f"{cold.wall:.1f}", "25 wall")
    show("up, warm", f"{warm.cpu:.2f}", f"{warm.wall:.1f}", "15 wall")
    try:
        measure_turns(shell, config)
    finally:
        run(shell, "down")


def measure_turns(shell: Terminal, config: Path) -> None:
    """Have a tiny challenger approved, then print what two turns without work take."""
    turn = shell.start("turn", config)
    assert terminal.QUESTION in terminal.said_until_asked(turn)
    shell.answer("approve", small_workload.WORKLOAD, "--as", "ann").check_returncode()
    assert turn.wait() == 0
    first = _stages(shell)
    idle = median(lambda: run(shell, "turn", str(config)))
    show("idle turn", f"{idle.cpu:.2f}", f"{idle.wall:.1f}", "20 wall")
    last = _stages(shell)
    sys.stdout.write("\nseconds by stage, of a turn with work and of one without\n")
    for name, seconds in first.items():
        sys.stdout.write(f"  {name:<12} {seconds:>8.1f} {last[name]:>8.1f}\n")
    sys.stdout.write(f"  {'outside them':<12} {'':>8} {idle.wall - sum(last.values()):>8.1f}\n")


def _stages(shell: Terminal) -> dict[str, float]:
    """Read the seconds of each stage of the newest turn."""
    turns = (shell.settings.turns / small_workload.WORKLOAD).glob("*/manifest.json")
    body = json.loads(max(turns, key=lambda path: path.stat().st_mtime).read_text())
    return {stage["name"]: stage["seconds"] or 0.0 for stage in body["stages"]}


def show(*cells: str) -> None:
    """Print a line of the table at once."""
    sys.stdout.write(SHOWN.format(*cells) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Measure the commands, then, unless only some were asked for, ``up`` and turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--place", type=Path, default=Path(tempfile.gettempdir()) / "used-home")
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--interactions", type=int, default=100_000)
    parser.add_argument("--only", default="", help="commands, or `stack`, with commas")
    options = parser.parse_args()
    only = set(filter(None, options.only.split(",")))
    size = Size(options.turns, options.interactions)
    if only != {"stack"}:
        measure_commands(options.place, size, only)
    if not only or "stack" in only:
        with tempfile.TemporaryDirectory() as scratch:
            measure_stack(Path(scratch))


if __name__ == "__main__":
    main()
