"""``flywheel train``: one training now, or the plan of it."""

import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from flows import settings
from flows.explaining import explained

if TYPE_CHECKING:
    from components.schema import Progress
    from flows.workload import Workload

app = typer.Typer(add_completion=False, no_args_is_help=True)
console = Console(highlight=False)

DRAW_SECONDS = 0.5


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="The YAML file that describes the workload.")],
    snapshot: Annotated[
        str | None,
        typer.Option(help="A snapshot's folder, or the beginning of its key; else the newest."),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say what it would take; nothing is kept.")
    ] = False,
    calibrate: Annotated[
        float,
        typer.Option(min=0, help="Seconds that `--plan` trains for, to tell the time; 0: not."),
    ] = 20.0,
) -> None:
    """Train the workload's adapter on a snapshot now, without a turn around it.

    The stack must be up (`flywheel up`): metrics go to MLflow. A training that was interrupted goes
    on from its last checkpoint, and one that is finished is not done again.

    With `--plan` nothing need be up: it prints the parameters that are trained, the memory by part,
    the steps, the tokens, the time and what it costs, whether it fits, and the largest batch that
    does.
    """
    with _explained():
        workload, found = _read(config, snapshot)
        console.print(f"snapshot  {found}", markup=False, soft_wrap=True)
        if plan:
            _plan(workload, found, calibrate)
        else:
            _train(config, workload, found)


def _plan(workload: "Workload", snapshot: Path, seconds: float) -> None:
    from flows import plan_page, planning
    from flows.screen import figures

    with console.status("planning") as spinner:

        def show(said: "Progress") -> None:
            spinner.update(f"{figures(said)}, {said.done} of {said.total} {said.unit}")

        made = planning.make(workload, snapshot, show)
        timed = planning.calibrate(workload, snapshot, made, seconds, show)
    plan_page.show(made, timed, workload.worker, console)


def _train(config: Path, workload: "Workload", snapshot: Path) -> None:
    # Prefect's lines would run through the bars; its UI has them, too. It reads this when imported.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "WARNING")
    from components import manifest
    from flows import evaluate
    from flows import train as training

    adapter = training.folder(workload, snapshot)
    if manifest.is_finished(adapter):
        console.print(f"adapter   {adapter} (done before)", markup=False, soft_wrap=True)
        return
    _require_stack()
    if problem := evaluate.unmeasured_abstention(workload, snapshot):
        console.print(f"no guard  {problem}", markup=False, soft_wrap=True)
    with _shown(training.job_folder(adapter), adapter.name):
        training.train(str(config.resolve()), str(snapshot))
    console.print(f"adapter   {adapter}", markup=False, soft_wrap=True)


def _require_stack() -> None:
    """Refuse to begin without Prefect and MLflow.

    Raises:
        LookupError: They are not up.
    """
    from flows.cli_stack import is_up

    home = settings.load()
    if not is_up(home):
        raise LookupError(
            f"training notes its metrics in MLflow, and the stack of {home.home} is down; "
            f"{home.remedy}, and `flywheel train FILE --plan` needs none"
        )


@contextmanager
def _shown(job: Path, adapter: str) -> Generator[None]:
    """Draw how far a training is, as a turn does, from what its job writes."""
    from flows.screen import Screen
    from flows.stages import Stage

    stage, ended, started = Stage("train", job=str(job)), Event(), time.monotonic()

    def draw() -> None:
        while not ended.wait(DRAW_SECONDS):
            screen.show([stage])

    with Screen(console) as screen:
        drawing = Thread(target=draw)
        drawing.start()
        try:
            yield
        finally:
            ended.set()
            drawing.join()
        passed = round(time.monotonic() - started, 1)
        screen.show([replace(stage, seconds=passed, said=f"adapter {adapter}")])


def _read(config: Path, named: str | None) -> "tuple[Workload, Path]":
    """Read the workload, and find the snapshot to train on.

    Raises:
        ConfigError: The file can't be used.
        LookupError: There is no such snapshot, or none yet.
    """
    from flows import config as configs
    from flows import snapshots

    workload = configs.read(config)
    if named is None:
        return workload, snapshots.newest(settings.load().snapshots, workload.workload)
    return workload, snapshots.named(settings.load().snapshots, named)


@contextmanager
def _explained() -> Generator[None]:
    from flows.config import ConfigError
    from flows.jobs import JobError

    with explained(ConfigError, LookupError), explained(JobError, code=1):
        yield
