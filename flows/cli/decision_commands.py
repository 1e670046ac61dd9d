"""`flywheel pending`, `approve`, `reject`, `approver` and `audit`: decisions on promotions."""

import getpass
import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from components.decide.reasons import Reason
from flows import settings
from flows.cli.console import exit_on, open_warehouse

if TYPE_CHECKING:
    from components.decide.chain import Head, Link
    from components.decide.record_answer import TypedAnswer
    from components.store.ledger import HoldoutLog


app = typer.Typer(add_completion=False, no_args_is_help=True)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


@app.command()
def audit(
    workload: Annotated[str | None, typer.Option(help="Whose decisions; all without.")] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Recompute the chain; exit code 1 if it is broken.")
    ] = False,
    export: Annotated[
        Path | None,
        typer.Option(
            help="Write the whole chain to a file of JSON lines; beside it, in FILE.signed/, every "
            "signed statement with its signature, and allowed_signers, for ssh-keygen alone."
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="With --verify: an earlier export, of which nothing may have changed."),
    ] = None,
) -> None:
    """List who decided what, when and why, and what was refused or lapsed.

    Each decision holds the digest of the one before, so that one which is changed, dropped or moved
    is found: `flywheel audit --verify`, which also asks MLflow's versions for the decisions that
    they name, and compares each champion's alias, tags and files with what was approved. Who can
    write the warehouse and MLflow could write the whole chain anew; keep an export elsewhere and
    hold the chain against it: `--verify --against FILE`.
    """
    from components.decide import decision_log
    from components.decide import decision_log as exporting
    from components.store import ledger

    with open_warehouse() as con:
        links, head, book = (
            decision_log.links(con),
            decision_log.read_head(con),
            ledger.read_holdout_log(con),
        )
    if export:
        count, signed = (
            exporting.export_links(export, links),
            exporting.export_signed(export, links),
        )
        told = (
            f", {signed} signed statements to {exporting.signed_folder(export)}" if signed else ""
        )
        console.print(f"{count} decisions written to {export}{told}", markup=False)
    if verify:
        _verify_chain(links, head, book, against)
    elif not export:
        _list_links([link for link in links if workload in (None, link.workload_id)])


def _verify_chain(
    links: "list[Link]", head: "Head | None", book: "HoldoutLog", against: Path | None
) -> None:
    """Hold the chain against itself, its head, MLflow, all looks, and an earlier export."""
    from components.decide import chain, validity
    from components.decide import decision_log as exporting
    from components.decide.approvers import STRENGTH

    anchors = _chain_anchors()
    broken = (
        chain.first_broken(links, head)
        or chain.first_loose(links, anchors or {})
        or validity.first_uncommitted(links, book)
        or validity.first_unproved(links)
    )
    if broken:
        errors.print(f"decision {broken.sequence} {broken.problem}", markup=False, soft_wrap=True)
        raise typer.Exit(1)
    if against and (line := exporting.first_differing_line(against, links)) is not None:
        errors.print(f"line {line} of {against} is not in the chain", markup=False)
        raise typer.Exit(1)
    versions = _verify_versions() if anchors is not None else ""
    erased = sum(getattr(link, name) is None for link in links for name in link.texts)
    decided = [link for link in links if link.kind in validity.DECISIONS]
    proved = {kind: sum(validity.proof_of(link) == kind for link in decided) for kind in STRENGTH}
    named = "MLflow was not asked" if anchors is None else f"{len(anchors)} are named in MLflow"
    older = sum(one.decision is None for one in book.looks)
    console.print(
        f"{len(links)} decisions, the chain holds; {named}; {versions}{erased} texts were erased; "
        f"{len(book.seals)} sealed policies, {len(book.looks) - older} looks under them, {older} "
        f"older looks under none; names proved by signature {proved['signature']}, by code "
        f"{proved['code']}, by what was typed {proved['name']}; "
        f"head {head.digest if head else chain.GENESIS}",
        soft_wrap=True,
    )


def _chain_anchors() -> dict[str, str] | None:
    """Ask MLflow for the decisions that its versions name; ``None`` where it does not answer."""
    from flows.stack import health

    if not health.mlflow_answers(settings.load()):
        return None
    from flows import champions

    return champions.chain_anchors()


def _verify_versions() -> str:
    """Hold MLflow's versions against the chain; exit with 1 and every difference, or count them."""
    from components.register import registry
    from flows import releases

    home = settings.load()
    found = [releases.release_status(home, workload) for workload in registry.model_names()]
    objections = [said for one in found for said in one.objections]
    for said in objections:
        errors.print(said, markup=False, soft_wrap=True)
    if objections:
        raise typer.Exit(1)
    unsigned = [name for one in found for name in one.unsigned]
    for name in unsigned:
        errors.print(
            f"{name} has no signature: an older Flywheel registered it, so its files were not "
            "compared",
            markup=False,
            soft_wrap=True,
        )
    verified = sum(one.verified for one in found)
    return f"{verified} versions verified to the byte, {len(unsigned)} older ones unsigned; "


def _list_links(links: "list[Link]") -> None:
    for link in links:
        console.print(
            f"{link.sequence:>4}  {link.workload_id}  {_subject_text(link)}{link_text(link)}",
            markup=False,
            soft_wrap=True,
        )
    if not links:
        console.print("nothing was decided yet")


def _subject_text(link: "Link") -> str:
    if link.kind == "rules":
        return ""
    kind = "policy" if link.kind in ("sealed", "looked") else "evidence"
    return f"{kind} {link.evidence_digest}  "


def link_text(link: "Link") -> str:
    """Say on one line what was decided, by whom, why, and what is blamed; or sealed, or looked."""
    who = f"by {_safe_text(link.approver)}" if link.approver != "" else ""
    blamed = f"blames {_safe_text(link.blame)}" if link.blame else ""
    words = [link.kind, link.reason, who, _safe_text(link.comment), blamed, _commitment_text(link)]
    return f"{link.decided_at:%Y-%m-%d %H:%M} UTC  {' '.join(filter(None, words))}"


def _commitment_text(link: "Link") -> str:
    """Say to what a seal or a look commits, what proved a decision, and what rules are."""
    if link.kind == "rules":
        return _rules_text(link)
    if not link.body:
        return ""
    told = json.loads(link.body)
    if link.kind == "released":
        return f"version {told['version']}, files {told['files']}"
    if link.kind not in ("sealed", "looked"):
        return f"(proved by {told['proof']})"
    version = f"holdout version {told['holdout_version']}"
    if link.kind == "sealed":
        return f"{version}, alpha {told['alpha']:g}"
    return (
        f"{version}, look {told['number']} by {told['metric']}, given alpha {told['alpha']:.4g} "
        f"under the policy that was sealed as {told['seal']}"
    )


def _rules_text(link: "Link") -> str:
    from components.decide import approvers

    if link.document is None:
        return "(erased)"
    found = approvers.read_rules(link.document)
    who = ", ".join(one.name for one in found.people) or "anybody"
    flags = [", four eyes"] if found.four_eyes else []
    flags += [", nobody who started the turn"] if found.refuse_starter else []
    return f"decided by {_safe_text(who)}, proved by {found.proof}{''.join(flags)}"


def _safe_text(text: str | None) -> str:
    """Give a person's text for a terminal, which must not be steered by it."""
    from components.pages.templates import visible

    return "(erased)" if text is None else visible(" ".join(text.split()))


WorkloadName = Annotated[
    str | None, typer.Argument(help="Whose approval; may be left out while only one waits.")
]
ApproverName = Annotated[
    str,
    typer.Option(
        "--as", help="Your name; stored with the decision.", default_factory=getpass.getuser
    ),
]
OneTimeCode = Annotated[
    str,
    typer.Option(
        help="The one-time code of your authenticator app, where the workload's file asks for one; "
        "it proves that you were here, not what you said. Better let FLYWHEEL_CODE hold it: other "
        "users see what commands are started with.",
        envvar="FLYWHEEL_CODE",
    ),
]

SigningKey = Annotated[
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

    from flows import approvals
    from flows.cli import turn_watch
    from flows.stack.control import StackError

    with exit_on(turn_watch.TurnError, StackError, httpx.HTTPStatusError, code=1):
        waiting = turn_watch.with_patience(approvals.pending_approvals)
    for one in waiting:
        console.print(
            f"{one.workload}  evidence {one.evidence}  "
            f"{settings.load().prefect_url}/runs/flow-run/{one.flow_run_id}",
            soft_wrap=True,
        )
        for link in _recorded_answers(str(one.flow_run_id)):
            console.print(f"  {link_text(link)}", markup=False, soft_wrap=True)
    if not waiting:
        console.print("no approval waits")


@app.command()
def approve(
    approver: ApproverName,
    workload: WorkloadName = None,
    comment: Annotated[str, typer.Option(help="Why; kept with the decision.")] = "",
    code: OneTimeCode = "",
    key: SigningKey = None,
) -> None:
    """Approve a waiting promotion: the challenger becomes champion.

    Where four eyes are wanted, it does when a second person has approved, too.
    """
    from components.decide.record_answer import TypedAnswer

    _send_answer(workload, TypedAnswer("approve", approver, comment, code), key)


@app.command()
def reject(
    approver: ApproverName,
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
    code: OneTimeCode = "",
    key: SigningKey = None,
) -> None:
    """Reject a waiting promotion: the champion stays."""
    from components.decide.record_answer import TypedAnswer

    given = TypedAnswer("reject", approver, comment, code, reason, "\n".join(blame or []))
    _send_answer(workload, given, key)


def _send_answer(workload: str | None, answer: "TypedAnswer", key: Path | None) -> None:
    from flows import approvals, approver_keys
    from flows.cli import turn_watch

    tags = [approvals.workload_tag(workload)] if workload else []
    with _exit_on_decision_errors():
        waiting = turn_watch.with_patience(lambda: approvals.pending_approvals(*tags))
    if len(waiting) != 1:
        found = ", ".join(one.workload for one in waiting) or "none"
        errors.print(f"{answer.decision}: wants exactly one waiting approval, found: {found}")
        raise typer.Exit(1)
    one = waiting[0]
    with _exit_on_decision_errors():
        proved = approver_keys.signed_answer(settings.load(), one, answer, key)
        turn_watch.with_patience(
            lambda: approvals.answer_approval(one.flow_run_id, one.pause_key, proved)
        )
        run = turn_watch.wait_until_answered(one.flow_run_id, one.pause_key)
    if run.state and run.state.is_paused():
        _print_asked_again(one.workload, str(one.flow_run_id), answer)
        return
    if not run.state or not run.state.is_completed():
        errors.print(turn_watch.failure_text("promotion", run), markup=False)
        raise typer.Exit(1)
    console.print(f"{one.workload}: {answer.decision} by {escape(answer.approver)}, done")


def _print_asked_again(workload: str, flow_run_id: str, answer: "TypedAnswer") -> None:
    """Say what came of an answer after which a person is asked again."""
    from components.decide import reasons

    last = _recorded_answers(flow_run_id)[-1]
    if last.kind == "refused":
        errors.print(
            f"{workload}: the answer was not taken: {reasons.refusal_sentence(last.reason)}. "
            "The approval still waits.",
            markup=False,
            soft_wrap=True,
        )
        raise typer.Exit(1)
    console.print(
        f"{workload}: {answer.decision} by {escape(answer.approver)}; another has to, too"
    )


def _recorded_answers(flow_run_id: str) -> "list[Link]":
    from components.decide import decision_log

    with open_warehouse() as con:
        return decision_log.links(con, flow_run_id=flow_run_id)


def _exit_on_decision_errors() -> AbstractContextManager[None]:
    import httpx

    from flows import approvals
    from flows.approver_keys import SigningError
    from flows.cli import turn_watch
    from flows.home_workloads import WorkloadFileError
    from flows.stack.control import StackError
    from flows.workload_file import WorkloadError

    refused = (
        approvals.NotTakenError,
        httpx.HTTPStatusError,
        SigningError,
        WorkloadFileError,
        WorkloadError,
    )
    return exit_on(turn_watch.TurnError, StackError, *refused, code=1)


approver_app = typer.Typer(
    help="Let a person prove with one-time codes who decides.", no_args_is_help=True
)


@approver_app.command("add")
def add_approver(
    name: Annotated[str, typer.Argument(help="The name, as the workload's file lists it.")],
    again: Annotated[
        bool, typer.Option("--again", help="Replace the secret that the person has.")
    ] = False,
) -> None:
    """Draw the secret of a person's one-time codes, and show it once for an authenticator app.

    List the person under `approve: approvers:` in the workload's file, with `proof: code`. A code
    proves that somebody who has the secret was there, not what was said: `proof: signature`, with
    the person's SSH key, proves both, and needs no secret here.
    """
    import segno

    from components.decide import approvers
    from flows import approver_keys

    try:
        listed, home = approvers.Approver(name=name), settings.load()
        drawn = approver_keys.enrol_approver(home, listed.name, again=again)
    except ValueError as error:
        errors.print(f"enrolling {name!r}: {error}", markup=False, soft_wrap=True)
        raise typer.Exit(2) from error
    address = approvers.uri(drawn, name, home=home.home.name)
    segno.make(address, error="m").terminal(compact=True)
    console.print(address, markup=False, soft_wrap=True)
    place = approver_keys.secret_file(home, name)
    console.print(f"kept in {place}; scan it, or type it in: it is not shown again", markup=False)
