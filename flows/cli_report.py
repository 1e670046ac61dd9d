"""``flywheel report`` and ``flywheel compare``: what was measured, to read and to hold together."""

import webbrowser
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows import settings
from flows.explaining import explained

if TYPE_CHECKING:
    from components.scorecard import Difference
    from flows.comparing import Two

app = typer.Typer(add_completion=False, no_args_is_help=True)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

Workload = Annotated[str, typer.Argument(help="The workload's name, as in its file.")]
Model = Annotated[
    str,
    typer.Argument(
        help="`base`, `champion`, `previous`, a version's number, or the beginning of an "
        "adapter's or a scorecard's key."
    ),
]

SHOWN_CHARACTERS = 300


@app.command()
def report(
    workload: Workload,
    evidence: Annotated[
        str | None, typer.Option(help="Another evidence: the beginning of its digest.")
    ] = None,
    no_open: Annotated[
        bool, typer.Option("--no-open", help="Print where the report lies, and open nothing.")
    ] = False,
) -> None:
    """Open the newest report of a workload in a browser: one HTML file that needs nothing else.

    It says what the gate found and why, what would change and for whom, what it costs, and shows
    the requests on which the two models differ. Every turn writes one, also where the gate says no.

    `flywheel report support-routing` opens the newest; `--evidence 3f2a` that of an older turn;
    `--no-open` prints the path, to copy the file or send it to somebody.
    """
    from components import manifest
    from components.gate.report.write import REPORT
    from flows import exhibits

    with explained(LookupError):
        folder = exhibits.folder(settings.load(), workload, evidence)
    with explained(ValueError, code=1):
        manifest.read_untouched(folder)
    path = folder / REPORT
    console.print(str(path), markup=False, soft_wrap=True)
    if not no_open and not webbrowser.open(path.as_uri()):
        errors.print("no browser could be opened; open the file above in one")


@app.command()
def compare(
    workload: Workload,
    first: Model,
    second: Model,
    metric: Annotated[
        str | None,
        typer.Option(help="Whose requests to show; the target of the newest turn if left out."),
    ] = None,
    show: Annotated[
        int, typer.Option(min=0, help="How many of the requests on which they differ to show.")
    ] = 5,
) -> None:
    """Compare two models that were measured on the same requests: scores, intervals, tests.

    Differences are the first model less the second, in points, each with its 95 % interval and an
    exact two-sided test of its own; the gate of a turn corrects for several looks, this does not.
    Then come the requests that only one of the two got right. What was measured on another holdout,
    at another precision or with other prompts is refused, and the difference named.

    `flywheel compare support-routing champion 2` holds the champion against version 2;
    `flywheel compare support-routing 3f2a base --show 20` an adapter against its base.
    """
    from flows import comparing, exhibits

    home = settings.load()
    with explained(LookupError, ValueError):
        two = comparing.find(home, workload, first, second)
        _say(two, first, second)
        _say_differing(two, first, second, metric or exhibits.target(home, workload), show)


def _say(two: "Two", first: str, second: str) -> None:
    from components.gate.report import figures
    from components.gate.report.numbers import between, points, share

    table = Table(box=None, pad_edge=False)
    table.add_column("score")
    for column in (first, second, "difference", "95 % interval", "n", "clusters", "p"):
        table.add_column(escape(column), justify="right", no_wrap=True)
    for one in figures.side_by_side(two.first, two.second):
        effect, tested = one.effect, ""
        if effect.difference is not None:
            card, other = two.first[one.task], two.second[one.task]
            tested = f"{figures.two_sided(card, other, one.metric)[1]:.3g}"
        table.add_row(
            escape(effect.name),
            share(one.challenger),
            share(one.opponent),
            points(effect.difference),
            between(effect.low, effect.high),
            str(effect.n),
            str(effect.clusters or ""),
            tested,
        )
    console.print(table)


def _say_differing(two: "Two", first: str, second: str, metric: str | None, show: int) -> None:
    from components.gate.report.apart import apart, by_turns
    from components.scorecard import HOLDOUT

    ours, theirs = two.first[HOLDOUT], two.second[HOLDOUT]
    wanted = metric or next(reversed(ours.metrics))
    if wanted not in ours.metrics:
        raise LookupError(f"there is no metric {wanted}; there are {', '.join(ours.metrics)}")
    lost, won = apart(ours, theirs, wanted)
    console.print(
        f"\n{wanted}: {first} is better on {len(won)} requests, {second} on {len(lost)}",
        markup=False,
    )
    for one in by_turns(lost, won, show):
        _say_one(one, first, second)


def _say_one(one: "Difference", first: str, second: str) -> None:
    from components.pages.markdown import visible

    console.print()
    for label, text in (
        ("asked", one.challenger.request),
        ("right", one.challenger.reference),
        (first, one.challenger.output),
        (second, one.opponent.output),
    ):
        line = visible(" ".join(text.split()))
        cut = line if len(line) <= SHOWN_CHARACTERS else f"{line[:SHOWN_CHARACTERS]} ..."
        console.print(f"  {label:<9} {cut}", markup=False, soft_wrap=True)
