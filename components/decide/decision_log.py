"""The append-only log of decisions in the warehouse, and its export for auditors."""

import json
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from components.decide import approvers, chain, ssh_signatures, statement, validity
from components.decide.approvers import OPEN, ApprovalRules
from components.decide.chain import DOCUMENT, FIELDS, GENESIS, Head, Kind, Link
from components.store import manifest, warehouse
from components.store.ledger import Decision
from components.store.warehouse import Connection

SALT_BYTES = 16


@dataclass(frozen=True, slots=True)
class LogEvent:
    """An event to record: a decision, a refused answer, an expiry, a seal, a look.

    ``body`` is what a seal or a look commits to; ``evidence`` is then its policy. ``blame`` is as
    typed; ``reason`` is a code, or empty. ``document`` is stored with people's texts, so that it
    can be erased.
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


def append_event(con: Connection, event: LogEvent) -> Link:
    """Append a link to the chain; call it within a transaction, since it also moves the head."""
    last = read_head(con)
    names = (*FIELDS, DOCUMENT) if event.document else FIELDS
    salts = {name: secrets.token_hex(SALT_BYTES) for name in names}
    texts = {name: warehouse.storable(con, str(getattr(event, name))) for name in names}
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
    erasable = {*FIELDS, DOCUMENT, *(f"{name}_salt" for name in (*FIELDS, DOCUMENT))}
    row = {name: value for name, value in asdict(link).items() if name not in erasable}
    words = [
        {"sequence": link.sequence, "field": name, "salt": salts[name], "text": texts[name]}
        for name in names
    ]
    warehouse.insert(con, "raw.decision_chain", [row])
    warehouse.insert(con, "raw.decision_words", words)
    con.execute("delete from raw.decision_head")
    head = {"sequence": link.sequence, "digest": link.digest}
    warehouse.insert(con, "raw.decision_head", [head])
    return link


def links(
    con: Connection,
    *,
    workload_id: str | None = None,
    evidence: str | None = None,
    flow_run_id: str | None = None,
) -> list[Link]:
    """Read the links that match all that is not ``None``, in the order of the chain."""
    matching = {"workload_id": workload_id, "evidence": evidence, "flow_run_id": flow_run_id}
    return warehouse.records(con, "marts/decisions", Link, **matching)


def approved_at(con: Connection, evidence: str) -> datetime | None:
    """Return the time of the last approval of an evidence, if any."""
    about = links(con, evidence=evidence)
    return max((link.decided_at for link in about if link.kind == "approve"), default=None)


def read_head(con: Connection) -> Head | None:
    """Read the head stored next to the chain; ``None`` before the first link."""
    rows = con.execute("select sequence, digest from raw.decision_head").fetchall()
    return Head(*rows[0]) if rows else None


def decision_on(con: Connection, evidence: str, rules: ApprovalRules = OPEN) -> Decision | None:
    """Return the decision on an evidence that meets the rules; ``None`` while it is open."""
    about = links(con, evidence=evidence)
    return validity.current_decision(about, rules, starters(con, evidence))


def in_force(con: Connection, workload: str, rules: ApprovalRules, *, now: datetime) -> Link:
    """Return the link of the current rules, appended if they have changed.

    Call it within a transaction.
    """
    text = approvers.write_rules(rules)
    known = [link for link in links(con, workload_id=workload) if link.kind == "rules"]
    if known and known[-1].document == text:
        return known[-1]
    return append_event(con, LogEvent("rules", workload, "", "", now, attempt=0, document=text))


def record_starter(con: Connection, evidence: str, run_id: str, name: str, now: datetime) -> None:
    """Record who started an evidence's turn by hand; idempotent."""
    con.execute(
        "insert or ignore into raw.starters values ($evidence, $run_id, $name, $now)",
        {"evidence": evidence, "run_id": run_id, "name": name, "now": now},
    )


def starters(con: Connection, evidence: str) -> list[str]:
    """List the people who started an evidence's turns by hand."""
    rows = con.execute(
        "select started_by from raw.starters where evidence_digest = $evidence order by started_at",
        {"evidence": evidence},
    ).fetchall()
    return [str(name) for (name,) in rows]


VERIFY = r"""
count=0
for file in *.json; do
  at=${file#*@} at=${at%.json}
  who=$(ssh-keygen -Y find-principals -f allowed_signers -O verify-time="$at" -s "$file.sig")
  case $(cat "$file") in *"\"approver\":\"$who\""*) ;; *) echo "not by $who: $file"; exit 1 ;; esac
  ssh-keygen -Y verify -n flywheel -f allowed_signers -I "$who" -O verify-time="$at" \
    -s "$file.sig" < "$file" || exit 1
  count=$((count + 1))
done
echo "verified $count"
"""
"""A shell script that verifies a folder of signed statements with OpenSSH and ``cat`` only."""

README = f"""\
# Signed decisions

`NUMBER@TIME.json` is what a person signed, `.json.sig` the signature, and `allowed_signers` says
which key is whose. To verify them without Flywheel, run this in a shell in this folder:

```sh{VERIFY}```

It ends with `verified` and the number of decisions, or with the first that was not signed as it is
here. Compare the keys in `allowed_signers` with those that the people themselves give you, and the
number with the decisions that the chain names (the file beside this folder).
"""


def export_links(path: Path, links: Iterable[Link]) -> int:
    """Write one line per link; return their number."""
    lines = [_link_line(link) for link in links]
    path.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_atomically(path, "".join(lines))
    return len(lines)


def signed_folder(path: Path) -> Path:
    """Return the folder of an export's signed statements."""
    return path.with_name(f"{path.name}.signed")


def export_signed(path: Path, links: Iterable[Link]) -> int:
    """Write each signed statement with its signature, and the keys; return how many.

    ``NUMBER@TIME.json`` is the statement, ``.json.sig`` its signature; ``allowed_signers`` has
    the keys of all rules in the chain, and ``README.md`` shows how OpenSSH verifies them.
    """
    folder, count = signed_folder(path), 0
    lines: dict[str, None] = {}
    for link in links:
        if link.document is None:
            continue
        if link.kind == "rules":
            people = approvers.read_rules(link.document).people
            lines |= {
                ssh_signatures.write_line(p.name, key): None for p in people for key in p.signers
            }
        elif signed := statement.split(link.document):
            folder.mkdir(parents=True, exist_ok=True)
            at = statement.read(signed.line).signed_at
            file = folder / f"{link.sequence:07}@{at:%Y%m%d%H%M%SZ}.json"
            manifest.write_atomically(file, signed.line)
            manifest.write_atomically(file.with_name(f"{file.name}.sig"), signed.armored)
            count += 1
    if count:
        manifest.write_atomically(folder / "allowed_signers", "".join(lines))
        manifest.write_atomically(folder / "README.md", README)
    return count


def _link_line(link: Link) -> str:
    words = {
        name: None
        if getattr(link, name) is None
        else {"salt": getattr(link, f"{name}_salt"), "text": getattr(link, name)}
        for name in link.texts
    }
    numbered = {"sequence": link.sequence, "digest": link.digest}
    record = {**numbered, "content": chain.content(link), "words": words}
    return json.dumps(record, ensure_ascii=False) + "\n"


def first_differing_line(path: Path, links: Iterable[Link]) -> int | None:
    """Compare the chain with an earlier export; return the number of the first differing line.

    A completely rewritten chain is consistent in itself, but differs from an earlier export.
    """
    now = {link.sequence: link.digest for link in links}
    # Not ``splitlines``, which also parts a text at the line breaks that Unicode has besides.
    texts = path.read_text().removesuffix("\n").split("\n")
    lines = enumerate(map(json.loads, filter(None, texts)), 1)
    return next((n for n, line in lines if now.get(line["sequence"]) != line["digest"]), None)
