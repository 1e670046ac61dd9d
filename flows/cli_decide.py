"""``flywheel pending``, ``approve``, ``reject``, ``audit`` and ``approver``: deciding, in words."""

import getpass
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from components.decide.reasons import Reason
from flows import settings

if TYPE_CHECKING:
    from components.decide.chain import Head, Link
    from components.decide.hearing import Answer
    from components.warehouse import Connection

app = typer.Typer(add_completion=False, no_args_is_help=True)
approver_app = typer.Typer(
    help="Let a person prove with one-time codes who decides.", no_args_is_help=True
)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

WorkloadName = Annotated[
    str | None, typer.Argument(help="Whose approval; may be left out while only one waits.")
]
Approver = Annotated[
    str,
    typer.Option(
        "--as", help="Your name; stored with the decision.", default_factory=getpass.getuser
    ),
]
Code = Annotated[
    str,
    typer.Option(
        help="The one-time code of your authenticator app, where the workload's file asks for one. "
        "Better let FLYWHEEL_CODE hold it: other users see what commands are started with.",
        envvar="FLYWHEEL_CODE",
    ),
]


@app.command()
def pending() -> None:
    """List the approvals that wait for a person, and what was answered to each so far."""
    from flows import approvals, watch

    with _explained():
        waiting = watch.patiently(approvals.pending)
    for one in waiting:
        console.print(
            f"{one.workload}  evidence {one.evidence}  "
            f"{settings.load().prefect_url}/runs/flow-run/{one.flow_run_id}",
            soft_wrap=True,
        )
        for link in _answers(str(one.flow_run_id)):
            console.print(f"  {_said(link)}", markup=False, soft_wrap=True)
    if not waiting:
        console.print("no approval waits")


@app.command()
def approve(
    approver: Approver,
    workload: WorkloadName = None,
    comment: Annotated[str, typer.Option(help="Why; kept with the decision.")] = "",
    code: Code = "",
) -> None:
    """Approve a waiting promotion: the challenger becomes champion.

    Where four eyes are wanted, it does when a second person has approved, too.
    """
    from components.decide.hearing import Answer

    _decide(workload, Answer("approve", approver, comment, code))


@app.command()
def reject(
    approver: Approver,
    comment: Annotated[str, typer.Option(help="Why; kept with the decision.")],
    workload: WorkloadName = None,
    reason: Annotated[Reason, typer.Option(help="What speaks against it.")] = "other",
    blame: Annotated[
        list[str] | None,
        typer.Option(
            help="What it is about; may be given several times: the beginning of a request's id, a "
            "part of the traffic such as tool=search, or guard=abstention. It comes first in the "
            "next review; what was trained on is held until then.",
        ),
    ] = None,
    code: Code = "",
) -> None:
    """Reject a waiting promotion: the champion stays."""
    from components.decide.hearing import Answer

    _decide(workload, Answer("reject", approver, comment, code, reason, "\n".join(blame or [])))


@app.command()
def audit(
    workload: Annotated[str | None, typer.Option(help="Whose decisions; all without.")] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Recompute the chain; exit code 1 if it is broken.")
    ] = False,
    export: Annotated[
        Path | None, typer.Option(help="Write the whole chain to a file of JSON lines.")
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="With --verify: an earlier export, of which nothing may have changed."),
    ] = None,
) -> None:
    """List who decided what, when and why, and what was refused or lapsed.

    Each decision holds the digest of the one before, so that one which is changed, dropped or moved
    is found: `flywheel audit --verify`, which also asks MLflow's versions for the decisions that
    they name. Who can write the warehouse and MLflow could write the whole chain anew; keep an
    export elsewhere and hold the chain against it: `--verify --against FILE`.
    """
    from components.decide import export as exporting
    from components.decide import record

    with _warehouse() as con:
        links, head = record.links(con), record.head(con)
    if export:
        console.print(
            f"{exporting.write(export, links)} decisions written to {export}", markup=False
        )
    if verify:
        _verify(links, head, against)
    elif not export:
        _list([link for link in links if workload in (None, link.workload_id)])


def _verify(links: "list[Link]", head: "Head | None", against: Path | None) -> None:
    """Hold the chain against itself, its head, MLflow's versions and an earlier export."""
    from components.decide import chain
    from components.decide import export as exporting

    anchors = _anchors()
    broken = chain.first_broken(links, head) or chain.first_loose(links, anchors or {})
    if broken:
        errors.print(f"decision {broken.sequence} {broken.said}", markup=False, soft_wrap=True)
        raise typer.Exit(1)
    if against and (line := exporting.first_differing(against, links)) is not None:
        errors.print(f"line {line} of {against} is not in the chain", markup=False)
        raise typer.Exit(1)
    erased = sum(getattr(link, name) is None for link in links for name in chain.FIELDS)
    named = "MLflow was not asked" if anchors is None else f"{len(anchors)} are named in MLflow"
    console.print(
        f"{len(links)} decisions, the chain holds; {named}; {erased} texts were erased; "
        f"head {head.digest if head else chain.GENESIS}",
        soft_wrap=True,
    )


def _anchors() -> dict[str, str] | None:
    """Ask MLflow for the decisions that its versions name; ``None`` where it does not answer."""
    from flows.stack import health

    if not health.mlflow_answers(settings.load()):
        return None
    from flows import champions

    return champions.anchors()


@approver_app.command("add")
def add_approver(
    name: Annotated[str, typer.Argument(help="The name, as the workload's file lists it.")],
    block: Annotated[
        str | None,
        typer.Option(
            help="Keep the secret in the Prefect Secret block of this name, and not in a file of "
            "the home; the stack must be up."
        ),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Replace the secret that the person has.")
    ] = False,
) -> None:
    """Draw the secret of a person's one-time codes, and show it once for an authenticator app.

    List the person under `approve: approvers:` in the workload's file, with `codes: true`.
    """
    import segno

    from components.decide import approvers, totp
    from flows import secrets

    try:
        listed = approvers.Approver(name=name, secret_block=block)
        home = settings.load()
        drawn = (
            _enrol_in_block(name, block, again=again)
            if block
            else secrets.enrol(home, listed.name, again=again)
        )
    except ValueError as error:
        errors.print(f"enrolling {name!r}: {error}", markup=False, soft_wrap=True)
        raise typer.Exit(2) from error
    address = totp.uri(drawn, name, home=home.home.name)
    segno.make(address, error="m").terminal(compact=True)
    console.print(address, markup=False, soft_wrap=True)
    place = f"the Secret block {block}" if block else str(secrets.file(home, name))
    console.print(f"kept in {place}; scan it, or type it in: it is not shown again", markup=False)


def _enrol_in_block(name: str, block: str, *, again: bool) -> str:
    from flows import secret_blocks, watch

    with _explained():
        return watch.patiently(lambda: secret_blocks.enrol(name, block, again=again))


def _decide(workload: str | None, given: "Answer") -> None:
    from flows import approvals, watch

    tags = [approvals.workload_tag(workload)] if workload else []
    with _explained():
        waiting = watch.patiently(lambda: approvals.pending(*tags))
    if len(waiting) != 1:
        found = ", ".join(one.workload for one in waiting) or "none"
        errors.print(f"{given.decision}: wants exactly one waiting approval, found: {found}")
        raise typer.Exit(1)
    one = waiting[0]
    with _explained():
        watch.patiently(lambda: approvals.answer(one.flow_run_id, one.pause_key, given))
        run = watch.wait_until_answered(one.flow_run_id, one.pause_key)
    if run.state and run.state.is_paused():
        _say_asked_again(one.workload, str(one.flow_run_id), given)
        return
    if not run.state or not run.state.is_completed():
        errors.print(watch.trouble("promotion", run), markup=False)
        raise typer.Exit(1)
    console.print(f"{one.workload}: {given.decision} by {escape(given.approver)}, done")


def _say_asked_again(workload: str, flow_run_id: str, given: "Answer") -> None:
    """Say what came of an answer after which a person is asked again."""
    from components.decide import reasons

    last = _answers(flow_run_id)[-1]
    if last.kind == "refused":
        errors.print(
            f"{workload}: the answer was not taken: {reasons.refusal(last.reason)}. "
            "The approval still waits.",
            markup=False,
            soft_wrap=True,
        )
        raise typer.Exit(1)
    console.print(f"{workload}: {given.decision} by {escape(given.approver)}; another has to, too")


def _answers(flow_run_id: str) -> "list[Link]":
    from components.decide import record

    with _warehouse() as con:
        return record.links(con, record.Asked(flow_run_id=flow_run_id))


def _list(links: "list[Link]") -> None:
    for link in links:
        console.print(
            f"{link.sequence:>4}  {link.workload_id}  evidence {link.evidence_digest}  "
            f"{_said(link)}",
            markup=False,
            soft_wrap=True,
        )
    if not links:
        console.print("nothing was decided yet")


def _said(link: "Link") -> str:
    """Say on one line what was decided, by whom, why, and what is blamed."""
    who = f"by {_text(link.approver)}" if link.approver != "" else ""
    blamed = f"blames {_text(link.blame)}" if link.blame else ""
    words = [link.kind, link.reason, who, _text(link.comment), blamed]
    return f"{link.decided_at:%Y-%m-%d %H:%M} UTC  {' '.join(filter(None, words))}"


def _text(text: str | None) -> str:
    """Give a person's text for a terminal, which must not be steered by it."""
    from components.gate.report.page import visible

    return "(erased)" if text is None else visible(" ".join(text.split()))


@contextmanager
def _warehouse() -> "Generator[Connection]":
    """Open the warehouse; what can go wrong becomes a message and an exit code."""
    from components import warehouse

    try:
        with warehouse.connect(settings.load().warehouse) as con:
            yield con
    except (OSError, warehouse.WarehouseNewerError) as error:
        errors.print(str(error), markup=False, soft_wrap=True)
        raise typer.Exit(2) from error


@contextmanager
def _explained() -> Generator[None]:
    """Turn what can go wrong at the stack into a message and an exit code."""
    from prefect.exceptions import PrefectHTTPStatusError

    from flows import approvals, watch
    from flows.stack import control

    refused = (approvals.NotTakenError, PrefectHTTPStatusError)
    try:
        yield
    except (watch.TurnError, control.StackError, *refused) as error:
        errors.print(str(error), markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        errors.print("interrupted; run the same command again to go on")
        raise typer.Exit(130) from None
