"""The rules of a rollback: who may order it, what proves that, and where it may lead.

It loads neither Prefect nor what judges: a bad champion has to go at once.
"""

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from components import warehouse
from components.decide import chain, hearing, proofs, reasons, record, statement
from components.decide import rules as all_rules
from components.decide.approvers import Approver, Approving
from components.decide.reasons import Refused
from components.decide.record import Asked, Event
from components.decide.rules import Rules
from components.decide.statement import Statement
from components.folder_digest import folder_digest
from components.gate import evidence
from components.register import journal, rollback
from components.register.journal import Change
from components.register.rollback import RollbackError, Succession
from components.warehouse import Connection
from flows import approvals_file, secrets, workload_files
from flows.approvals_file import Known
from flows.secrets import SecretError
from flows.settings import Settings
from flows.workload_files import WorkloadFileError


@dataclass(frozen=True, slots=True)
class Order:
    """A rollback as it was ordered.

    ``to`` is a version's number, ``None`` for the one that is ``previous``. ``code`` and
    ``signature`` prove ``by`` where the rules require that. ``is_policy``: the workload's own file
    orders it (``on_regression``), and nobody has to prove it.
    """

    workload: str
    to: str | None
    by: str
    reason: str
    code: str = ""
    signature: str = ""
    is_policy: bool = False
    flow_run_id: str = ""

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
    """What an order's proof is checked against, besides the change: digests and the code's secret.

    They are computed from files, before the warehouse is opened.
    """

    evidence: str
    adapter: str
    secret: str | None


class RefusedOrderError(Exception):
    """The order is not proved; it undoes the transaction that would have written the order."""

    def __init__(self, objection: Refused, expected: Statement) -> None:
        super().__init__(objection)
        self.objection: Refused = objection
        self.expected = expected


class _UnreadableFileError(Exception):
    """The workload's file can't be read, or has mistakes."""


def is_signed(home: Settings, workload: str) -> bool:
    """Return whether a workload's rules may require a signature; ``form`` reads whether they do."""
    try:
        approving = _approving(home, workload)
    except _UnreadableFileError:
        return True
    if approving is None:
        known = approvals_file.read(home.locks, workload)
        return known is not None and not known.is_open
    return approving.proof == "signature"


def needs_no_proof(home: Settings, workload: str, known: Known) -> bool:
    """Return whether anybody may order a rollback, by the file and by the last rules in force."""
    try:
        approving = _approving(home, workload)
    except _UnreadableFileError:
        return False
    return known.is_open and (approving is None or approving.rules() == all_rules.OPEN)


def in_force(home: Settings, con: Connection, workload: str) -> Rules:
    """Return a workload's rules: its file's, or the chain's last where that can't be read."""
    with suppress(_UnreadableFileError):  # a bad champion has to go though the file has a mistake
        if (approving := _approving(home, workload)) is not None:
            return approving.rules()
    links = record.links(con, Asked(workload_id=workload))
    known = [link.document for link in links if link.kind == "rules" and link.document is not None]
    return all_rules.read(known[-1]) if known else all_rules.OPEN


def champions(con: Connection, workload: str) -> Succession:
    """Read a workload's champions, and which of them became champion on approved evidence.

    Both come from the warehouse: the journal names the versions, the chain of decisions, which is
    recomputed here, the evidence. No tag in MLflow is read.

    Raises:
        RollbackError: The chain does not hold.
    """
    links = record.links(con)
    if broken := chain.first_broken(links, record.head(con)):
        raise RollbackError(
            f"reading what was approved of {workload}: decision {broken.sequence} {broken.said}; "
            "`flywheel audit --verify` says more"
        )
    approvals = [link for link in links if (link.kind, link.workload_id) == ("approve", workload)]
    evidence_digests = {link.evidence_digest for link in approvals}
    return rollback.succession(journal.changes(con, workload), evidence_digests)


def signing(home: Settings, change: Change, rules: Rules) -> Signing:
    """Compute what the proof of an order is checked against, from the home's files."""
    name, key = change.workload_id, change.evidence_digest
    whole, adapter = key, ""
    if rules.proof == "signature":  # else nobody reads them
        whole = evidence.whole_digest(home.evidence / name / key)
        adapter = folder_digest(home.adapters / name / change.adapter_key)
    return Signing(whole, adapter, _secret(home, name, rules, change.asked_by))


def statement_of(change: Change, signing: Signing, rules_digest: str) -> Statement:
    """Write what has to be signed for a rollback, but for its time."""
    return Statement(
        workload=change.workload_id,
        evidence=signing.evidence,
        adapter=signing.adapter,
        rules=rules_digest,
        question=_question(change),
        decision="rollback",
        approver=change.asked_by,
        reason="",
        comment=statement.digest(change.reason),
        blame=statement.digest(""),
        at="",
    )


def prove(con: Connection, change: Change, order: Order, rules: Rules, signing: Signing) -> Proved:
    """Check an order against the rules, in the transaction that writes it.

    Raises:
        RefusedOrderError: It is not proved.
    """
    now = datetime.now(UTC)
    under = record.in_force(con, change.workload_id, rules, now=now)
    expected = statement_of(change, signing, under.digest)
    if order.is_policy:
        return Proved(body(change, proofs.POLICY, under.digest))
    by = hearing.Order(order.by, order.code, order.signature, signing.secret)
    objection = hearing.objection_to_order(con, rules, by, expected, now=now)
    if objection is not None:
        raise RefusedOrderError(objection, expected)
    signed = statement.split(order.signature) if rules.proof == "signature" else None
    return Proved(body(change, rules.proof, under.digest), signed.document if signed else "")


def body(change: Change, kind: str, rules_digest: str) -> str:
    """Write what the link of a rollback commits to."""
    return proofs.body(
        kind,
        rules_digest,
        evidence=change.evidence_digest,
        question=_question(change),
        prefix=f"to version {change.version}: ",
    )


def refuse(home: Settings, change: Change, refused: RefusedOrderError) -> RollbackError:
    """Record that an order was refused; return the error that explains it."""
    event = Event(
        kind="refused",
        workload=change.workload_id,
        evidence=change.evidence_digest,
        flow_run_id="",
        decided_at=datetime.now(UTC),
        approver=change.asked_by,
        comment=f"rollback to version {change.version}",
        attempt=0,
        reason=refused.objection,
    )
    with warehouse.connect(home.warehouse) as con, warehouse.transaction(con):
        record.append(con, event)
    is_missing = refused.objection == "signature_missing"
    line = f"\n{statement.command(refused.expected)}" if is_missing else ""
    return RollbackError(
        f"rolling back {change.workload_id} to version {change.version}: "
        f"{reasons.refusal(refused.objection)}{line}"
    )


def _question(change: Change) -> str:
    return f"rollback from {change.champion_before or 'none'} to {change.version}"


def _secret(home: Settings, workload: str, rules: Rules, name: str) -> str | None:
    """Find the secret of a person's codes; ``None`` for one that can't be used."""
    if rules.proof != "code" or rules.find(name) is None:
        return None
    try:
        approving = _approving(home, workload)
        listed = approving.find(name) if approving else None
        return secrets.find(home, listed or Approver(name=name))
    except (SecretError, _UnreadableFileError):
        return None


def _approving(home: Settings, workload: str) -> Approving | None:
    """Read who may decide from the workload's file; ``None`` if this home has no such file."""
    from flows import config as configs  # noqa: PLC0415 - it loads all that a turn needs

    try:
        file = workload_files.find(home, workload)
        return configs.read(file).approve if file else None
    except (configs.ConfigError, WorkloadFileError) as error:
        raise _UnreadableFileError from error
