"""Today's code opens a home of an older schema, with data in it, and resumes a turn."""

import hashlib
import json
from pathlib import Path

import duckdb
import pytest

from components.curate import curate_workload
from components.dataset import freeze_snapshot, snapshot_figures
from components.decide import chain, decision_log
from components.decide.decision_log import LogEvent
from components.erase import affected_outputs
from components.monitor import turn_starts
from components.monitor.turn_starts import TurnStart
from components.store import ledger, warehouse
from components.store.warehouse import Connection
from flows.erasing import erase
from tests.support import erased_home, logs, warehouses
from tests.support.erased_home import RULES, WORKLOAD, House

SQL = Path(warehouse.__file__).parents[2] / "sql" / "migrations"
RELEASED = Path(__file__).parents[1] / "sql" / "migrations.json"
"""The SHA-256 of each migration that some home may have applied."""

AGES = (4, 9, 12, 16, 18, 20, 21)
"""Schemas that homes were left at: before redaction, snapshots, looks, the chain, the journal,
sealed policies."""

JUDGED = {
    "subject": {"challenger_scorecard": "c1", "opponent_scorecard": "c0", "adapter": "a1"},
    "judgement": {"metric": "correct_name", "look": 1, "alpha": 0.02, "outcome": "fail"},
    "policy": {"metric": "correct_name", "alpha": 0.04},
}
"""The evidence of the first of two looks, as an older version noted it."""


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> House:
    """A home with all that a turn leaves, decided on by a person."""
    built = erased_home.build(tmp_path_factory.mktemp("full") / "home")
    with warehouse.connect(built.settings.warehouse) as con:
        for number, kind in enumerate(("reject", "approve"), start=1):
            event = LogEvent(kind, WORKLOAD, f"e{number}", f"run-{number}", logs.NOW, "ann", "why")  # pyright: ignore[reportArgumentType] - one of the kinds
            with warehouse.transaction(con):
                decision_log.append_event(con, event)
        turn_starts.record_start(con, TurnStart("s1", WORKLOAD, "person", True, "asked", logs.NOW))
    return built


def age(home: House, number: int) -> None:
    """Put the home's rows into a warehouse of an older schema, in its place."""
    new, old = home.settings.warehouse, home.settings.home / "old.duckdb"
    folder = home.settings.home.parent / "migrations"
    folder.mkdir()
    for file in SQL.glob("*.sql"):
        if int(file.name[:4]) <= number:
            text = file.read_text()
            is_early = int(file.name[:4]) < 21  # what released homes had of it
            (folder / file.name).write_text(text.replace("'stale', ", "") if is_early else text)
    with duckdb.connect(old) as con:
        con.execute("set timezone = 'UTC'")
        warehouse.migrate(con, folder)
        con.execute(f"attach '{new}' as today (read_only)")
        for (table,) in con.execute(TABLES).fetchall():
            columns = ", ".join(sorted(_columns(con, "old", table) & _columns(con, "today", table)))
            con.execute(f"insert into old.{table} by name select {columns} from today.{table}")
        if number < 17:
            con.execute(
                "insert into raw.decisions by name select sequence as decision_id,"
                " * exclude (sequence, reason) from today.raw.decisions"
            )
        if 12 <= number < 23:
            con.execute(OLD_LOOKS, {"workload": WORKLOAD})
            con.execute(OLD_EVIDENCE, {"workload": WORKLOAD, "judged": json.dumps(JUDGED)})
    new.unlink()
    old.rename(new)


OLD_LOOKS = """
    insert into raw.looks
    select
        $workload, challenger, 'c0', 'correct_name', 'v1', 40, number, now()
    from (values ('c1', 1), ('c2', 2)) as looks (challenger, number)
"""
OLD_EVIDENCE = """
    insert into raw.manifests by name
    select
        'e1' as key, 'evidence' as kind, $workload as workload_id, '/evidence/e1' as path,
        $judged::json as manifest, now() as recorded_at
"""

TABLES = """
    select distinct schema_name || '.' || table_name as name
    from duckdb_tables() as tables
    where
        database_name = 'old' and table_name != 'migrations'
        and name in (
            select schema_name || '.' || table_name from duckdb_tables() where
            database_name = 'today'
        )
    order by name
"""


def _columns(con: Connection, database: str, table: str) -> set[str]:
    return {name for (name, *_) in con.execute(f"describe {database}.{table}").fetchall()}


def logged(home: House) -> list[warehouse.Row]:
    """Return the interactions without a hash that only spares comparisons and may be missing."""
    return [{**row, "content_hash": None} for row in home.raw()]


def sides(con: Connection) -> dict[str, str]:
    return dict(con.execute("select interaction_id, side from curated.standings").fetchall())


@pytest.mark.parametrize(
    "number",
    [pytest.param(age, marks=[] if age == 4 else pytest.mark.slow) for age in AGES],
)
def test_an_older_home_is_upgraded_with_its_rows_and_a_turn_resumes(
    full: House, number: int, tmp_path: Path
) -> None:
    home = erased_home.move(full, tmp_path / "home")
    before = logged(home)
    with warehouses.connect(home.settings.warehouse) as con:
        stood = sides(con)
    age(home, number)

    assert logged(home) == before
    with warehouses.connect(home.settings.warehouse) as con:
        links = decision_log.links(con)
        assert chain.first_broken(links, decision_log.read_head(con)) is None
        expected = [(row.kind, row.evidence_digest, row.approver, row.comment) for row in links]
        assert expected == [("reject", "e1", "ann", "why"), ("approve", "e2", "ann", "why")]
        taken = [
            (row.challenger_scorecard, row.policy_digest, row.number, row.alpha, row.adapter)
            for row in ledger.read_holdout_log(con).looks
        ]
        expected = [("c1", ledger.UNKNOWN, 1, 0.02, "a1"), ("c2", ledger.UNKNOWN, 2, None, None)]
        assert taken == (expected if number >= 12 else [])
        assert number < 20 or [
            row.start_id for row in turn_starts.read_starts(con, WORKLOAD, 9)
        ] == ["s1"]
        turn_starts.record_start(con, TurnStart("s2", WORKLOAD, "stale", True, "changed", logs.NOW))

        assert logs.load(con, home.log, now=logs.NOW).new == 0
        again = freeze(con, home)
        assert (again.holdout_rows, again.train_rows) == (
            full.frozen.holdout_rows,
            full.frozen.train_rows,
        )
        more = logs.write(
            tmp_path / "more.jsonl", [erased_home.line("dan-0c4e", n) for n in range(9)]
        )
        assert logs.load(con, more, now=logs.NOW).new == 9
        assert freeze(con, home).key != again.key
        now = sides(con)
    assert {id: now[id] for id in stood} == stood
    tainted = affected_outputs.trace(erase.outputs(home.settings), stood.__contains__).tainted
    assert ("adapter", "a1") in {(row.kind, row.key) for row in tainted}


def freeze(con: Connection, home: House) -> snapshot_figures.Snapshot:
    """Curate and freeze, as the next turn does."""
    curate_workload.curate(con, WORKLOAD, RULES, now=logs.NOW)
    return freeze_snapshot.freeze(con, home.settings.snapshots, WORKLOAD, rules=RULES, now=logs.NOW)


def test_no_migration_is_changed_once_a_home_may_have_applied_it() -> None:
    now = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in SQL.glob("*.sql")}
    assert len({name[:4] for name in now}) == len(now), "two migrations of one number"
    released = json.loads(RELEASED.read_text())
    changed = sorted(name for name, digest in released.items() if now.get(name) != digest)
    assert not changed, f"{changed} may be applied already: write the change as a new migration"
    assert not now.keys() - released.keys(), f"add to {RELEASED}: {now}"
