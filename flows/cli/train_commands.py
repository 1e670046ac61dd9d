"""`flywheel train` and `evaluate`: one training, its plan, and scores on the validation side."""

import os
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows import settings
from flows.cli.console import console, exit_on, fail, new_table, print_line, print_whole
from flows.cli.parameters import ConfigFile

if TYPE_CHECKING:
    from components.schema import Progress
    from components.scorecard import Scorecard
    from flows.workload_file import Workload

app = typer.Typer(add_completion=False, no_args_is_help=True)

DRAW_SECONDS = 0.5

SnapshotOption = Annotated[
    str | None,
    typer.Option(
        "--snapshot", help="A snapshot's folder, or the beginning of its key; else the newest."
    ),
]


@app.command()
@exit_on(LookupError)
def train(
    config: ConfigFile,
    snapshot: SnapshotOption = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only show what it would take; nothing is stored.")
    ] = False,
    calibrate: Annotated[
        float,
        typer.Option(
            min=0, help="Seconds that `--plan` trains for, to estimate the time; 0 skips that."
        ),
    ] = 20.0,
) -> None:
    """Train the workload's adapter on a snapshot now, without a turn around it.

    The stack must be up (`flywheel up`): metrics go to MLflow. An interrupted training resumes from
    its last checkpoint, and a finished one is not repeated.

    With `--plan` no stack is needed: it prints the parameters that are trained, the memory by part,
    the steps, the tokens, the time and what it costs, whether it fits, and the largest batch that
    does.
    """
    from flows import workload_file

    workload = workload_file.read_workload(config)
    folder = _find_snapshot(workload, snapshot)
    if plan:
        _plan_only(workload, folder, calibrate)
    else:
        _train_now(workload, folder)


def _find_snapshot(workload: "Workload", key: str | None) -> Path:
    from components.dataset import freeze_snapshot

    root = settings.load().snapshots
    folder = (
        freeze_snapshot.find_snapshot(root, key)
        if key
        else freeze_snapshot.newest_snapshot(root, workload.workload)
    )
    print_line(f"snapshot  {folder}")
    return folder


@contextmanager
def _progress_status(title: str) -> "Generator[Callable[[Progress], None]]":
    """Show a spinner; the function that it yields shows a job's progress beside it."""
    from flows.cli.progress import count_text

    with console.status(title) as spinner:
        yield lambda progress: spinner.update(count_text(progress))


def _plan_only(workload: "Workload", snapshot: Path, seconds: float) -> None:
    from flows.cli import training_plan

    with _progress_status("planning") as show:
        plan = training_plan.make_plan(workload, snapshot, show)
        calibration = training_plan.calibrate_plan(workload, snapshot, plan, seconds, show)
    training_plan.print_plan(plan, calibration, workload.worker)


def _train_now(workload: "Workload", snapshot: Path) -> None:
    # Prefect's lines would run through the bars; its UI has them, too. It reads this when imported.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "WARNING")
    from components.store import output_folders
    from flows import evaluate
    from flows import train as training
    from flows.stack import control

    adapter = training.adapter_folder(workload, snapshot)
    if output_folders.fetch(adapter):
        print_line(f"adapter   {adapter} (done before)")
        return
    home = settings.load()
    if not control.stack_status(home).is_up:
        raise LookupError(
            f"training notes its metrics in MLflow, and the stack of {home.home} is down; "
            f"{home.remedy}, and `flywheel train FILE --plan` needs none"
        )
    if problem := evaluate.unmeasured_abstention(workload, snapshot):
        print_line(f"no guard  {problem}")
    with _training_screen(training.training_job_folder(adapter), adapter.name):
        training.train_file(workload, snapshot)
    print_line(f"adapter   {adapter}")


@contextmanager
def _training_screen(job: Path, adapter: str) -> Generator[None]:
    from flows.cli.progress import ProgressScreen
    from flows.turn_progress import Stage

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


@app.command()
@exit_on(LookupError, OSError)
def evaluate(
    config: ConfigFile,
    side: Annotated[
        Literal["validation", "holdout"],
        typer.Option(help="Only `validation`: a turn measures the holdout and counts the look."),
    ] = "validation",
    adapter: Annotated[
        list[Path] | None,
        typer.Option(help="An adapter's folder; may be repeated. Else the newest."),
    ] = None,
    snapshot: SnapshotOption = None,
) -> None:
    """Score the base and adapters on the validation side; no stack is needed.

    The side is measured as the holdout is: the same prompts, engine and metrics. Nothing of it is
    trained on, no gate reads its scores, and looking at it costs nothing, so choose recipes here.
    Guard tasks are not measured: they are tests, too.

    `flywheel evaluate support.yaml` scores the newest adapter; `--adapter A --adapter B` several.
    What was measured before is read, not measured again.
    """
    from flows import validation, workload_file

    if side == "holdout":
        fail(
            "evaluating on the holdout: each look at it spends some of the gate's alpha and "
            "is recorded, and this command has no gate; `flywheel turn FILE` measures the "
            "holdout and records the look, `--side validation` measures the side to tune on"
        )
    workload, home = workload_file.read_workload(config), settings.load()
    folder = _find_snapshot(workload, snapshot)
    newest = None if adapter else validation.newest_adapter(home, workload.workload)
    adapters = [path.resolve() for path in adapter or ()] or ([newest] if newest else [])
    for path in adapters:
        print_line(f"adapter   {path}")
    with _progress_status("measuring") as show:
        cards = validation.score_on_validation(home, workload, folder, adapters, show)
    _show_scores(cards)


def _show_scores(cards: "Mapping[str, Scorecard]") -> None:
    base = next(iter(cards.values()))
    clusters = len({sample.cluster_id for sample in base.samples})
    console.print(
        f"validation side: {len(base.samples)} requests in {clusters} clusters; scores with their "
        "95 % intervals"
    )
    notes = [*(base.window.sentences if base.window else [])]
    for line in [*notes, *(base.constrained.sentences if base.constrained else [])]:
        console.print(line)
    table = new_table("metric")
    for column in ("n", "clusters", *cards):
        table.add_column(column, justify="right", no_wrap=True)
    for metric, score in base.scores.items():
        size = str(score.n), str(score.clusters or "")
        table.add_row(metric, *size, *(_score_text(card, metric) for card in cards.values()))
    print_whole(table)


def _score_text(card: "Scorecard", metric: str) -> str:
    from components.gate.report.words import as_share
    from components.scorecard import share_interval

    ends = share_interval(card, metric)
    between = f" ({as_share(ends[0])} to {as_share(ends[1])})" if ends else ""
    return as_share(card.scores[metric].value) + between
