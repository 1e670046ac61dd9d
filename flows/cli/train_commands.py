"""`flywheel train` and `evaluate`: one training, its plan, and scores on the validation side."""

import os
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows import settings
from flows.cli.console import exit_on

if TYPE_CHECKING:
    from components.schema import Progress
    from components.scorecard import Scorecard
    from flows.workload_file import Workload


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
    with _exit_on_training_errors():
        workload, found = _read_and_find(config, snapshot)
        console.print(f"snapshot  {found}", markup=False, soft_wrap=True)
        if plan:
            _plan_only(workload, found, calibrate)
        else:
            _train_now(config, workload, found)


def _plan_only(workload: "Workload", snapshot: Path, seconds: float) -> None:
    from flows.cli import training_plan
    from flows.cli.progress import progress_text

    with console.status("planning") as spinner:

        def show(progress: "Progress") -> None:
            spinner.update(
                f"{progress_text(progress)}, {progress.done} of {progress.total} {progress.unit}"
            )

        made = training_plan.make_plan(workload, snapshot, show)
        timed = training_plan.calibrate_plan(workload, snapshot, made, seconds, show)
    training_plan.print_plan(made, timed, workload.worker, console)


def _train_now(config: Path, workload: "Workload", snapshot: Path) -> None:
    # Prefect's lines would run through the bars; its UI has them, too. It reads this when imported.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "WARNING")
    from components.store import manifest
    from flows import evaluate
    from flows import train as training

    adapter = training.adapter_folder(workload, snapshot)
    if manifest.is_finished(adapter):
        console.print(f"adapter   {adapter} (done before)", markup=False, soft_wrap=True)
        return
    _require_stack()
    if problem := evaluate.unmeasured_abstention(workload, snapshot):
        console.print(f"no guard  {problem}", markup=False, soft_wrap=True)
    with _training_screen(training.training_job_folder(adapter), adapter.name):
        training.train(str(config.resolve()), str(snapshot))
    console.print(f"adapter   {adapter}", markup=False, soft_wrap=True)


def _require_stack() -> None:
    """Refuse to begin without Prefect and MLflow.

    Raises:
        LookupError: They are not up.
    """
    from flows.cli.stack_commands import is_up

    home = settings.load()
    if not is_up(home):
        raise LookupError(
            f"training notes its metrics in MLflow, and the stack of {home.home} is down; "
            f"{home.remedy}, and `flywheel train FILE --plan` needs none"
        )


@contextmanager
def _training_screen(job: Path, adapter: str) -> Generator[None]:
    """Draw how far a training is, as a turn does, from what its job writes."""
    from flows.cli.progress import ProgressScreen
    from flows.stages import Stage

    stage, ended, started = Stage("train", job=str(job)), Event(), time.monotonic()

    def draw() -> None:
        while not ended.wait(DRAW_SECONDS):
            screen.show([stage])

    with ProgressScreen(console) as screen:
        drawing = Thread(target=draw)
        drawing.start()
        try:
            yield
        finally:
            ended.set()
            drawing.join()
        passed = round(time.monotonic() - started, 1)
        screen.show([replace(stage, seconds=passed, said=f"adapter {adapter}")])


def _read_and_find(config: Path, named: str | None) -> "tuple[Workload, Path]":
    """Read the workload, and find the snapshot to train on.

    Raises:
        ConfigError: The file can't be used.
        LookupError: There is no such snapshot, or none yet.
    """
    from flows import snapshots
    from flows import workload_file as configs

    workload = configs.read_workload(config)
    if named is None:
        return workload, snapshots.newest_snapshot(settings.load().snapshots, workload.workload)
    return workload, snapshots.find_snapshot(settings.load().snapshots, named)


@contextmanager
def _exit_on_training_errors() -> Generator[None]:
    from flows.jobs.runner import JobError
    from flows.workload_file import WorkloadError

    with exit_on(WorkloadError, LookupError), exit_on(JobError, code=1):
        yield


class CountedLookError(ValueError):
    """A look at the holdout that nothing would record."""


@app.command()
def evaluate(
    config: Annotated[Path, typer.Argument(help="The YAML file that describes the workload.")],
    side: Annotated[
        Literal["validation", "holdout"],
        typer.Option(help="Only `validation`: the holdout is measured by a turn, which counts it."),
    ] = "validation",
    adapter: Annotated[
        list[Path] | None,
        typer.Option(help="An adapter's folder; may be named several times. Else the newest."),
    ] = None,
    snapshot: Annotated[
        str | None,
        typer.Option(help="A snapshot's folder, or the beginning of its key; else the newest."),
    ] = None,
) -> None:
    """Score the base and adapters on the validation side; no stack need be up.

    The side is asked and scored as the holdout is: the same prompts, engine and metrics. Nothing of
    it is trained on, no gate reads its scores, and looking at it costs nothing, so recipes are
    chosen here. Guard tasks are not asked: they are tests, too.

    `flywheel evaluate support.yaml` scores the newest adapter; `--adapter A --adapter B` several.
    What was measured before is read, not measured again.
    """
    with _exit_on_evaluation_errors():
        if side == "holdout":
            raise CountedLookError(
                "evaluating on the holdout: each look at it spends some of the gate's alpha and "
                "is recorded, and this command has no gate; `flywheel turn FILE` measures the "
                "holdout and records the look, `--side validation` measures the side to tune on"
            )
        _score_models(config, snapshot, adapter or [])


MOST_COLUMNS = 500


def _score_models(config: Path, snapshot: str | None, adapters: list[Path]) -> None:
    from flows import snapshots, validation
    from flows import workload_file as configs
    from flows.cli.progress import progress_text

    workload, home = configs.read_workload(config), settings.load()
    root = home.snapshots
    found = snapshots.find_snapshot(root, snapshot) if snapshot else None
    found = found or snapshots.newest_snapshot(root, workload.workload)
    newest = None if adapters else validation.newest_adapter(home, workload.workload)
    given = [one.resolve() for one in adapters] or ([newest] if newest else [])
    console.print(f"snapshot  {found}", markup=False, soft_wrap=True)
    for one in given:
        console.print(f"adapter   {one}", markup=False, soft_wrap=True)
    with console.status("measuring") as spinner:

        def show(progress: "Progress") -> None:
            spinner.update(
                f"{progress_text(progress)}, {progress.done} of {progress.total} {progress.unit}"
            )

        cards = validation.score_on_validation(home, workload, found, given, show)
    _show_scores(cards)


def _show_scores(cards: "Mapping[str, Scorecard]") -> None:
    """Print a row a metric, with each model's score and its 95 % interval."""
    base = next(iter(cards.values()))
    clusters = len({one.cluster_id for one in base.samples})
    console.print(
        f"validation side: {len(base.samples)} requests in {clusters} clusters; scores with their "
        "95 % intervals, each request taken for independent"
    )
    for line in base.window.sentences if base.window else []:
        console.print(line)
    table = Table(box=None, pad_edge=False)
    table.add_column("metric")
    for column in ("n", "clusters", *cards):
        table.add_column(escape(column), justify="right", no_wrap=True)
    for metric, score in base.scores.items():
        size = str(score.n), str(score.clusters or "")
        table.add_row(metric, *size, *(_score_text(one, metric) for one in cards.values()))
    # Printed whole where the terminal is narrower: a figure cut short would be another figure.
    Console(highlight=False, width=MOST_COLUMNS).print(table)


def _score_text(card: "Scorecard", metric: str) -> str:
    from components.gate.report.words import as_share
    from components.gate.share_interval import share_interval

    ends = share_interval(card, metric)
    between = f" ({as_share(ends[0])} to {as_share(ends[1])})" if ends else ""
    return as_share(card.scores[metric].value) + between


@contextmanager
def _exit_on_evaluation_errors() -> Generator[None]:
    from components.chat.chat_templates import TemplateChangedError
    from components.evaluate.engines.adapter_checks import AdapterNotAppliedError
    from flows.jobs.runner import JobError
    from flows.validation import LearnedError, NoRowsError
    from flows.workload_file import WorkloadError

    refused = (WorkloadError, LookupError, OSError, LearnedError, NoRowsError, CountedLookError)
    changed = (AdapterNotAppliedError, TemplateChangedError)
    with exit_on(*refused, *changed), exit_on(JobError, code=1):
        yield
