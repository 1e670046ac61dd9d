"""Go back to an older champion, and settle changes that were interrupted.

It loads neither Prefect nor what judges: a bad champion has to go at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from components import warehouse
from components.decide import chain, hearing, proofs, reasons, record, statement
from components.decide import rules as all_rules
from components.decide.approvers import Approver
from components.decide.chain import Link
from components.decide.reasons import Refused
from components.decide.record import Asked, Event
from components.decide.rules import Rules
from components.decide.statement import Statement
from components.folder_digest import folder_digest
from components.gate import evidence
from components.opening import PATIENCE_SECONDS, WarehouseBusyError
from components.register import aliases, crowning, journal, registry, rollback, tracking
from components.register.journal import Change, Entry, Journal
from components.register.rollback import Approved, RollbackError
from components.warehouse import Connection
from flows import approvals_file, orders, secrets, settings, workload_files
from flows.approvals_file import Known
from flows.orders import Order
from flows.secrets import SecretError
from flows.settings import Settings
from flows.workload_files import WorkloadFileError

AT_ONCE_SECONDS = 3.0
"""A rollback waits no longer for the warehouse before it moves the aliases."""


def roll_back(
    home: Settings,
    workload: str,
    to: str | None,
    *,
    by: str,
    reason: str,
    flow_run_id: str = "",
    code: str = "",
    signature: str = "",
    is_policy: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Entry:
    """Make an older champion the champion again; a rollback that was killed is finished instead.

    It is proved as an approval is, and leads only to what the chain of decisions and the journal
    know as approved. The order is a link of the chain, written with the journal's first line. The
    warehouse is held to read and to write a line, never while MLflow is asked; where others hold
    it, and names need no proof, the aliases move before that (``orders``).

    Args:
        home: Where all lies.
        workload: Whose champion.
        to: A version's number; ``None`` for the one that is ``previous``.
        by: Who asks for it.
        reason: Why.
        flow_run_id: The flow run that does it, if one does.
        code: The one-time code of who asks, where the rules want one.
        signature: The signed statement, where they want that; see ``form``.
        is_policy: The workload's own file orders it (``on_regression``); nobody has to prove it.
        say: Told what has been done while the warehouse is waited for.

    Raises:
        RollbackError: There is no version to go back to, not to that one, or nobody proved it.
    """
    asked = _Asked(to, by, reason, code, signature, is_policy)
    with journal.held(home.locks, workload):
        try:
            return _roll_back(home, workload, asked, flow_run_id, AT_ONCE_SECONDS)
        except WarehouseBusyError:
            known = approvals_file.read(home.locks, workload)
        if known is None or not _needs_no_proof(home, workload, known):
            return _roll_back(home, workload, asked, flow_run_id, PATIENCE_SECONDS)
        version = _ordered(home, workload, asked, flow_run_id, known.approved)
        say(
            f"{workload}: version {version} is champion again; the warehouse is held by others, "
            "and this is written down when they let it go"
        )
        written = settle(home, workload)
        if not written:
            raise RollbackError(
                f"rolling back {workload} to version {version}: it has learned from rows that were "
                "erased meanwhile, or nobody has approved it"
            )
        return written[-1]


@dataclass(frozen=True, slots=True)
class _Asked:
    to: str | None
    by: str
    reason: str
    code: str = ""
    signature: str = ""
    is_policy: bool = False


@dataclass(frozen=True, slots=True)
class _Proved:
    """What the chain keeps of what proved an order."""

    body: str
    document: str = ""


@dataclass(frozen=True, slots=True)
class _Signing:
    """What whoever signs an order signs besides the change, and an order has to be held against.

    ``evidence`` and ``adapter`` are whole digests; ``secret`` is that of the person's codes. They
    are of files, and are computed before the warehouse is opened.
    """

    evidence: str
    adapter: str
    secret: str | None


class _RefusedError(Exception):
    """Nobody can be taken to have ordered this; the order's transaction is undone by it."""

    def __init__(self, objection: Refused, expected: Statement) -> None:
        super().__init__(objection)
        self.objection: Refused = objection
        self.expected = expected


def form(
    home: Settings, workload: str, to: str | None, *, by: str, reason: str
) -> tuple[Statement, Rules]:
    """Write what has to be signed for a rollback, but for its time, with the rules in force."""
    asked = _Asked(to, by, reason)
    with warehouse.connect(home.warehouse) as con:
        rules = rules_of(home, con, workload)
        with warehouse.transaction(con):
            under = record.in_force(con, workload, rules, now=_now())
        history, known = journal.changes(con, workload), approved(con, workload)
    change = _plan(workload, history, asked, known)
    return _form(change, _signing(home, change, rules), under.digest), rules


def is_signed(home: Settings, workload: str) -> bool:
    """Tell whether a workload's rules may want a signature; ``form`` says whether they do."""
    from flows import config as configs  # noqa: PLC0415 - it loads all that a turn needs

    try:
        file = workload_files.find(home, workload)
        known = approvals_file.read(home.locks, workload)
        if file is None:
            return known is not None and not known.is_open
        return configs.read(file).approve.proof == "signature"
    except (configs.ConfigError, WorkloadFileError):
        return True


def rules_of(home: Settings, con: Connection, workload: str) -> Rules:
    """Read a workload's rules: of its file, or where that can't be read the last in the chain."""
    from flows import config as configs  # noqa: PLC0415 - it loads all that a turn needs

    try:
        if (file := workload_files.find(home, workload)) is not None:
            return configs.read(file).approve.rules()
    except (configs.ConfigError, WorkloadFileError):
        pass  # a bad champion has to go though the file has a mistake
    links = record.links(con, Asked(workload_id=workload))
    known = [one.document for one in links if one.kind == "rules" and one.document is not None]
    return all_rules.read(known[-1]) if known else all_rules.OPEN


def approved(con: Connection, workload: str) -> Approved:
    """List the versions that became champion on evidence which people approved.

    Both are the warehouse's: the journal says which version it was, the chain of decisions that its
    evidence was approved, which is computed anew here. No tag in MLflow is asked.

    Raises:
        RollbackError: The chain does not hold.
    """
    links = record.links(con)
    if broken := chain.first_broken(links, record.head(con)):
        raise RollbackError(
            f"reading what was approved of {workload}: decision {broken.sequence} {broken.said}; "
            "`flywheel audit --verify` says more"
        )
    found = {link.evidence_digest for link in links if _is_approval(link, workload)}
    return frozenset(pair for pair in journal.promoted(con, workload) if pair[1] in found)


def _is_approval(link: Link, workload: str) -> bool:
    return link.kind == "approve" and link.workload_id == workload


def remember(home: Settings, con: Connection, workload: str) -> None:
    """Keep what was approved where it can be read while others hold the warehouse."""
    rules = rules_of(home, con, workload)
    known = Known(approved(con, workload), is_open=rules == all_rules.OPEN)
    approvals_file.write(home.locks, workload, known)


def _needs_no_proof(home: Settings, workload: str, known: Known) -> bool:
    from flows import config as configs  # noqa: PLC0415 - it loads all that a turn needs

    try:
        file = workload_files.find(home, workload)
        return known.is_open and (
            file is None or configs.read(file).approve.rules() == all_rules.OPEN
        )
    except (configs.ConfigError, WorkloadFileError):
        return False


def _prove(
    con: Connection, change: Change, asked: _Asked, rules: Rules, signing: _Signing
) -> _Proved:
    """Hold the order against the rules, in the transaction that writes it down.

    Raises:
        _RefusedError: Nobody proved it.
    """
    now = _now()
    under = record.in_force(con, change.workload_id, rules, now=now)
    expected = _form(change, signing, under.digest)
    if asked.is_policy:
        return _Proved(_body(change, proofs.POLICY, under.digest))
    order = hearing.Order(asked.by, asked.code, asked.signature, signing.secret)
    objection = hearing.objection_to_order(con, rules, order, expected, now=now)
    if objection is not None:
        raise _RefusedError(objection, expected)
    signed = statement.split(asked.signature) if rules.proof == "signature" else None
    return _Proved(_body(change, rules.proof, under.digest), signed.document if signed else "")


def _refuse(home: Settings, change: Change, asked: _Asked, refused: _RefusedError) -> RollbackError:
    """Put an order that was refused on record, and say why it was."""
    said = f"rollback to version {change.version}"
    event = Event(
        kind="refused",
        workload=change.workload_id,
        evidence=change.evidence_digest,
        flow_run_id="",
        decided_at=_now(),
        approver=asked.by,
        comment=said,
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


def _body(change: Change, kind: str, rules_digest: str) -> str:
    return proofs.body(
        kind,
        rules_digest,
        evidence=change.evidence_digest,
        question=_question(change),
        prefix=f"to version {change.version}: ",
    )


def _question(change: Change) -> str:
    return f"rollback from {change.champion_before or 'none'} to {change.version}"


def _signing(home: Settings, change: Change, rules: Rules) -> _Signing:
    """Compute what an order is held against, where it is."""
    name, key = change.workload_id, change.evidence_digest
    whole, adapter = key, ""
    if rules.proof == "signature":  # else nobody reads them
        whole = evidence.whole_digest(home.evidence / name / key)
        adapter = folder_digest(home.adapters / name / change.adapter_key)
    return _Signing(whole, adapter, _secret(home, name, rules, change.asked_by))


def _form(change: Change, signing: _Signing, rules_digest: str) -> Statement:
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


def _secret(home: Settings, workload: str, rules: Rules, name: str) -> str | None:
    """Find the secret of a person's codes; one that can't be used is none."""
    from flows import config as configs  # noqa: PLC0415 - it loads all that a turn needs

    if rules.proof != "code" or rules.find(name) is None:
        return None
    try:
        file = workload_files.find(home, workload)
        listed = configs.read(file).approve.find(name) if file else None
        return secrets.find(home, listed or Approver(name=name))
    except (SecretError, WorkloadFileError, configs.ConfigError):
        return None


def _ordered(
    home: Settings, workload: str, asked: _Asked, flow_run_id: str, known: Approved
) -> str | None:
    """Move the aliases now; one order at a time waits to be written down."""
    order = orders.read(home.locks, workload)
    if order is None:
        change = _plan(workload, (), asked, known)
        orders.give(home.locks, Order(change, _now(), flow_run_id))
        return change.version
    if asked.to not in (None, order.change.version):
        raise RollbackError(
            f"rolling back {workload} to version {asked.to}: a rollback to version "
            f"{order.change.version} is not written down yet; wait for the warehouse"
        )
    return order.change.version


def _roll_back(
    home: Settings, workload: str, asked: _Asked, flow_run_id: str, wait_seconds: float
) -> Entry:
    """Do all of it; ``wait_seconds`` is how long to wait for the warehouse while nothing moves.

    Raises:
        WarehouseBusyError: Others held it for longer; the champion is as it was.
    """
    for settled in settle(home, workload, wait_seconds):
        meant = settled.change.kind == "rollback" and asked.to in (None, settled.change.version)
        if meant and settled.step == "done":
            return settled
    with warehouse.connect(home.warehouse, wait_seconds) as con:
        history, known = journal.changes(con, workload), approved(con, workload)
        rules = rules_of(home, con, workload)
        with warehouse.transaction(con):  # they stay in force if the order is refused
            record.in_force(con, workload, rules, now=_now())
    change = _plan(workload, history, asked, known)
    signing = _signing(home, change, rules)

    def prove(con: Connection) -> _Proved:
        return _prove(con, change, asked, rules, signing)

    order = Order(change, _now(), flow_run_id)
    try:
        entry = _carry_out(home, order, prove, wait_seconds)
    except _RefusedError as refused:
        raise _refuse(home, change, asked, refused) from None
    with warehouse.connect(home.warehouse) as con:
        remember(home, con, workload)
    return entry


def _plan(workload: str, history: Sequence[Entry], asked: _Asked, known: Approved) -> Change:
    versions, now = registry.versions(workload), aliases.read(workload)
    return rollback.plan(
        workload,
        versions,
        now,
        history,
        asked.to,
        approved=known,
        by=asked.by,
        reason=asked.reason,
    )


def _carry_out(
    home: Settings, order: Order, prove: Callable[[Connection], _Proved], wait_seconds: float
) -> Entry:
    """Write the order and the intention down together, then move the aliases."""
    change, about = order.change, _left_evidence(order.change)
    entry = books(home, wait_seconds).intend(
        change, lambda con: _record(con, order, about, prove(con))
    )
    entry = crowning.finish(books(home), entry)
    if change.champion_before:
        with warehouse.connect(home.warehouse) as con:
            head = record.head(con)
        assert head is not None  # the order is in the chain
        anchor = {registry.LINK_TAG: head.anchor}
        registry.tag(change.workload_id, change.champion_before, anchor)
    return entry


def settle(home: Settings, workload: str, wait_seconds: float = PATIENCE_SECONDS) -> list[Entry]:
    """End what was interrupted of a workload, and write down a rollback that was only carried out.

    The caller holds the workload's lock.

    Raises:
        WarehouseBusyError: Others held the warehouse for longer than ``wait_seconds``; nothing was
            done.
    """
    with warehouse.connect(home.warehouse, wait_seconds) as con:
        interrupted = journal.unfinished(con, workload)
        rules = rules_of(home, con, workload)
        said_yes = {one.evidence_digest for one in record.links(con) if _is_approval(one, workload)}
        unsettled = {one.change.evidence_digest for one in interrupted}
        decided = {one: record.decision_on(con, one, rules) for one in unsettled}

    def is_approved(change: Change) -> bool:
        if change.kind == "rollback":  # it leads to what was approved, by the rules of then
            return change.evidence_digest in said_yes
        found = decided.get(change.evidence_digest)
        return found is not None and found.decision == "approve"

    settled = crowning.settle(books(home), workload, is_approved) if interrupted else []
    order = orders.read(home.locks, workload)
    if order is None:
        return settled
    entry = _written_down(home, order)
    orders.drop(home.locks, workload)
    return [*settled, *([entry] if entry else [])]


def _written_down(home: Settings, order: Order) -> Entry | None:
    """Write a rollback down that was carried out; ``None`` where it does not stand."""
    change = order.change
    workload = change.workload_id
    with warehouse.connect(home.warehouse) as con:
        history, known = journal.changes(con, workload), approved(con, workload)
        is_written = any(_is_of(link, order) for link in record.links(con, Asked(workload)))
    if is_written:  # a kill was between that and the file's end
        return next((one for one in reversed(history) if _is_same(one.change, change)), None)
    about, is_tainted = _left_evidence(change), _is_tainted(order)
    with warehouse.connect(home.warehouse) as con, warehouse.transaction(con):
        under = record.in_force(con, workload, rules_of(home, con, workload), now=_now())
        proved = _Proved(_body(change, "name", under.digest))
        if is_tainted:  # an erasure has said who is champion since
            _record(con, order, about, proved)
    if is_tainted:
        return None
    if (change.version, change.evidence_digest) not in known:
        aliases.put(workload, aliases.CHAMPION, change.champion_before)
        return None
    completed = _completed(order, history, known)
    return _carry_out(home, completed, lambda _: proved, PATIENCE_SECONDS)


def _is_tainted(order: Order) -> bool:
    change = order.change
    assert change.version is not None  # a rollback's is registered
    return bool(registry.numbered(change.workload_id, change.version).tainted)


def _is_of(link: Link, order: Order) -> bool:
    """Tell whether a link is an order's; by the very moment, since a clock may be set back."""
    return link.kind == "rollback" and link.decided_at == order.given_at


def _is_same(change: Change, ordered: Change) -> bool:
    same = (change.version, change.champion_before) == (ordered.version, ordered.champion_before)
    return change.kind == "rollback" and same


def _completed(order: Order, history: Sequence[Entry], known: Approved) -> Order:
    """Say where the next rollback leads, which only the books know."""
    change, versions = order.change, registry.versions(order.change.workload_id)
    (target,) = (one for one in versions if one.number == change.version)
    after = rollback.further(target, versions, history, known, leaving=change.champion_before)
    return replace(order, change=replace(change, previous_after=after))


def anchors() -> dict[str, str]:
    """Read what MLflow's versions and runs say of the chain of decisions, by which one says it."""
    versions = {
        f"version {number} of {name} in MLflow": tags[registry.LINK_TAG]
        for name in registry.names()
        for number, tags in registry.tagged(name).items()
        if registry.LINK_TAG in tags
    }
    return versions | {
        f"run {run_id} in MLflow": head for run_id, head in tracking.anchors().items()
    }


def _left_evidence(change: Change) -> str:
    """Return the evidence on which the champion that is left was approved."""
    if change.champion_before is None:
        return change.evidence_digest
    return registry.numbered(change.workload_id, change.champion_before).evidence


def _record(con: Connection, order: Order, about: str, proved: _Proved) -> None:
    """Add the order to the chain, about the evidence of the champion that is left."""
    change = order.change
    event = Event(
        kind="rollback",
        workload=change.workload_id,
        evidence=about,
        flow_run_id=order.flow_run_id,
        decided_at=order.given_at,
        approver=change.asked_by,
        comment=f"to version {change.version}: {change.reason or proofs.UNEXPLAINED}",
        body=proved.body,
        document=proved.document,
    )
    record.append(con, event)


def rolled_back(workload: str, adapter: str) -> str | None:
    """Say that an adapter was champion and was rolled back; ``None`` if it was not.

    The same adapter is not asked about again, whatever it is measured against: the scores that won
    it a person's approval are what turned out to be wrong.
    """
    with warehouse.connect(settings.load().warehouse) as con:
        entry = journal.rolled_back(con, workload, adapter)
    if entry is None:
        return None
    change = entry.change
    return (
        f"adapter {adapter} was champion as version {change.champion_before} and was rolled back "
        f"by {change.asked_by} ({change.reason or 'no reason given'}); new data makes another "
        f"adapter, and `flywheel rollback {workload} --to {change.champion_before}` brings this "
        "one back"
    )


def reconcile(home: Settings) -> list[Entry]:
    """Finish or undo every change of a champion that was interrupted; give what became of each.

    One that a living process is at is left to it.
    """
    if not home.warehouse.exists():
        return []
    with warehouse.connect(home.warehouse) as con:
        names = {one.change.workload_id for one in journal.unfinished(con)}
    names.update(orders.workloads(home.locks))
    settled: list[Entry] = []
    for name in sorted(names):
        with journal.held(home.locks, name, wait=False) as is_ours:
            if is_ours:
                settled += settle(home, name)
    return settled


def say(entry: Entry) -> str:
    """Say in a line what became of a change."""
    change = entry.change
    ended = {"done": "finished", "undone": "undone"}[entry.step]
    return f"{change.workload_id}: {change.kind} {entry.number} {ended}: {entry.said}"


def say_rollback(entry: Entry) -> str:
    """Say which version answers now, and where the next rollback would lead."""
    change = entry.change
    left = f"version {change.champion_before}" if change.champion_before else "no champion"
    further = (
        f"version {change.previous_after} is before it"
        if change.previous_after
        else "nothing is before it"
    )
    return (
        f"{change.workload_id}: from {left} back to version {change.version}, adapter "
        f"{change.adapter_key}; {further}"
    )


def books(home: Settings, wait_seconds: float = PATIENCE_SECONDS) -> Journal:
    """Return the journal of a home, which holds the warehouse for its lines only."""
    return Journal(lambda: warehouse.connect(home.warehouse, wait_seconds), _now)


def _now() -> datetime:
    return datetime.now(UTC)
