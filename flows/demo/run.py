"""The demo: fetch a model and traffic, bring the stack up, run one turn, see the champion."""

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

from components import manifest
from components.decide.hearing import Answer
from flows import approvals, cli_stack, report
from flows.demo import fetch, traffic
from flows.demo.traffic import WORKLOAD
from flows.settings import Settings
from flows.stack import control

SEED = 0
APPROVER = "demo"


def demo(settings: Settings, console: Console) -> None:
    """Run one turn on the demo's workload; every step finds what an earlier run finished."""
    console.print(f"flywheel demo, in {settings.home}")
    config = prepare(settings, console)
    with stack(settings, console):
        report.follow_turn(config, WORKLOAD, console, decide=None if is_watched() else approve)


def prepare(settings: Settings, console: Console) -> Path:
    """Fetch the base, write the logs and the workload file; give the file's path."""
    with console.status("fetching the model and the traffic"):
        fetched = fetch.fetch(cache(), console.print)
    folder = settings.workloads / WORKLOAD
    if not (folder / "logs").exists():
        traffic.write(fetched.traffic, folder, SEED)
    config = settings.workloads / f"{WORKLOAD}.yaml"
    manifest.write_atomically(config, description(fetched.base))
    return config


def description(base: Path) -> str:
    """Write what the demo's workload file says, for a base that lies in this folder."""
    text = (Path(__file__).parent / "workload.yaml").read_text()
    return Template(text).substitute(base=base)


def cache() -> Path:
    """Give the folder of downloads, which outlives the home: ``$XDG_CACHE_HOME/lora-flywheel``."""
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "lora-flywheel"


def is_watched() -> bool:
    """Tell whether a person can be asked: both ends of the terminal are one."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def approve(promotion: UUID) -> None:
    """Approve as the demo itself, since nobody is there; the decision's comment says so."""
    comment = "approved by the demo itself: it ran without a terminal, so nobody could be asked"
    approvals.answer(promotion, approvals.gate_key(1), Answer("approve", APPROVER, comment))


@contextmanager
def stack(settings: Settings, console: Console) -> Generator[None]:
    """Bring the stack up; take it down again unless a person stays to look at it.

    A stack that was up before is left as it was. SIGTERM ends the demo like Ctrl-C.
    """
    was_up = control.status(settings).phase == "up"
    signal.signal(signal.SIGTERM, _interrupt)
    with console.status("starting the stack") as spinner:
        control.up(settings, spinner.update)
    console.print(f"Prefect {settings.prefect_url}   MLflow {settings.mlflow_url}")
    console.print(f"{cli_stack.how_to_log_in(report.command())}\n")
    is_done = False
    try:
        yield
        is_done = True
    finally:
        pages = (
            f"{settings.prefect_url} (Prefect) and {settings.mlflow_url} (MLflow). "
            f"{cli_stack.how_to_log_in(report.command())}"
        )
        if is_done and is_watched() and not was_up:
            console.print(
                f"\nThe stack stays up for you to look at: {pages}; "
                f"{report.command()} down stops it."
            )
        elif not was_up:
            console.print("stopping the stack")
            control.down(settings)
            if is_done:
                console.print(f"{report.command()} up starts it again: {pages}")


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
