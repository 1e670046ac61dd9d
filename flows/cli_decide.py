"""``flywheel pending``, ``approve`` and ``reject``: deciding, from the terminal."""

import getpass
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from components.decide.reasons import Reason
from flows import cli_audit, settings
from flows.explaining import explained, opened

if TYPE_CHECKING:
    from components.decide.chain import Link
    from components.decide.hearing import Answer

app = typer.Typer(add_completion=False, no_args_is_help=True)
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
        help="The one-time code of your authenticator app, where the workload's file asks for one; "
        "it proves that you were here, not what you said. Better let FLYWHEEL_CODE hold it: other "
        "users see what commands are started with.",
        envvar="FLYWHEEL_CODE",
    ),
]

Key = Annotated[
    Path | None,
    typer.Option(
        help="The SSH key to sign with, where the workload's file asks for signatures: a private "
        "key's file, or the .pub of one that your agent holds. Left out, the one of yours that the "
        "rules list is looked for in the agent and in ~/.ssh.",
        envvar="FLYWHEEL_KEY",
    ),
]


@app.command()
def pending() -> None:
    """List the approvals that wait for a person, and what was answered to each so far."""
    import httpx

    from flows import approvals, watch
    from flows.stack.control import StackError

    with explained(watch.TurnError, StackError, httpx.HTTPStatusError, code=1):
        waiting = watch.patiently(approvals.pending)
    for one in waiting:
        console.print(
            f"{one.workload}  evidence {one.evidence}  "
            f"{settings.load().prefect_url}/runs/flow-run/{one.flow_run_id}",
            soft_wrap=True,
        )
        for link in _answers(str(one.flow_run_id)):
            console.print(f"  {cli_audit.said(link)}", markup=False, soft_wrap=True)
    if not waiting:
        console.print("no approval waits")


@app.command()
def approve(
    approver: Approver,
    workload: WorkloadName = None,
    comment: Annotated[str, typer.Option(help="Why; kept with the decision.")] = "",
    code: Code = "",
    key: Key = None,
) -> None:
    """Approve a waiting promotion: the challenger becomes champion.

    Where four eyes are wanted, it does when a second person has approved, too.
    """
    from components.decide.hearing import Answer

    _decide(workload, Answer("approve", approver, comment, code), key)


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
    key: Key = None,
) -> None:
    """Reject a waiting promotion: the champion stays."""
    from components.decide.hearing import Answer

    given = Answer("reject", approver, comment, code, reason, "\n".join(blame or []))
    _decide(workload, given, key)


def _decide(workload: str | None, given: "Answer", key: Path | None) -> None:
    from flows import approvals, signing, watch

    tags = [approvals.workload_tag(workload)] if workload else []
    with _explained():
        waiting = watch.patiently(lambda: approvals.pending(*tags))
    if len(waiting) != 1:
        found = ", ".join(one.workload for one in waiting) or "none"
        errors.print(f"{given.decision}: wants exactly one waiting approval, found: {found}")
        raise typer.Exit(1)
    one = waiting[0]
    with _explained():
        proved = signing.signed_answer(settings.load(), one, given, key)
        watch.patiently(lambda: approvals.answer(one.flow_run_id, one.pause_key, proved))
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

    with opened() as con:
        return record.links(con, record.Asked(flow_run_id=flow_run_id))


def _explained() -> AbstractContextManager[None]:
    import httpx

    from flows import approvals, watch
    from flows.config import ConfigError
    from flows.signing import SigningError
    from flows.stack.control import StackError
    from flows.workload_files import WorkloadFileError

    refused = (
        approvals.NotTakenError,
        httpx.HTTPStatusError,
        SigningError,
        WorkloadFileError,
        ConfigError,
    )
    return explained(watch.TurnError, StackError, *refused, code=1)
