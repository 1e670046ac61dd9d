"""The rules of rollbacks: where one may lead, and how the order of one is proved."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from components.decide import approvers as all_rules
from components.decide import chain, decision_log, record_answer, statement
from components.decide.approvers import ApprovalRules, Approver
from components.decide.chain import Link, Refused
from components.decide.decision_log import LogEvent
from components.decide.record_answer import ProofContext
from components.decide.statement import Signed, Statement
from components.gate import evidence_folder
from components.register.registry import Version
from components.release import release_state
from components.release.installation import Installation, UnreadableRulesError
from components.release.release_state import (
    ApprovedPairs,
    ChampionChange,
    KnownChampions,
    ReleaseState,
    RollbackError,
)
from components.store import lock, warehouse
from components.store.manifest import folder_digest
from components.store.warehouse import Connection


@dataclass(frozen=True, slots=True)
class Order:
    """A rollback as it was ordered.

    ``to`` is a version's number, ``None`` for the one that is ``previous``. ``code`` and
    ``signature`` prove ``by`` where the rules require that. ``is_policy``: the workload's own file
    orders it (``on_regression``), and nobody has to prove it. ``ordered_at`` is ``None`` where it
    is carried out at once.
    """

    workload: str
    to: str | None
    by: str
    reason: str
    code: str = ""
    signature: str = ""
    is_policy: bool = False
    flow_run_id: str = ""
    ordered_at: datetime | None = None

    def __post_init__(self) -> None:
        """Make its texts encodable, wherever they come from."""
        for name in ("by", "reason", "code", "signature"):
            object.__setattr__(self, name, chain.encodable(getattr(self, name)))


LATE = timedelta(minutes=15)  # how old the signature of an order may be


class RefusedOrderError(Exception):
    """The order is not proved; it undoes the transaction that would have written the order."""

    def __init__(self, objection: Refused, expected: Statement) -> None:
        super().__init__(objection)
        self.objection: Refused = objection
        self.expected = expected


def is_signed(home: Installation, workload: str) -> bool:
    """Return whether a workload's rules may require a signature; ``form`` reads the rules."""
    try:
        approving = home.approving(workload)
    except UnreadableRulesError:
        return True
    if approving is None:
        known = release_state.read_known(home.locks, workload)
        return known is not None and not known.is_open
    return approving.proof == "signature"


def needs_no_proof(home: Installation, workload: str, known: KnownChampions) -> bool:
    """Return whether anybody may order a rollback, by the file and by the last rules in force."""
    try:
        approving = home.approving(workload)
    except UnreadableRulesError:
        return False
    return known.is_open and (approving is None or approving.rules() == all_rules.OPEN)


def in_force(home: Installation, con: Connection, workload: str) -> ApprovalRules:
    """Return a workload's rules: its file's, or the chain's last where that can't be read."""
    with suppress(UnreadableRulesError):  # a bad champion has to go though the file has a mistake
        if (approving := home.approving(workload)) is not None:
            return approving.rules()
    links = decision_log.links(con, workload_id=workload)
    known = [link.document for link in links if link.kind == "rules" and link.document is not None]
    return all_rules.read_rules(known[-1]) if known else all_rules.OPEN


def plan_rollback(
    name: str,
    versions: Sequence[Version],
    champion: str | None,
    known: ReleaseState,
    to: str | None,
    *,
    by: str,
    reason: str,
) -> ChampionChange:
    """Plan a rollback of the workload ``name``, ordered ``by`` a person.

    ``versions`` are all of its versions, ``known`` its champions so far. ``to`` is the target's
    number; ``None`` for the default target.

    Raises:
        RollbackError: The target is missing, is champion already, was never approved, or was
            trained on rows that were erased since.
    """
    if not versions:
        raise RollbackError(f"rolling back {name}: it has no registered version")
    numbered = {each.number: each for each in versions}
    fit = [
        each
        for each in versions
        if release_state.may_serve(each, known.approved) and each.number != champion
    ]
    others = ", ".join(each.number for each in fit)
    hint = f"; --to goes back to any of {others}" if fit else "; there is no other to go to"
    if to is not None and to not in numbered:
        existing = ", ".join(numbered) or "none"
        raise RollbackError(f"rolling back {name} to version {to}: there are {existing}")
    target = numbered.get(to or release_state.previous(champion, known, versions) or "")
    if target is None:
        last = numbered.get(known.before.get(champion or "") or "")
        why = _rollback_objection(last, champion, known.approved) if last else None
        detail = f" (version {last.number}: {why})" if last and why else ""
        raise RollbackError(f"rolling back {name}: no version is `previous`{detail}{hint}")
    if why := _rollback_objection(target, champion, known.approved):
        raise RollbackError(f"rolling back {name} to version {target.number}: {why}{hint}")
    left = numbered.get(champion or "")
    return ChampionChange(
        workload_id=name,
        kind="rollback",
        evidence_digest=target.evidence,
        adapter_key=target.adapter,
        version=target.number,
        champion_before=champion,
        adapter_before=left.adapter if left else None,
        asked_by=by,
        reason=reason,
    )


def _rollback_objection(
    version: Version, champion: str | None, approved: ApprovedPairs
) -> str | None:
    if version.number == champion:
        return "it is the champion already"
    if version.tainted:
        return f"it has learned from rows that were erased (certificate {version.tainted})"
    if (version.number, version.evidence) not in approved:
        return (
            "nobody has approved it according to the chain of decisions; a turn asks for approval"
        )
    return None


def form(home: Installation, change: ChampionChange) -> tuple[Statement, ApprovalRules]:
    """Write the statement to sign for an order, without its time; return the rules, too."""
    rules, digest = _put_in_force(home, change, lock.PATIENCE_SECONDS)
    return _statement(change, _context(home, change, rules), digest), rules


def record_order(
    home: Installation,
    change: ChampionChange,
    order: Order,
    *,
    about: str,
    wait_seconds: float = lock.PATIENCE_SECONDS,
    also: Callable[[Connection], None] = lambda _: None,
) -> Link:
    """Prove an order, and append it to the chain in one transaction with ``also``.

    ``about`` is the evidence of the version that is left. ``RollbackError``: it is refused, which
    is recorded.
    """
    rules, _ = _put_in_force(home, change, wait_seconds)  # they stay so if it is refused
    context, document = _context(home, change, rules), ""
    try:
        with warehouse.connect(home.tables, wait_seconds) as con, warehouse.transaction(con):
            now = datetime.now(UTC)
            under = decision_log.in_force(con, change.workload_id, rules, now=now).digest
            if not order.is_policy:
                document = _prove(con, order, rules, context, _statement(change, context, under))
            also(con)
            proof = decision_log.POLICY if order.is_policy else rules.proof
            return append_order(
                con, change, about, now, order.flow_run_id, (proof, under, document)
            )
    except RefusedOrderError as refused:
        raise _refuse(home, change, refused) from None


def append_order(
    con: Connection,
    change: ChampionChange,
    about: str,
    ordered_at: datetime,
    flow_run_id: str,
    proved: tuple[str, str, str],
) -> Link:
    """Append a proved order: ``proved`` is by what, under which rules, and the signed document."""
    proof, rules_digest, document = proved
    prefix = f"to version {change.version}: "  # before the person's words
    event = LogEvent(
        kind=_what(change),
        workload=change.workload_id,
        evidence=about,
        flow_run_id=flow_run_id,
        decided_at=ordered_at,
        approver=change.asked_by,
        comment=f"{prefix}{change.reason or decision_log.UNEXPLAINED}",
        body=decision_log.link_body(
            proof, rules_digest, question=_question(change), prefix=prefix, **change.fields
        ),
        document=document,
    )
    return decision_log.append_event(con, event)


def _put_in_force(
    home: Installation, change: ChampionChange, wait_seconds: float
) -> tuple[ApprovalRules, str]:
    with warehouse.connect(home.tables, wait_seconds) as con:
        rules = in_force(home, con, change.workload_id)
        with warehouse.transaction(con):
            under = decision_log.in_force(con, change.workload_id, rules, now=datetime.now(UTC))
    return rules, under.digest


def _context(home: Installation, change: ChampionChange, rules: ApprovalRules) -> ProofContext:
    name, key = change.workload_id, change.evidence_digest
    if rules.proof != "signature":  # else nobody reads the files
        return ProofContext(_secret(home, name, rules, change.asked_by), key)
    whole = evidence_folder.whole_digest(home.evidence / name / key)
    return ProofContext(None, whole, folder_digest(home.adapters / name / change.adapter_key))


def _statement(change: ChampionChange, context: ProofContext, rules_digest: str) -> Statement:
    return Statement(
        workload=change.workload_id,
        evidence=context.evidence,
        adapter=context.adapter,
        rules=rules_digest,
        question=_question(change),
        decision=_what(change),
        approver=change.asked_by,
        reason="",
        comment=statement.digest(change.reason),
        blame=statement.digest(""),
        at="",
    )


def _prove(
    con: Connection,
    order: Order,
    rules: ApprovalRules,
    context: ProofContext,
    expected: Statement,
) -> str:
    """Return the signed document, if there has to be one, or raise ``RefusedOrderError``."""
    now, objection, document = datetime.now(UTC), None, ""
    if not order.by.strip():
        objection = "unnamed"
    elif rules.people and rules.find(order.by) is None:
        objection = "unlisted"
    elif rules.proof == "code":
        objection = record_answer.check_code(con, order.by, order.code, context.secret, now=now)
    elif rules.proof == "signature":
        signed = record_answer.check_signature(order.signature, expected, rules, now=now)
        if not isinstance(signed, Signed):
            objection = signed
        elif statement.read(signed.line).signed_at < now - LATE:
            objection = "signature_late"
        elif signed.line in _signed_lines(con, expected.workload):
            objection = "signature_used"
        else:
            document = signed.document
    if objection is not None:
        raise RefusedOrderError(objection, expected)
    return document


def _signed_lines(con: Connection, workload: str) -> set[str]:
    """Return the statements that were used: one signature can be written down in many ways."""
    documents = (link.document for link in decision_log.links(con, workload_id=workload))
    return {signed.line for text in documents if text and (signed := statement.split(text))}


def _refuse(
    home: Installation, change: ChampionChange, refused: RefusedOrderError
) -> RollbackError:
    """Record that an order was refused; return the error that explains it."""
    event = LogEvent(
        kind="refused",
        workload=change.workload_id,
        evidence=change.evidence_digest,
        flow_run_id="",
        decided_at=datetime.now(UTC),
        approver=change.asked_by,
        comment=f"{_what(change)} to version {change.version}",
        attempt=0,
        reason=refused.objection,
    )
    with warehouse.connect(home.tables) as con, warehouse.transaction(con):
        decision_log.append_event(con, event)
    is_missing = refused.objection == "signature_missing"
    line = f"\n{statement.command(refused.expected)}" if is_missing else ""
    return RollbackError(
        f"{_doing(change)} {change.workload_id} to version {change.version}: "
        f"{chain.refusal_sentence(refused.objection)}{line}"
    )


def _question(change: ChampionChange) -> str:
    return f"{_what(change)} from {change.champion_before or 'none'} to {change.version}"


def _what(change: ChampionChange) -> Literal["rollback", "canary"]:
    return "rollback" if change.kind == "rollback" else "canary"


def _doing(change: ChampionChange) -> str:
    return "rolling back" if change.kind == "rollback" else "sending the canary on of"


def _secret(home: Installation, workload: str, rules: ApprovalRules, name: str) -> str | None:
    if rules.proof != "code" or rules.find(name) is None:
        return None
    with suppress(UnreadableRulesError):
        approving = home.approving(workload)
        listed = approving.find(name) if approving else None
        return home.secret(listed or Approver(name=name))
    return None
