"""`flywheel demo`: fetch a model and traffic, bring up a stack, run a turn, see the champion."""

import os
import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from string import Template
from types import FrameType
from uuid import UUID

from rich.text import Text

from components.decide.record_answer import TypedAnswer
from components.store import manifest
from flows import approvals
from flows.cli import demo_answer, stack_commands, turn_watch
from flows.cli.console import console, has_person, print_line
from flows.demo import traffic, wheels
from flows.demo.traffic import WORKLOAD
from flows.settings import Settings
from flows.stack import control

SEED = 0
APPROVER = "demo"


def run_demo(settings: Settings) -> None:
    """Run one turn on the demo's workload; every step reuses what an earlier run finished."""
    settings = demo_answer.choose_port(settings)
    print_line(f"flywheel demo, in {settings.home}")
    config = prepare_home(settings)
    with running_stack(settings):
        turn_watch.follow_turn(config, WORKLOAD, None if has_person() else approve_promotion)
        demo_answer.show_answer(settings)


def prepare_home(settings: Settings) -> Path:
    """Fetch the base, write the logs and the workload file; return the file's path."""
    with console.status("fetching the model and the traffic"):
        inputs = wheels.fetch_inputs(download_folder(), print_line)
    folder = settings.workloads / WORKLOAD
    if not (folder / "logs").exists():
        traffic.write_traffic(inputs.traffic, folder, SEED)
    config = settings.workloads / f"{WORKLOAD}.yaml"
    manifest.write_atomically(config, workload_text(inputs.base))
    return config


def workload_text(base: Path) -> str:
    """Return the text of the demo's workload file with this base."""
    text = (Path(__file__).parents[1] / "demo" / "workload.yaml").read_text()
    return Template(text).substitute(base=base)


def download_folder() -> Path:
    """Return the folder of downloads, ``$XDG_CACHE_HOME/lora-flywheel``; it outlives the home."""
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "lora-flywheel"


def approve_promotion(promotion: UUID) -> None:
    """Approve as the demo itself, since nobody is there; the decision's comment says so."""
    comment = "approved by the demo itself: it ran without a terminal, so nobody could be asked"
    approvals.answer_approval(
        promotion, approvals.gate_key(1), TypedAnswer("approve", APPROVER, comment)
    )


@contextmanager
def running_stack(settings: Settings) -> Generator[None]:
    """Start the stack; stop it afterwards unless it was up before or a person may look at it.

    SIGTERM ends the demo like Ctrl-C.
    """
    was_up = control.stack_status(settings).phase == "up"
    signal.signal(signal.SIGTERM, _interrupt)
    command = turn_watch.shell_command()
    hint = stack_commands.LOGIN_HINT.format(command)
    with console.status("starting the stack") as spinner:
        control.up(settings, lambda line: spinner.update(Text(line)))
    print_line(f"Prefect {settings.prefect_url}   MLflow {settings.mlflow_url}")
    print_line(f"{hint}\n")
    is_done = False
    try:
        yield
        is_done = True
    finally:
        pages = f"{settings.prefect_url} (Prefect) and {settings.mlflow_url} (MLflow). {hint}"
        if is_done and has_person() and not was_up:
            print_line(
                f"\nThe stack stays up for you to look at: {pages}; {command} down stops it."
            )
        elif not was_up:
            print_line("stopping the stack")
            control.down(settings)
            if is_done:
                again = turn_watch.shell_command(starts=True)
                print_line(f"{again} up starts it again: {pages}")


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
