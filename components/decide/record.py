"""Read and write the chain of decisions in the warehouse. It is only ever appended to."""

import secrets
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from components import warehouse
from components.decide import chain, standing
from components.decide import rules as all_rules
from components.decide.chain import DOCUMENT, FIELDS, GENESIS, Head, Kind, Link
from components.decide.rules import OPEN, Rules
from components.ledger import Decision
from components.warehouse import Connection

SALT_BYTES = 16


@dataclass(frozen=True, slots=True)
class Event:
    """Something to record: a word on an evidence, an answer refused, a lapse, a seal, a look.

    ``body`` is what a seal or a look commits to, and ``evidence`` then its policy. ``blame`` is
    what the person typed; ``reason`` is a word of a short list, or empty. ``document`` is kept like
    what people wrote, so that it can be erased.
    """

    kind: Kind
    workload: str
    evidence: str
    flow_run_id: str
    decided_at: datetime
    approver: str = ""
    comment: str = ""
    attempt: int = 1
    reason: str = ""
    blame: str = ""
    body: str = ""
    document: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """Whose links to read; all where nothing is said."""

    workload_id: str | None = None
    evidence: str | None = None
    flow_run_id: str | None = None


EVERYTHING = Asked()


def append(con: Connection, event: Event) -> Link:
    """Add a link to the chain; call it within a transaction, so that the head goes with it."""
    last = head(con)
    names = (*FIELDS, DOCUMENT) if event.document else FIELDS
    salts = {name: secrets.token_hex(SALT_BYTES) for name in names}
    texts = {name: str(getattr(event, name)) for name in names}
    seals = {f"{name}_digest": chain.seal(salts[name], texts[name]) for name in names}
    link = Link(
        sequence=last.sequence + 1 if last else 1,
        kind=event.kind,
        workload_id=event.workload,
        evidence_digest=event.evidence,
        flow_run_id=event.flow_run_id,
        attempt=event.attempt,
        reason=event.reason,
        decided_at=event.decided_at,
        **seals,
        before=last.digest if last else GENESIS,
        digest="",
        **texts,
        **{f"{name}_salt": salt for name, salt in salts.items()},
        body=event.body,
    )
    link = replace(link, digest=chain.digest(link))
    row = asdict(link)
    words = [
        {"sequence": link.sequence, "field": name, "salt": salts[name], "text": texts[name]}
        for name in names
    ]
    erasable = {*FIELDS, DOCUMENT}
    kept = {name: row[name] for name in row if name not in erasable and "_salt" not in name}
    warehouse.insert(con, "raw.decision_chain", [kept])
    warehouse.insert(con, "raw.decision_words", words)
    con.execute("delete from raw.decision_head")
    new_head: warehouse.Row = {"sequence": link.sequence, "digest": link.digest}
    warehouse.insert(con, "raw.decision_head", [new_head])
    return link


def links(con: Connection, asked: Asked = EVERYTHING) -> list[Link]:
    """Read links in the order of the chain."""
    return list(warehouse.read(con, "marts/decisions", Link, **asdict(asked)))


def approved_at(con: Connection, evidence: str) -> datetime | None:
    """Tell when the last approval of an evidence came; ``None`` if there is none."""
    found = links(con, Asked(evidence=evidence))
    return max((link.decided_at for link in found if link.kind == "approve"), default=None)


def head(con: Connection) -> Head | None:
    """Read the last link as it is kept beside the chain; ``None`` before there is any."""
    found = con.execute("select sequence, digest from raw.decision_head").fetchall()
    return Head(*found[0]) if found else None


def decision_on(con: Connection, evidence: str, rules: Rules = OPEN) -> Decision | None:
    """Read what was decided on an evidence; ``None`` while nobody has, or too few.

    Args:
        con: The warehouse.
        evidence: Its digest.
        rules: Those of now: what does not meet them does not count.
    """
    asked = links(con, Asked(evidence=evidence))
    return standing.decision(asked, rules, starters(con, evidence))


def in_force(con: Connection, workload: str, rules: Rules, *, now: datetime) -> Link:
    """Find the link of the chain that has the rules, or add it, if others were in force before.

    Call it within a transaction.
    """
    text = all_rules.write(rules)
    known = [link for link in links(con, Asked(workload_id=workload)) if link.kind == "rules"]
    if known and known[-1].document == text:
        return known[-1]
    return append(con, Event("rules", workload, "", "", now, attempt=0, document=text))


def enter_starter(con: Connection, evidence: str, run_id: str, name: str, now: datetime) -> None:
    """Note who started a turn by hand that an evidence came from; safe to repeat."""
    con.execute(
        "insert or ignore into raw.starters values ($evidence, $run_id, $name, $now)",
        {"evidence": evidence, "run_id": run_id, "name": name, "now": now},
    )


def starters(con: Connection, evidence: str) -> list[str]:
    """List who started by hand the turns that an evidence came from."""
    found = con.execute(
        "select started_by from raw.starters where evidence_digest = $evidence order by started_at",
        {"evidence": evidence},
    ).fetchall()
    return [str(name) for (name,) in found]


def since(con: Connection) -> datetime:
    """Tell since when this home has rules in its chain."""
    ((found,),) = con.execute("select since from raw.signing").fetchall()
    return found
