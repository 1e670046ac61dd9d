"""Read and write the chain of decisions in the warehouse. It is only ever appended to."""

import secrets
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from components import warehouse
from components.decide import chain, standing
from components.decide.chain import FIELDS, GENESIS, Head, Kind, Link
from components.ledger import Decision
from components.warehouse import Connection

SALT_BYTES = 16


@dataclass(frozen=True, slots=True)
class Event:
    """Something to record: a word on an evidence, an answer refused, a lapse, a seal, a look.

    ``body`` is what a seal or a look commits to, and ``evidence`` then its policy. ``blame`` is
    what the person typed; ``reason`` is a word of a short list, or empty.
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
    salts = {name: secrets.token_hex(SALT_BYTES) for name in FIELDS}
    texts = {name: str(getattr(event, name)) for name in FIELDS}
    seals = {f"{name}_digest": chain.seal(salts[name], texts[name]) for name in FIELDS}
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
        for name in FIELDS
    ]
    kept = {name: row[name] for name in row if name not in FIELDS and "_salt" not in name}
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


def decision_on(con: Connection, evidence: str, *, wanted: int) -> Decision | None:
    """Read what was decided on an evidence; ``None`` while nobody has, or too few.

    Args:
        con: The warehouse.
        evidence: Its digest.
        wanted: How many different people have to approve.
    """
    return standing.decision(links(con, Asked(evidence=evidence)), wanted=wanted)
