"""`flywheel pending`, `approve`, `reject`, `approver` and `audit`: decisions on promotions."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from components.decide import chain
from components.decide.chain import Reason
from flows import settings
from flows.cli.console import (
    console,
    errors,
    exit_on,
    fail,
    has_person,
    open_warehouse,
    print_line,
)
from flows.cli.parameters import CodeOption, KeyOption, PersonOption, WorkloadOption

if TYPE_CHECKING:
    from components.decide.chain import Head, Link
    from components.decide.record_answer import TypedAnswer
    from components.store.ledger import HoldoutLog
    from flows.approvals import PendingApproval

app = typer.Typer(add_completion=False, no_args_is_help=True)
approver_app = typer.Typer(
    help="Enrol a person who proves decisions with one-time codes.", no_args_is_help=True
)
app.add_typer(approver_app, name="approver")

WorkloadName = Annotated[
    str | None, typer.Argument(help="Whose approval; may be left out while only one waits.")
]
EvidenceOption = Annotated[
    str | None,
    typer.Option(
        help="The digest of the evidence that you read: nothing else is decided. Left out at a "
        "terminal, what waits is shown first and you are asked to confirm it; without a terminal "
        "it is required.",
    ),
]


@app.command()
@exit_on()
def audit(
    workload: WorkloadOption = None,
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
    """List who decided what, when and why, and what was refused or expired.

    Each decision holds the digest of the one before, so that `flywheel audit --verify` finds a
    changed, removed or moved one. It also reads which decisions MLflow's versions name, and
    compares each champion's alias, tags and files with what was approved. Whoever can write the
    warehouse and MLflow could rewrite the whole chain; keep an export elsewhere and compare the
    chain with it: `--verify --against FILE`.
    """
    from components.decide import decision_export, decision_log
    from components.store import ledger

    with open_warehouse() as con:
        links, head = decision_log.links(con), decision_log.read_head(con)
        holdout_log = ledger.read_holdout_log(con)
    if export:
        count = decision_export.export_links(export, links)
        signed = decision_export.export_signed(export, links)
        folder = decision_export.signed_folder(export)
        statements = f", {signed} signed statements to {folder}" if signed else ""
        print_line(f"{count} decisions written to {export}{statements}")
    if verify:
        with errors.status("verifying"):
            state = _verify_chain(links, head, holdout_log, against)
        print_line(state)
    elif not export:
        links = [link for link in links if workload in (None, link.workload_id)]
        for link in links:
            subject = _subject_text(link)
            name = _one_line(link.workload_id)
            print_line(f"{link.sequence:>4}  {name}  {subject}{link_text(link)}")
        if not links:
            print_line("nothing was decided yet")


def _verify_chain(
    links: "list[Link]", head: "Head | None", holdout_log: "HoldoutLog", against: Path | None
) -> str:
    """Compare the chain with itself, its head, MLflow, all looks, and an earlier export.

    Returns:
        What was found; where anything is broken the command ends.
    """
    from components.decide import chain, decision_export, decision_log
    from components.decide.approvers import STRENGTH

    anchors = _chain_anchors()
    broken = (
        chain.first_broken(links, head)
        or chain.first_loose(links, anchors or {})
        or decision_log.first_uncommitted(links, holdout_log)
        or decision_log.first_unproved(links)
    )
    if broken:
        fail(f"decision {broken.sequence} {broken.problem}", 1)
    if against and (line := decision_export.first_differing_line(against, links)) is not None:
        fail(f"line {line} of {against} is not in the chain", 1)
    versions = "" if anchors is None else _verify_versions()
    erased = sum(getattr(link, name) is None for link in links for name in link.texts)
    decided = [link for link in links if link.kind in decision_log.DECISIONS]
    proved = {
        kind: sum(decision_log.proof_of(link) == kind for link in decided) for kind in STRENGTH
    }
    named = "MLflow was not asked" if anchors is None else f"{len(anchors)} are named in MLflow"
    return (
        f"{len(links)} decisions, the chain holds; {named}; {versions}{erased} texts were erased; "
        f"{len(holdout_log.seals)} sealed policies, {len(holdout_log.looks)} looks under them; "
        f"names proved by signature {proved['signature']}, by code {proved['code']}, by what was "
        f"typed {proved['name']}; "
        f"head {head.digest if head else chain.GENESIS}"
    )


def _chain_anchors() -> dict[str, str] | None:
    """Return the decisions that MLflow's versions name; ``None`` where it does not answer."""
    from flows.stack import health

    if not health.mlflow_answers(settings.load()):
        return None
    from components.release import champions

    return champions.chain_anchors()


def _verify_versions() -> str:
    """Compare MLflow's versions with the chain; exit with 1 and every difference, or count them."""
    from components.release import releases
    from flows import release_home

    home = settings.load()
    models = releases.own_models(home.tables)
    statuses = [releases.release_status(release_home.of(home), workload) for workload in models]
    if objections := [objection for status in statuses for objection in status.objections]:
        fail("\n".join(objections), 1)
    verified = sum(status.verified for status in statuses)
    return f"{verified} versions verified to the byte; "


def _subject_text(link: "Link") -> str:
    if link.kind == "rules":
        return ""
    kind = "policy" if link.kind in ("sealed", "looked") else "evidence"
    return f"{kind} {_one_line(link.evidence_digest)}  "


def link_text(link: "Link") -> str:
    """Return one line: what was decided, by whom, why, and what is blamed; or sealed, or looked."""
    who = f"by {_one_line(link.approver)}" if link.approver != "" else ""
    blamed = f"blames {_one_line(link.blame)}" if link.blame else ""
    words = [link.kind, link.reason, who, _one_line(link.comment), blamed, _commitment_text(link)]
    return f"{link.decided_at:%Y-%m-%d %H:%M} UTC  {' '.join(filter(None, words))}"


def _commitment_text(link: "Link") -> str:
    """Return what a seal or a look commits to, what proved a decision, or what rules require."""
    from components.decide import decision_log

    if link.kind == "rules":
        return _rules_text(link)
    if not link.body:
        return ""
    body = json.loads(link.body)
    if link.kind == "released":
        return f"version {body['version']}, files {body['files']}"
    if link.kind in ("promoted", "erased"):
        return f"(from version {body['left'] or 'none'} to version {body['to'] or 'none'})"
    if link.kind not in ("sealed", "looked"):
        by_rule = body["proof"] == decision_log.POLICY
        proof = "by rule" if by_rule else f"proved by {body['proof']}"
        return f"({proof}{_canary_text(link.workload_id, body)})"
    version = f"holdout version {body['holdout_version']}"
    if link.kind == "sealed":
        return f"{version}, alpha {body['alpha']:g}"
    return (
        f"{version}, look {body['number']} by {body['metric']}, given alpha {body['alpha']:.4g} "
        f"under the policy that was sealed as {body['seal']}"
    )


def _canary_text(workload: str, body: dict[str, str]) -> str:
    """Return which canary a decision began or ended, on which counts, and where to see them."""
    if "rollout" not in body:
        return ""
    parts = [f"canary {body['rollout']}", body.get("event", ""), body.get("counts", "")]
    return f"; {', '.join(filter(None, parts))}; `flywheel serve canary show {workload}`"


def _rules_text(link: "Link") -> str:
    from components.decide import approvers

    if link.document is None:
        return "(erased)"
    rules = approvers.read_rules(link.document)
    who = ", ".join(person.name for person in rules.people) or "anybody"
    four_eyes = ", four eyes" if rules.four_eyes else ""
    starter = ", nobody who started the turn" if rules.refuse_starter else ""
    return f"decided by {_one_line(who)}, proved by {rules.proof}{four_eyes}{starter}"


def _one_line(text: str | None) -> str:
    return "(erased)" if text is None else " ".join(text.split())


@app.command()
@exit_on()
def pending() -> None:
    """List the approvals that wait for a person, and what was answered to each so far."""
    from flows import approvals
    from flows.cli import turn_watch

    waiting = turn_watch.with_patience(approvals.pending_approvals)
    for approval in waiting:
        print_line(
            f"{approval.workload}  evidence {approval.evidence}  "
            f"{settings.load().run_page(approval.flow_run_id)}\n"
            f"  {turn_watch.answer_command('approve', approval.workload, approval.evidence)}"
        )
        for link in _recorded_answers(str(approval.flow_run_id)):
            print_line(f"  {link_text(link)}")
    if not waiting:
        console.print("no approval waits")


@app.command()
@exit_on(code=1)
def approve(
    approver: PersonOption,
    workload: WorkloadName = None,
    evidence: EvidenceOption = None,
    comment: Annotated[str, typer.Option(help="Why; stored with the decision.")] = "",
    code: CodeOption = "",
    key: KeyOption = None,
) -> None:
    """Approve a waiting promotion: the challenger becomes champion.

    Where four eyes are required, it does once a second person has approved, too.
    """
    from components.decide.record_answer import TypedAnswer

    _send_answer(workload, evidence, TypedAnswer("approve", approver, comment, code), key)


@app.command()
@exit_on(code=1)
def reject(
    approver: PersonOption,
    comment: Annotated[str, typer.Option(help="Why; stored with the decision.")],
    workload: WorkloadName = None,
    evidence: EvidenceOption = None,
    reason: Annotated[Reason, typer.Option(help="What speaks against it.")] = "other",
    blame: Annotated[
        list[str] | None,
        typer.Option(
            help="What it is about; may be repeated: the beginning of a request's id, a part of "
            "the traffic such as tool=search, or guard=abstention. It comes first in the next "
            "review; what was trained on is held until then.",
        ),
    ] = None,
    code: CodeOption = "",
    key: KeyOption = None,
) -> None:
    """Reject a waiting promotion: the champion stays."""
    from components.decide.record_answer import TypedAnswer

    answer = TypedAnswer("reject", approver, comment, code, reason, "\n".join(blame or []))
    _send_answer(workload, evidence, answer, key)


def _send_answer(
    workload: str | None, evidence: str | None, answer: "TypedAnswer", key: Path | None
) -> None:
    with errors.status("looking up what waits"):
        from flows import approvals, approver_keys
        from flows.cli import turn_watch

        approval = _find_approval(workload, evidence, answer.decision)
    if evidence is None:  # another turn may have replaced what the person has read
        _show_evidence(approval)
        shown = f"evidence {approval.evidence} of {approval.workload}"
        typer.confirm(f"{answer.decision} {shown}?", abort=True)
    run_id, pause_key = approval.flow_run_id, approval.pause_key
    proved = approver_keys.signed_answer(settings.load(), approval, answer, key)
    with errors.status("waiting for the promotion"):
        turn_watch.with_patience(lambda: approvals.answer_approval(run_id, pause_key, proved))
        run = turn_watch.wait_for_run(
            run_id,
            lambda run: (
                turn_watch.is_over(run) or approvals.pause_key(run) not in (None, pause_key)
            ),
        )
    done = f"{approval.workload}: {answer.decision} by {answer.approver}"
    if run.state and run.state.is_completed():
        print_line(f"{done}, done: {run.state.message or 'no more is known'}")
    elif not run.state or not run.state.is_paused():
        fail(turn_watch.failure_text("promotion", run), 1)
    elif (last := _recorded_answers(str(run_id))[-1]).kind == "refused":
        fail(
            f"{approval.workload}: the answer was not taken: "
            f"{chain.refusal_sentence(last.reason)}. The approval still waits.",
            1,
        )
    else:
        print_line(f"{done}; another has to, too")


def _show_evidence(approval: "PendingApproval") -> None:
    from components.gate.evidence_folder import REPORT
    from components.store import output_folders
    from flows.cli import turn_watch

    folder = settings.load().evidence / approval.workload / approval.evidence
    if output_folders.fetch(folder):  # else it is in another machine's home
        turn_watch.print_scores(folder)
        print_line(f"report    {folder / REPORT}")


def _find_approval(workload: str | None, evidence: str | None, decision: str) -> "PendingApproval":
    from flows import approvals
    from flows.cli import turn_watch

    every = turn_watch.with_patience(approvals.pending_approvals)
    waiting = [each for each in every if workload in (None, each.workload)]
    if every and not waiting:
        names = ", ".join(sorted({each.workload for each in every}))
        fail(f"{decision}: no approval of {workload} waits, but one of {names} does", 1)
    if waiting and evidence is None and not has_person():
        commands = [
            f"  {turn_watch.answer_command(decision, each.workload, each.evidence)}"
            for each in waiting
        ]
        fail(
            f"{decision}: there is no terminal to confirm at what is decided; name the evidence "
            "that was read:\n" + "\n".join(commands)
        )
    matching = [each for each in waiting if evidence in (None, each.evidence)]
    if len(matching) != 1:
        found = ", ".join(f"evidence {each.evidence} of {each.workload}" for each in waiting)
        wanted = f" on evidence {evidence}" if evidence else ""
        fail(f"{decision}: expected one waiting approval{wanted}, found: {found or 'none'}", 1)
    return matching[0]


def _recorded_answers(flow_run_id: str) -> "list[Link]":
    from components.decide import decision_log

    with open_warehouse() as con:
        return decision_log.links(con, flow_run_id=flow_run_id)


@approver_app.command("add")
@exit_on()
def add_approver(
    name: Annotated[str, typer.Argument(help="The name, as the workload's file lists it.")],
    again: Annotated[
        bool, typer.Option("--again", help="Replace the secret that the person has.")
    ] = False,
) -> None:
    """Generate the secret of a person's one-time codes; show it once for an authenticator app.

    List the person under `approve: approvers:` in the workload's file, with `proof: code`. A code
    proves that somebody who has the secret was there, not what was said: `proof: signature`, with
    the person's SSH key, proves both, and needs no secret here.
    """
    import segno

    from components.decide import approvers
    from flows import approver_keys

    home = settings.load()
    try:
        secret = approver_keys.enrol_approver(home, approvers.Approver(name=name).name, again=again)
    except ValueError as error:
        fail(f"enrolling {name!r}: {error}")
    address = approvers.uri(secret, name, home=home.home.name)
    segno.make(address, error="m").terminal(compact=True)
    print_line(address)
    place = approver_keys.secret_file(home, name)
    print_line(f"kept in {place}; scan it, or type it in: it is not shown again")
