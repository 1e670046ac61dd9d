"""`flywheel serve canary start`, `stop` and `show`: a share of the traffic for a new version."""

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from flows import settings
from flows.cli.console import console, exit_on, print_line, print_sentence
from flows.cli.parameters import CodeOption, KeyOption, PersonOption, WorkloadArgument

if TYPE_CHECKING:
    from components.monitor.canary_status import CanaryStatus

canary_app = typer.Typer(
    help="Let an approved version answer a share of the traffic before it answers all of it.",
    no_args_is_help=True,
)


@canary_app.command()
@exit_on(LookupError)
def start(
    workload: WorkloadArgument,
    version: Annotated[
        str | None,
        typer.Option(help="An approved version's number; the newest if left out."),
    ] = None,
) -> None:
    """Start a canary of a version that people approved and that is not champion.

    An approval starts one by itself where the workload's file says `serve: {rollout: {canary:
    {}}}`; this is for a version whose canary was stopped. The gateway must run.
    """
    from flows import home_workloads, lookup, workload_file
    from flows.canary import settle_rollouts

    home = settings.load()
    lookup.require_mlflow(home, f"starting a canary of {workload}")
    described = workload_file.read_workload(home_workloads.require(home, workload))
    begun = settle_rollouts.start_by_order(home, described, version, print_line)
    print_line(
        f"{workload}: version {begun.intention.version} answers a share beside version "
        f"{begun.intention.champion} (canary {begun.id}); `flywheel serve canary show {workload}`"
    )


@canary_app.command()
@exit_on(LookupError, code=1)
def stop(
    workload: WorkloadArgument,
    by: PersonOption,
    reason: Annotated[str, typer.Option(help="Why; stored with the decision.")],
    to: Annotated[
        Literal["champion", "canary"],
        typer.Option(help="Who answers everybody from now on."),
    ] = "champion",
    code: CodeOption = "",
    key: KeyOption = None,
) -> None:
    """End a canary by a person's order: back to the champion, or on to everybody.

    `--to champion` counts as a rollback: no turn asks about the version again. `--to canary` makes
    it champion though its evidence is undecided; its approval must still hold. You prove your name
    as for a rollback, and the order is a decision of the chain.
    """
    from components.release import rollback_rules
    from flows import approver_keys, lookup, release_home
    from flows.canary import settle_rollouts

    home = settings.load()
    lookup.require_mlflow(home, f"stopping the canary of {workload}")
    order = rollback_rules.Order(workload, None, by, reason, code)
    if rollback_rules.is_signed(release_home.of(home), workload):
        form, rules = settle_rollouts.stop_form(home, order, to)
        if rules.proof == "signature":
            order = replace(order, signature=approver_keys.sign_statement(form, rules, key))
    print_line(settle_rollouts.stop_by_order(home, order, to).sentence)


@canary_app.command()
@exit_on()
def show(
    workload: Annotated[
        str | None, typer.Argument(help="The workload's name; all that had one if left out.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show how canaries stand or ended, and the evidence for it."""
    from flows.canary import canary_rollouts

    home = settings.load()
    begun = canary_rollouts.rollouts_of(home, workload)
    names = sorted({rollout.intention.workload_id for rollout in begun})
    canaries = {name: canary_rollouts.read_canaries(home, name) for name in names}
    if as_json:
        listed = {name: [asdict(each) for each in known] for name, known in canaries.items()}
        typer.echo(json.dumps(listed, indent=2))
    elif not canaries:
        print_line("no canary was ever started here")
    for name, known in () if as_json else canaries.items():
        _show(name, known[0])
        for older in known[1:]:
            print_line(f"  before: {older.sentence}")


def _show(workload: str, canary: "CanaryStatus") -> None:
    from components.monitor import canary_status

    print_line(f"{workload}: {canary.sentence}")
    rows = canary_status.evidence_rows(canary)
    if rows:
        table = Table(*canary_status.EVIDENCE_HEAD, box=None)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    else:
        print_sentence(canary.requirement)
