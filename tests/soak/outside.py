"""What a home holds after the soak, seen from outside: by queries of our own, and file by file.

Each look gives a sentence for whatever must not be.
"""

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb

from components.store import warehouse
from tests.soak.person import Person
from tests.support import warehouses

ENDED = {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}
OUTPUTS = ("snapshots", "adapters", "scorecards", "evidence")
PASSING = (".partial", ".tmp", ".wal")
"""Endings of files that are there only while somebody works."""

Rows = list[dict[str, Any]]


def asked(file: Path, sql: str, *values: object) -> Rows:
    """Ask a SQLite database."""
    with closing(sqlite3.connect(file)) as con:
        con.row_factory = sqlite3.Row
        return [dict(row) for row in con.execute(sql, values)]


def kept(home: Path, sql: str, *values: object) -> Rows:
    """Ask the warehouse."""
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as con:
        con.execute("set timezone = 'UTC'")
        found = con.execute(sql, list(values))
        names = [column[0] for column in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def rows(home: Path, people: Sequence[Person]) -> Iterator[str]:
    """See that what was acknowledged, and what was in files, is there once."""
    for one in people:
        for table, column, sent in (
            ("interactions", "payload ->> '$.response.id'", one.sent.interactions),
            ("feedback", "actor_id", one.sent.votes),
        ):
            sql = f"select {column} as name from raw.{table} where workload_id = ?"
            there = Counter(row["name"] for row in kept(home, sql, one.workload))
            wanted = Counter(sent)
            for name in sorted((there | wanted).keys()):
                if there[name] != 1 or wanted[name] != 1:
                    yield f"{one.workload}: {table} {name} is there {there[name]} times"
    for row in kept(home, "select path, reason from raw.quarantine"):
        yield f"quarantined: {row}"


def flow_runs(home: Path) -> Iterator[str]:
    """See that every flow run has ended, with a word where it ended badly, and holds no slot."""
    database = home / "prefect/prefect.db"
    for run in asked(
        database,
        """
        select run.id, run.name, run.state_type, run.state_name, run.auto_scheduled, state.message
        from flow_run as run left join flow_run_state as state on run.state_id = state.id
        """,
    ):
        if run["state_type"] == "SCHEDULED" and run["auto_scheduled"]:
            continue
        said = f"flow run {run['name']} ({run['id']}) is {run['state_name']}"
        if run["state_type"] not in ENDED:
            yield said
        elif run["state_type"] != "COMPLETED" and not run["message"]:
            yield f"{said} without a word"
    for limit in asked(
        database, "select name, active_slots from concurrency_limit_v2 where active_slots > 0"
    ):
        yield f"{limit['active_slots']} slots of {limit['name']} are held by nobody"


def turns(home: Path, people: Sequence[Person]) -> Iterator[str]:
    """See that each turn is in the book of starts, and that each that ended well says how."""
    book = kept(home, "select * from raw.starts")
    runs = {
        row["id"].replace("-", ""): row
        for row in asked(
            home / "prefect/prefect.db",
            """
            select run.id, run.name, run.state_type, run.start_time
            from flow_run as run join flow on run.flow_id = flow.id where flow.name = 'turn'
            """,
        )
    }
    claimed = Counter(_hex(row["flow_run_id"]) for row in book if row["started"])
    for run, times in claimed.items():
        if run not in runs or times > 1:
            yield f"the book of starts has {times} entries with turn {run}"
    noted = {
        _hex(row["key"]) for row in kept(home, "select key from raw.manifests where kind = 'turn'")
    }
    folders = {_hex(one.parent.name) for one in (home / "turns").glob("*/*/manifest.json")}
    for run, row in runs.items():
        ended_well = row["state_type"] == "COMPLETED"
        if ended_well and run not in claimed:
            yield f"turn {run} is in no entry of the book of starts"
        if ended_well and (run not in noted or run not in folders):
            yield f"turn {run} is COMPLETED, and its end is written nowhere"
    for one in people:
        done = [row for row in runs.values() if row["name"].endswith(f" {one.workload}")]
        if sum(row["state_type"] == "COMPLETED" for row in done) < len(one.turns):
            yield f"{one.workload}: fewer turns were completed than the terminal said"


def decisions(home: Path, people: Sequence[Person]) -> Iterator[str]:
    """See that the chain holds, and that it has each decision once."""
    yield from _chain(home)
    words = kept(
        home,
        """
        select chain.workload_id, chain.kind, chain.evidence_digest, words.text as comment
        from raw.decision_chain as chain
        join raw.decision_words as words
            on chain.sequence = words.sequence and words.field = 'comment'
        where chain.kind in ('approve', 'reject')
        """,
    )
    for evidence, times in Counter(row["evidence_digest"] for row in words).items():
        if times > 1:
            yield f"evidence {evidence} was decided {times} times"
    said = Counter((row["comment"], row["kind"]) for row in words)
    for comment, times in said.items():
        if times > 1:
            yield f"the answer {comment} is in the chain {times} times"
    for one in people:
        for comment, decision in one.answers.items():
            if not said[comment, decision]:
                yield f"the terminal said that {comment!r} was taken, and it is not in the chain"


def champions(home: Path, people: Sequence[Person]) -> Iterator[str]:
    """See that MLflow's aliases are where the chain left them, and each version is there once."""
    database = home / "mlflow/mlflow.db"
    chain = kept(
        home,
        """
        select workload_id, kind, evidence_digest, body from raw.decision_chain
        where kind in ('promoted', 'rollback', 'erased') order by sequence
        """,
    )
    for one in people:
        lines = [row for row in chain if row["workload_id"] == one.workload]
        wanted = {"champion": json.loads(lines[-1]["body"])["to"]} if lines else {}
        sql = "select alias, version from registered_model_aliases where name = ?"
        there = {row["alias"]: str(row["version"]) for row in asked(database, sql, one.workload)}
        there.pop("previous", None)  # people look at it, and nothing else
        if there != wanted:
            yield f"{one.workload}: the aliases are {there}, the chain says {wanted}"
        promoted = Counter(row["evidence_digest"] for row in lines if row["kind"] == "promoted")
        approved = kept(
            home,
            """
            select evidence_digest from raw.decisions
            where workload_id = ? and decision = 'approve'
            """,
            one.workload,
        )
        if promoted != Counter(row["evidence_digest"] for row in approved):
            yield f"{one.workload}: approved {approved}, promoted {promoted}"
        yield from _versions(home, one.workload)


def _versions(home: Path, workload: str) -> Iterator[str]:
    database = home / "mlflow/mlflow.db"
    versions = asked(
        database,
        """
        select versions.version, versions.status, versions.run_id, tags.value as evidence
        from model_versions as versions
        left join model_version_tags as tags
            on versions.name = tags.name and versions.version = tags.version
            and tags.key = 'flywheel.evidence'
        where versions.name = ? order by versions.version
        """,
        workload,
    )
    numbers = [row["version"] for row in versions]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"{workload}: the versions are {numbers}"
    for evidence, times in Counter(row["evidence"] for row in versions).items():
        if times > 1 or not (home / "evidence" / workload / str(evidence)).exists():
            yield f"{workload}: evidence {evidence} has {times} versions"
    for row in versions:
        if row["status"] != "READY":
            yield f"{workload}: version {row['version']} is {row['status']}"


def tracked(home: Path) -> Iterator[str]:
    """See that MLflow has one ended run for each adapter, and no file without an owner."""
    database = home / "mlflow/mlflow.db"
    runs = asked(
        database,
        """
        select runs.run_uuid, runs.status, tags.value as adapter
        from runs left join tags
            on runs.run_uuid = tags.run_uuid and tags.key = 'flywheel.adapter'
        where runs.lifecycle_stage = 'active'
        """,
    )
    for row in runs:
        if row["status"] == "RUNNING":
            yield f"MLflow run {row['run_uuid']} of adapter {row['adapter']} still runs"
    for adapter, times in Counter(row["adapter"] for row in runs).items():
        if times > 1:
            yield f"adapter {adapter} has {times} MLflow runs"
    models = asked(database, "select * from logged_models where lifecycle_stage = 'active'")
    versions = asked(database, "select source from model_versions")
    named = {str(row["source"]).rpartition("/")[2] for row in versions}
    for row in models:
        if row["model_id"] not in named:
            yield f"logged model {row['model_id']} ({row['status']}) belongs to no version"
    owned = {row["model_id"] for row in models}
    for folder in (home / "mlflow/artifacts").glob("*/models/*"):
        if folder.name not in owned:
            yield f"{folder} belongs to no logged model"


def files(home: Path, scratch: Path) -> Iterator[str]:
    """See that nothing half written is left, and that every output is as it was finished."""
    for path in home.rglob("*"):
        if path.name.endswith(PASSING):
            yield f"{path.relative_to(home)} is left"
    for path in [*(home / "spool").iterdir(), *scratch.iterdir()]:
        yield f"{path} is left"
    for kind in OUTPUTS:
        for folder in sorted((home / kind).glob("*/*")):
            yield from _output(folder)


def _output(folder: Path) -> Iterator[str]:
    name = "/".join(folder.parts[-3:])
    if not (folder / "manifest.json").exists():
        yield f"{name} was never finished"
        return
    listed: dict[str, str] = json.loads((folder / "manifest.json").read_text())["files"]
    there = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    if there != listed:
        apart = sorted(path for path, _ in there.items() ^ listed.items())
        yield f"{name} is not as it was finished: {', '.join(dict.fromkeys(apart))}"


def checks(home: Path, people: Sequence[Person]) -> Iterator[str]:
    """See that the warehouse opens and that what must never be in it is not."""
    with warehouses.connect(home / "warehouse.duckdb") as con:
        for one in people:
            for file in warehouse.sql_files(warehouse.sql_folder("checks")):
                sql = file.read_text()
                if "staging." in sql:  # of a curation's own copy, where it was checked
                    continue
                values = {"workload_id": one.workload} if "$workload_id" in sql else {}
                if rows := con.execute(sql, values).fetchall():
                    yield f"{file.name} found {len(rows)} rows of {one.workload}: {rows[:3]}"


def _chain(home: Path) -> Iterator[str]:
    """Recompute the chain of decisions as sql/migrations/0100_schema.sql describes it."""
    before, number = "0" * 64, 0
    words = {
        (row["sequence"], row["field"]): row
        for row in kept(home, "select * from raw.decision_words")
    }
    for number, row in enumerate(
        kept(home, "select * from raw.decision_chain order by sequence"), start=1
    ):
        told = {name: value for name, value in row.items() if name != "digest"}
        for name in ("body", "document_digest"):  # only some links have one
            if not told[name]:
                del told[name]
        told["decided_at"] = row["decided_at"].strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        text = json.dumps(told, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        if row["sequence"] != number or row["before"] != before or _sha(text) != row["digest"]:
            yield f"link {row['sequence']} of the chain of decisions does not hold"
        texts = ("approver", "comment", "blame")
        for field in (*texts, "document") if row["document_digest"] else texts:
            word = words[row["sequence"], field]
            if _sha(word["salt"] + word["text"]) != row[f"{field}_digest"]:
                yield f"the {field} of link {row['sequence']} is not what was sealed"
        before = row["digest"]
    heads = kept(home, "select * from raw.decision_head")
    if heads != ([{"sequence": number, "digest": before}] if number else []):
        yield f"the head of the chain of decisions is {heads}, the last link is {number}"


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _hex(identity: object) -> str:
    return str(identity).replace("-", "")


def all_of(*looks: Iterable[str]) -> list[str]:
    """Gather what every look found."""
    return [sentence for look in looks for sentence in look]
