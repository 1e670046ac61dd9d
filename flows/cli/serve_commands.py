"""`flywheel serve`, `serve status`, `serve canary`: champions that answer applications."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Column, Table

from flows import settings
from flows.cli.console import (
    console,
    errors,
    exit_on,
    fail,
    print_error,
    print_line,
    print_sentence,
    print_whole,
)
from flows.cli.parameters import CodeOption, KeyOption, PersonOption, WorkloadArgument

if TYPE_CHECKING:
    from components.monitor.canary_status import CanaryStatus
    from components.serve.seen_gateways import SeenGateway
    from flows.gateway_status import Report


app = typer.Typer(add_completion=False)
serve_app = typer.Typer(invoke_without_command=True, rich_markup_mode="markdown")
app.add_typer(serve_app, name="serve")
canary_app = typer.Typer(
    help="Let an approved version answer a share of the traffic before it answers all of it.",
    no_args_is_help=True,
)
serve_app.add_typer(canary_app, name="canary")

AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


@serve_app.callback()
@exit_on()
def serve(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(help="The settings; the home's `serve.yaml`, or defaults, when left out."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="The interface to listen on; put TLS in front of any other.")
    ] = settings.HOST,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any free one.")] = 8000,
    receiver: Annotated[
        bool, typer.Option(help="Take interactions, feedback and OTLP of others here, too.")
    ] = True,
) -> None:
    """Answer OpenAI requests with each workload's champion, until Ctrl-C.

    `model` in a request names the workload. A champion that is approved, or rolled back to, takes
    over within seconds, without a restart and only after its behaviour was proved. Each answer is
    in the home's `spool/` before its last byte is sent; `flywheel collect` loads it.

    Applications need a token of `flywheel token add`:

    `curl URL/v1/chat/completions -H "Authorization: Bearer TOKEN" -H "Content-Type:
    application/json" -d '{"model": "WORKLOAD", "messages": [{"role": "user", "content": "Hi"}]}'`

    `/v1/feedback` takes `{"response_id": ..., "kind": "thumb", "value": "up"}` by the answer's id.
    `/docs` shows the paths, `/metrics` the figures, `/v1/routes` who serves what.
    """
    if context.invoked_subcommand is not None:
        return
    from components.receive import client_tokens
    from flows import gateway_status
    from flows.stack import gateway_service

    home = settings.load()
    options = gateway_status.read_serve_settings(home, config)
    if not client_tokens.read_tokens(home.tokens):
        errors.print("nobody may ask yet; `flywheel token add CLIENT` makes a token")

    file = config or home.serve_settings

    def say(url: str) -> None:
        settings_text = f"settings {file}" if file.exists() else f"defaults, as there is no {file}"
        print_line(f"serving on {url}   {settings_text}")

    gateway_service.run_gateway(
        home,
        options,
        host=host,
        port=port,
        receiver=receiver,
        ready=say,
    )


@serve_app.command()
@exit_on()
def status(as_json: AsJson = False) -> None:
    """Show who serves each workload, since when, and when its behaviour was last proved.

    With FLYWHEEL_STORE also at the other gateways that share it, as each wrote within 90 s by the
    store's clock.
    The exit code is 0 if every champion serves, and all gateways have the same one; 1 if one was
    refused or has no proved replica, if no gateway runs, or if the store can't be reached.
    """
    from flows import gateway_status
    from flows.gateway_status import NotServingError

    home = settings.load()
    gateways, away = _read_gateways(home)
    running = [gateway for gateway in gateways if gateway_status.is_running(gateway)]
    report: Report | None = None
    try:
        report = gateway_status.read_status(home)
    except NotServingError as error:
        if not running:
            fail(away or str(error), 1)
    if as_json:
        shown = dict(report or {"routes": {}, "refused": []})
        if home.store is not None:
            shown["gateways"] = [asdict(each) for each in gateways]
        typer.echo(json.dumps(shown, indent=2))
    else:
        if report is not None:
            _show(report)
        if home.store is not None:
            _show_gateways(home, gateways)
    problems = [*gateway_status.disagreements(running), *([away] if away else [])]
    for problem in [*problems, *gateway_status.wrong_clocks(running)]:
        print_error(problem)
    is_well = gateway_status.is_all_served(report, running)
    raise typer.Exit(0 if is_well and not problems else 1)


def _read_gateways(home: settings.Settings) -> "tuple[list[SeenGateway], str]":
    """Return what the gateways of the home's store wrote, and why that can't be read."""
    from components.store.shared_files import StoreError
    from flows import gateway_status

    try:
        return gateway_status.read_gateways(home), ""
    except StoreError as error:
        return [], str(error)


def _show_gateways(home: settings.Settings, gateways: "Sequence[SeenGateway]") -> None:
    from components.monitor import serving_status
    from components.serve import seen_gateways
    from flows import gateway_status

    own = seen_gateways.read_id(home.serve)
    table = _new_table("gateway", "workload")
    for gateway in filter(gateway_status.is_running, gateways):
        name = gateway_status.gateway_name(gateway) + (" (this)" if gateway.id == own else "")
        for workload, served in sorted(gateway.champions.items()) or [("none", None)]:
            if served is None:
                table.add_row(name, workload)
                continue
            proved = serving_status.minute(served.proved_at)
            table.add_row(
                name,
                workload,
                served.version,
                serving_status.minute(served.since),
                "without effect" if served.unproved else proved,
                " ".join(served.replicas) or "none",
            )
    print_whole(table)
    for gateway in gateways:
        name = gateway_status.gateway_name(gateway)
        if not gateway_status.is_running(gateway):
            print_line(_gone_text(gateway))
        elif gateway.id != own:
            for version, reason in sorted(gateway.refused.items()):
                print_error(f"refused at {name}: {version}: {reason}")


def _gone_text(gateway: "SeenGateway") -> str:
    from flows import gateway_status

    at = datetime.fromtimestamp(gateway.at, UTC)
    since = f"has not written since {at:%Y-%m-%d %H:%M}"
    name = gateway_status.gateway_name(gateway)
    return f"{name} {since}: it was killed, or can't reach the store"


def _new_table(*names: str) -> Table:
    """Return a table of what serves, in which only names take several lines."""
    whole = ("version", "since", "proved")
    return Table(
        *(Column(name, overflow="fold") for name in names),
        *(Column(name, no_wrap=True) for name in whole),
        Column("replicas", overflow="fold"),
        box=None,
        pad_edge=False,
    )


def _show(report: "Report") -> None:
    from components.monitor import serving_status

    table = _new_table("workload")
    for workload, route in sorted(report["routes"].items()):
        served = route["champion"]
        table.add_row(
            workload,
            served["version"],
            serving_status.minute(served["since"]),
            "without effect" if served["unproved"] else serving_status.minute(served["proved_at"]),
            " ".join(served["replicas"]) or "none",
        )
    if report["routes"]:
        print_whole(table)
    else:
        print_line("no champion serves")
    for coming in report.get("preparing", ()):
        print_line(f"preparing {coming['workload']}@{coming['version']}: {coming['step']}")
    for canary in report.get("rollouts", ()):
        print_line(
            f"canary {canary['workload']}@{canary['version']} at a share of {canary['share']:.3g}: "
            f"{canary['state']}"
        )
    for refusal in report["refused"]:
        print_error(f"refused: {refusal['workload']}@{refusal['version']}: {refusal['reason']}")
    age = report["knowledge_age_seconds"]
    print_line("MLflow was not reached yet" if age is None else f"MLflow answered {age:,.0f} s ago")


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
        _show_canary(name, known[0])
        for older in known[1:]:
            print_line(f"  before: {older.sentence}")


def _show_canary(workload: str, canary: "CanaryStatus") -> None:
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
