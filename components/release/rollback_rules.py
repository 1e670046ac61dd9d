"""The rules of rollbacks, and how the order of one is proved."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from components.decide import approvers as all_rules
from components.decide import chain, decision_log, record_answer, statement, validity
from components.decide.approvers import ApprovalRules, Approver
from components.decide.chain import Refused
from components.decide.decision_log import LogEvent
from components.decide.statement import Statement
from components.gate import evidence_folder
from components.release import champion_files
from components.release.champion_files import Installation, KnownChampions, UnreadableRulesError
from components.release.release_state import ChampionChange, RollbackError
from components.store import warehouse
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


@dataclass(frozen=True, slots=True)
class Proved:
    """What the chain keeps of the proof of an order."""

    body: str
    document: str = ""


@dataclass(frozen=True, slots=True)
class Signing:
    """What an order's proof is checked against: digests of files, and the code's secret."""

    evidence: str
    adapter: str
    secret: str | None


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
        known = champion_files.read_known(home.locks, workload)
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


def signing(home: Installation, change: ChampionChange, rules: ApprovalRules) -> Signing:
    """Compute what the proof of an order is checked against, from the home's files."""
    name, key = change.workload_id, change.evidence_digest
    whole, adapter = key, ""
    if rules.proof == "signature":  # else nobody reads them
        whole = evidence_folder.whole_digest(home.evidence / name / key)
        adapter = folder_digest(home.adapters / name / change.adapter_key)
    return Signing(whole, adapter, _secret(home, name, rules, change.asked_by))


def statement_of(change: ChampionChange, signing: Signing, rules_digest: str) -> Statement:
    """Write what has to be signed for a rollback, or to send a canary on, but for its time."""
    return Statement(
        workload=change.workload_id,
        evidence=signing.evidence,
        adapter=signing.adapter,
        rules=rules_digest,
        question=_question(change),
        decision=_what(change),
        approver=change.asked_by,
        reason="",
        comment=statement.digest(change.reason),
        blame=statement.digest(""),
        at="",
    )


def prove(
    con: Connection, change: ChampionChange, order: Order, rules: ApprovalRules, signing: Signing
) -> Proved:
    """Check an order in the transaction that writes it, or raise ``RefusedOrderError``."""
    now = datetime.now(UTC)
    under = decision_log.in_force(con, change.workload_id, rules, now=now)
    expected = statement_of(change, signing, under.digest)
    if order.is_policy:
        return Proved(body(change, validity.POLICY, under.digest))
    by = record_answer.RollbackRequest(order.by, order.code, order.signature, signing.secret)
    objection = record_answer.objection_to_order(con, rules, by, expected, now=now)
    if objection is not None:
        raise RefusedOrderError(objection, expected)
    signed = statement.split(order.signature) if rules.proof == "signature" else None
    return Proved(body(change, rules.proof, under.digest), signed.document if signed else "")


def body(change: ChampionChange, kind: str, rules_digest: str) -> str:
    """Write what the link of a rollback, or of a canary that goes on, commits to."""
    question = _question(change)
    return validity.link_body(
        kind, rules_digest, question=question, prefix=prefix(change), **change.fields
    )


def prefix(change: ChampionChange) -> str:
    """Return what stands before the person's words in a link's comment."""
    return f"to version {change.version}: "


def refuse(home: Installation, change: ChampionChange, refused: RefusedOrderError) -> RollbackError:
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


def _what(change: ChampionChange) -> str:
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
