"""Go back to an older champion, and settle changes that were interrupted.

It loads neither Prefect nor what judges: a bad champion has to go at once.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from components import warehouse
from components.decide import chain, hearing, proofs, reasons, record, statement
from components.decide import rules as all_rules
from components.decide.approvers import Approver
from components.decide.chain import Link
from components.decide.record import Asked, Event
from components.decide.rules import Rules
from components.decide.statement import Statement
from components.folder_digest import folder_digest
from components.gate import evidence
from components.opening import WarehouseBusyError
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
    warehouse is held from the first line to the last, so it is waited for only once; where it is
    held by others, and names need no proof, the aliases move before that (``orders``).

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
            with warehouse.connect(home.warehouse, AT_ONCE_SECONDS) as con:
                return _roll_back(home, con, workload, asked, flow_run_id)
        except WarehouseBusyError:
            known = approvals_file.read(home.locks, workload)
        if known is None or not _needs_no_proof(home, workload, known):
            with warehouse.connect(home.warehouse) as con:
                return _roll_back(home, con, workload, asked, flow_run_id)
        version = _ordered(home, workload, asked, flow_run_id, known.approved)
        say(
            f"{workload}: version {version} is champion again; the warehouse is held by others, "
            "and this is written down when they let it go"
        )
        with warehouse.connect(home.warehouse) as con:
            written = settle(home, Journal(lambda: nullcontext(con), _now), workload)
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


def form(
    home: Settings, workload: str, to: str | None, *, by: str, reason: str
) -> tuple[Statement, Rules]:
    """Write what has to be signed for a rollback, but for its time, with the rules in force."""
    asked = _Asked(to, by, reason)
    with warehouse.connect(home.warehouse) as con:
        rules = rules_of(home, con, workload)
        with warehouse.transaction(con):
            under = record.in_force(con, workload, rules, now=_now())
        change = _plan(workload, journal.changes(con, workload), asked, approved(con, workload))
    return _form(home, change, rules, under.digest), rules


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


def _prove(home: Settings, con: Connection, change: Change, asked: _Asked) -> _Proved:
    """Hold the order against the rules; an order that is refused is on record, too."""
    workload, now = change.workload_id, _now()
    rules = rules_of(home, con, workload)
    with warehouse.transaction(con):
        under = record.in_force(con, workload, rules, now=now)
        expected = _form(home, change, rules, under.digest)
        secret = _secret(home, workload, rules, asked.by)
        order = hearing.Order(asked.by, asked.code, asked.signature, secret)
        objection = None
        if not asked.is_policy:
            objection = hearing.objection_to_order(con, rules, order, expected, now=now)
        if objection is not None:
            said = f"rollback to version {change.version}"
            event = Event("refused", workload, change.evidence_digest, "", now, asked.by, said)
            record.append(con, replace(event, attempt=0, reason=objection))
    if objection is not None:
        line = statement.command(expected) if objection == "signature_missing" else ""
        raise RollbackError(
            f"rolling back {workload} to version {change.version}: {reasons.refusal(objection)}"
            + (f"\n{line}" if line else "")
        )
    signed = statement.split(asked.signature) if rules.proof == "signature" else None
    kind = proofs.POLICY if asked.is_policy else rules.proof
    return _Proved(_body(change, kind, under.digest), signed.document if signed else "")


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


def _form(home: Settings, change: Change, rules: Rules, rules_digest: str) -> Statement:
    name, key = change.workload_id, change.evidence_digest
    whole, adapter = key, ""
    if rules.proof == "signature":  # else nobody reads them
        whole = evidence.whole_digest(home.evidence / name / key)
        adapter = folder_digest(home.adapters / name / change.adapter_key)
    return Statement(
        workload=name,
        evidence=whole,
        adapter=adapter,
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
    home: Settings, con: Connection, workload: str, asked: _Asked, flow_run_id: str
) -> Entry:
    held = Journal(lambda: nullcontext(con), _now)
    for settled in settle(home, held, workload):
        meant = settled.change.kind == "rollback" and asked.to in (None, settled.change.version)
        if meant and settled.step == "done":
            return settled
    history = journal.changes(con, workload)
    change = _plan(workload, history, asked, approved(con, workload))
    proved = _prove(home, con, change, asked)
    entry = _carry_out(held, con, Order(change, _now(), flow_run_id), proved)
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


def _carry_out(held: Journal, con: Connection, order: Order, proved: _Proved) -> Entry:
    change = order.change
    entry = crowning.roll_back(held, change, lambda con: _record(con, order, proved))
    if (head := record.head(con)) and change.champion_before:
        anchor = {registry.LINK_TAG: head.anchor}
        registry.tag(change.workload_id, change.champion_before, anchor)
    return entry


def settle(home: Settings, held: Journal, workload: str) -> list[Entry]:
    """End what was interrupted of a workload, and write down a rollback that was only carried out.

    The caller holds the workload's lock.
    """
    with held.open() as con:
        rules = rules_of(home, con, workload)
        said_yes = {one.evidence_digest for one in record.links(con) if _is_approval(one, workload)}
        unsettled = {one.change.evidence_digest for one in journal.unfinished(con, workload)}
        decided = {one: record.decision_on(con, one, rules) for one in unsettled}

    def is_approved(change: Change) -> bool:
        if change.kind == "rollback":  # it leads to what was approved, by the rules of then
            return change.evidence_digest in said_yes
        found = decided.get(change.evidence_digest)
        return found is not None and found.decision == "approve"

    settled = crowning.settle(held, workload, is_approved)
    order = orders.read(home.locks, workload)
    if order is None:
        return settled
    with held.open() as con:
        history = journal.changes(con, workload)
        entry = next((one for one in history if _is_of(one, order)), None)
        with warehouse.transaction(con):
            under = record.in_force(con, workload, rules_of(home, con, workload), now=held.now())
        known, change = approved(con, workload), order.change
        proved = _Proved(_body(change, "name", under.digest))
        if entry is None and _is_tainted(order):  # an erasure has said who is champion since
            with warehouse.transaction(con):
                _record(con, order, proved)
        elif entry is None and (change.version, change.evidence_digest) not in known:
            aliases.put(workload, aliases.CHAMPION, change.champion_before)
        elif entry is None:
            written = Journal(lambda: nullcontext(con), held.now)
            entry = _carry_out(written, con, _completed(order, history, known), proved)
    orders.drop(home.locks, workload)
    return [*settled, *([entry] if entry else [])]


def _is_tainted(order: Order) -> bool:
    change = order.change
    assert change.version is not None  # a rollback's is registered
    return bool(registry.numbered(change.workload_id, change.version).tainted)


def _is_of(entry: Entry, order: Order) -> bool:
    """Tell whether an entry of the journal is an order's: a kill was before the file's end."""
    change, wanted = entry.change, order.change
    is_same = (change.version, change.champion_before) == (wanted.version, wanted.champion_before)
    return change.kind == "rollback" and is_same and entry.noted_at >= order.given_at


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


def _record(con: Connection, order: Order, proved: _Proved) -> None:
    """Add the order to the chain, about the evidence on which the champion was approved."""
    change = order.change
    name, left = change.workload_id, change.champion_before
    version = registry.numbered(name, left) if left else None
    event = Event(
        kind="rollback",
        workload=name,
        evidence=version.evidence if version else change.evidence_digest,
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
                settled += settle(home, books(home), name)
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


def books(home: Settings) -> Journal:
    """Give the journal of a home, which holds the warehouse for a line only."""
    return Journal(lambda: warehouse.connect(home.warehouse), _now)


def _now() -> datetime:
    return datetime.now(UTC)
