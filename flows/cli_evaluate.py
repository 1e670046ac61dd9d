"""``flywheel evaluate``: what models score on the side that recipes are chosen on."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows import settings
from flows.explaining import explained

if TYPE_CHECKING:
    from components.schema import Progress
    from components.scorecard import Scorecard

app = typer.Typer(add_completion=False, no_args_is_help=True)
console = Console(highlight=False)


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
    with _explained():
        if side == "holdout":
            raise CountedLookError(
                "evaluating on the holdout: each look at it spends some of the gate's alpha and "
                "is recorded, and this command has no gate; `flywheel turn FILE` measures the "
                "holdout and records the look, `--side validation` measures the side to tune on"
            )
        _evaluate(config, snapshot, adapter or [])


MOST_COLUMNS = 500


def _evaluate(config: Path, snapshot: str | None, adapters: list[Path]) -> None:
    from flows import config as configs
    from flows import snapshots, validation
    from flows.screen import figures

    workload, home = configs.read(config), settings.load()
    root = home.snapshots
    found = snapshots.named(root, snapshot) if snapshot else None
    found = found or snapshots.newest(root, workload.workload)
    newest = None if adapters else validation.newest_adapter(home, workload.workload)
    given = [one.resolve() for one in adapters] or ([newest] if newest else [])
    console.print(f"snapshot  {found}", markup=False, soft_wrap=True)
    for one in given:
        console.print(f"adapter   {one}", markup=False, soft_wrap=True)
    with console.status("measuring") as spinner:

        def show(said: "Progress") -> None:
            spinner.update(f"{figures(said)}, {said.done} of {said.total} {said.unit}")

        cards = validation.measure(home, workload, found, given, show)
    _show(cards)


def _show(cards: "Mapping[str, Scorecard]") -> None:
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
        table.add_row(metric, *size, *(_score(one, metric) for one in cards.values()))
    # Printed whole where the terminal is narrower: a figure cut short would be another figure.
    Console(highlight=False, width=MOST_COLUMNS).print(table)


def _score(card: "Scorecard", metric: str) -> str:
    from components.gate.report.numbers import share
    from components.gate.shares import share_interval

    ends = share_interval(card, metric)
    between = f" ({share(ends[0])} to {share(ends[1])})" if ends else ""
    return share(card.scores[metric].value) + between


@contextmanager
def _explained() -> Generator[None]:
    from components.evaluate.applied import NotAppliedError
    from components.rendering import TemplateChangedError
    from flows.config import ConfigError
    from flows.jobs import JobError
    from flows.validation import LearnedError, NoRowsError

    refused = (ConfigError, LookupError, OSError, LearnedError, NoRowsError, CountedLookError)
    changed = (NotAppliedError, TemplateChangedError)
    with explained(*refused, *changed), explained(JobError, code=1):
        yield
