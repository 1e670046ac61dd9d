"""What ``flywheel up`` costs, and the stack at rest; ``python -m tests.benchmarks.stack_at_rest``.

It brings a new home up, with a gateway that serves no base, then down and up again, and lets it
settle. Then it prints the CPU seconds of each service, with those of its children and flow runs
(maintenance every quarter of an hour, the monitor every hour), for ten minutes.
"""

import argparse
import socket
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

from flows.settings import HOST, SERVE_PORT
from flows.stack.processes import read_state
from tests.benchmarks.commands import Cost, run
from tests.support import terminal
from tests.support.terminal import Terminal

SETTLING = 60.0  # seconds: Prefect schedules runs, workers give up what their start took
TEN_MINUTES = 600.0
SHOWN = "{:<12} {:>9} {:>9}"


def measured_up(shell: Terminal) -> Cost:
    """Return what ``up`` took, with what the services computed until all of them were ready."""
    cost = run(shell, "up")
    return Cost(cost.cpu + sum(service_seconds(shell).values()), cost.wall)


def service_seconds(shell: Terminal) -> dict[str, float]:
    """Return the CPU seconds of each service so far, with children that have ended."""
    state = read_state(shell.settings)
    assert state is not None
    assert state.phase == "up"
    seconds = {
        service.name: tree_seconds(psutil.Process(service.process.pid))
        for service in state.services
        if service.process is not None
    }
    # The supervisor has reaped the program that deploys, and no service yet.
    supervisor = psutil.Process(state.supervisor.pid).cpu_times()
    return {"supervisor": sum(supervisor[:4]), **seconds}


def tree_seconds(process: psutil.Process) -> float:
    """Return the CPU seconds of a process and all below it, the living and the reaped."""
    seconds = 0.0
    for member in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            seconds += sum(member.cpu_times()[:4])
    return seconds


def measure_rest(shell: Terminal, minutes: float) -> None:
    """Print the CPU seconds of each service in ten minutes."""
    before, began = service_seconds(shell), time.monotonic()
    time.sleep(minutes * 60)
    after, factor = service_seconds(shell), TEN_MINUTES / (time.monotonic() - began)
    taken = {name: (after[name] - before[name]) * factor for name in after}
    show("service", "CPU s", "% of core")
    for name, seconds in {**taken, "in all": sum(taken.values())}.items():
        show(name, f"{seconds:.2f}", f"{seconds / TEN_MINUTES:.2%}")


def show(*cells: str) -> None:
    """Print a line of a table at once."""
    sys.stdout.write(SHOWN.format(*cells) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Measure one home."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="at rest; 0 measures `up` alone")
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory() as scratch, socket.socket() as free:
        shell = terminal.in_home(Path(scratch) / "home")
        free.bind((HOST, 0))
        shell.env[SERVE_PORT] = str(free.getsockname()[1])
        free.close()
        show("", "CPU s", "wall s")
        try:
            cold = measured_up(shell)
            show("up, cold", f"{cold.cpu:.1f}", f"{cold.wall:.1f}")
            run(shell, "down")
            warm = measured_up(shell)
            show("up, warm", f"{warm.cpu:.1f}", f"{warm.wall:.1f}")
            if minutes:
                time.sleep(SETTLING)
                measure_rest(shell, minutes)
        finally:
            run(shell, "down")


if __name__ == "__main__":
    main()
