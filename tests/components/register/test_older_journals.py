"""A home with a journal of six steps and `previous` opens and is recovered correctly."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest
from mlflow import MlflowClient

from components.decide import decision_log
from components.decide.decision_log import LogEvent
from components.register import journal, registry, version_tags
from components.register.registry import Aliases
from components.register.version_tags import CHALLENGER, CHAMPION, PREVIOUS
from components.store import warehouse
from components.store.warehouse import Connection
from flows import champions
from flows.rollback_rules import Order
from flows.settings import Settings
from tests.support import warehouses

NOW = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)
SQL = Path(warehouse.__file__).parents[2] / "sql" / "migrations"
LAST = 48
"""The last migration of homes that had six steps."""

PROMOTING = ("intended", "registered", "previous_moved", "champion_moved", "done")
ROLLING = ("intended", "previous_moved", "champion_moved", "done")


def older(home: Settings) -> None:
    """Make the warehouse of an older home."""
    home.warehouse.unlink()
    folder = home.home / "migrations"
    folder.mkdir(parents=True)
    for file in SQL.glob("*.sql"):
        if int(file.name[:4]) <= LAST:
            (folder / file.name).write_text(file.read_text())
    with duckdb.connect(home.warehouse) as con:
        con.execute("set timezone = 'UTC'")
        warehouse.migrate(con, folder)


def note(home: Settings, name: str, number: int, *steps: str, **fields: str | None) -> None:
    """Write rows of the journal as the older code did; ``registered`` brings the number."""
    with duckdb.connect(home.warehouse) as con:
        is_registered = fields["kind"] == "rollback"
        for step in steps:
            is_registered = is_registered or step == "registered"
            row = {"version": str(number), **fields}
            if not is_registered:
                row["version"] = None
            line = {"workload_id": name, "number": number, "step": step, **row}
            line |= {"asked_by": "ann", "reason": "good", "said": "", "noted_at": NOW}
            _insert(con, line)


def _insert(con: Connection, line: Mapping[str, object]) -> None:
    names = ", ".join(line)
    values = ", ".join(f"${name}" for name in line)
    con.execute(f"insert into raw.champion_journal ({names}) values ({values})", line)


def promote(home: Settings, name: str, number: int, *steps: str) -> None:
    before = str(number - 1) if number > 1 else None
    note(
        home,
        name,
        number,
        *steps,
        kind="promotion",
        evidence_digest=f"e{number}",
        adapter_key=f"a{number}",
        champion_before=before,
        adapter_before=f"a{number - 1}" if before else None,
        previous_before=str(number - 2) if number > 2 else None,
        previous_after=before,
    )


def roll_back(home: Settings, name: str, *steps: str) -> None:
    """Write the third change: from the second version to the first."""
    note(
        home,
        name,
        3,
        *steps,
        kind="rollback",
        version="1",
        evidence_digest="e1",
        adapter_key="a1",
        champion_before="2",
        adapter_before="a2",
        previous_before="1",
        previous_after=None,
    )


def build(home: Settings, name: str) -> None:
    """Leave two approved champions in the older warehouse, and a third version, approved."""
    older(home)
    client = MlflowClient()
    client.create_registered_model(name)
    with duckdb.connect(home.warehouse) as con:
        con.execute("set timezone = 'UTC'")
        for number in (1, 2, 3):
            tags = {version_tags.EVIDENCE_TAG: f"e{number}", version_tags.ADAPTER_TAG: f"a{number}"}
            client.create_model_version(name, "file:///nowhere", tags=tags)
            approval = LogEvent("approve", name, f"e{number}", f"r{number}", NOW, "ann", "good")
            with warehouse.transaction(con):
                decision_log.append_event(con, approval)
    for number in (1, 2):
        promote(home, name, number, *PROMOTING)
    for alias, version in ((CHAMPION, "2"), (PREVIOUS, "1"), (CHALLENGER, "3")):
        registry.put_alias(name, alias, version)


def move(name: str, steps: tuple[str, ...], previous: str | None, champion: str) -> None:
    """Move the aliases as far as the older code had when it wrote these steps."""
    if "previous_moved" in steps:
        registry.put_alias(name, PREVIOUS, previous)
    if "champion_moved" in steps:
        registry.put_alias(name, CHAMPION, champion)


def changes(home: Settings, name: str) -> list[tuple[int, str, str | None]]:
    with warehouses.connect(home.warehouse) as con:
        rows = journal.list_changes(con, name)
    return [(entry.number, entry.step, entry.change.version) for entry in rows]


@pytest.mark.parametrize("count", range(6), ids=["not-begun", *PROMOTING])
@pytest.mark.slow
def test_an_older_promotion_is_finished_wherever_it_was_interrupted(
    home: Settings, count: int
) -> None:
    name = f"older-promotion-{count}"
    build(home, name)
    promote(home, name, 3, *PROMOTING[:count])
    move(name, PROMOTING[:count], "2", "3")
    if count in (0, 5):  # nothing was interrupted
        ended = [(number, "done", str(number)) for number in (1, 2, 3)]
        assert changes(home, name) == ended[: 2 if count == 0 else 3]
        assert champions.reconcile(home) == []
        return
    (entry,) = champions.reconcile(home)
    assert (entry.number, entry.step) == (3, "done")
    assert registry.read_aliases(name) == Aliases(champion="3", previous="2")
    assert registry.version_numbered(name, "3").decision == "approve"
    assert changes(home, name)[-1] == (3, "done", "3")
    assert champions.reconcile(home) == []


@pytest.mark.parametrize("count", range(1, 5), ids=ROLLING)
@pytest.mark.slow
def test_an_older_rollback_is_finished_wherever_it_was_interrupted(
    home: Settings, count: int
) -> None:
    name = f"older-rollback-{count}"
    build(home, name)
    roll_back(home, name, *ROLLING[:count])
    move(name, ROLLING[:count], None, "1")
    ended = champions.reconcile(home)
    assert [entry.number for entry in ended] == ([] if count == 4 else [3])
    assert registry.read_aliases(name).champion == "1"
    assert registry.read_aliases(name).previous is None
    assert changes(home, name)[-1] == (3, "done", "1")


def test_an_older_promotion_that_was_undone_stays_undone(home: Settings) -> None:
    build(home, "older-undone")
    promote(home, "older-undone", 3, "intended", "registered", "undone")
    assert champions.reconcile(home) == []
    assert changes(home, "older-undone")[-1] == (3, "undone", "3")
    entry = champions.roll_back(home, Order("older-undone", None, "bob", "rude"))
    assert (entry.change.version, entry.change.champion_before) == ("1", "2")


def test_an_older_promotion_to_what_nobody_approves_by_now_goes_back(home: Settings) -> None:
    name = "older-tainted"
    build(home, name)
    promote(home, name, 3, *PROMOTING[:4])
    move(name, PROMOTING, "2", "3")
    registry.tag_version(name, "3", {version_tags.TAINTED_TAG: "c1"})
    (entry,) = champions.reconcile(home)
    assert (entry.step, "erased meanwhile" in entry.note) == ("undone", True)
    assert registry.read_aliases(name).champion == "2"
    assert registry.read_aliases(name).previous == "1"


@pytest.mark.slow
def test_an_older_order_that_waits_for_the_warehouse_is_written_down(home: Settings) -> None:
    name = "older-order"
    build(home, name)
    change = {
        "workload_id": name,
        "kind": "rollback",
        "evidence_digest": "e1",
        "adapter_key": "a1",
        "version": "1",
        "champion_before": "2",
        "adapter_before": "a2",
        "previous_before": "1",
        "previous_after": None,
        "asked_by": "bob",
        "reason": "rude",
    }
    order = {"change": change, "given_at": NOW.isoformat(), "flow_run_id": ""}
    home.locks.mkdir(parents=True)
    (home.locks / f"{name}.order.json").write_text(json.dumps(order))
    registry.put_alias(name, CHAMPION, "1")
    registry.put_alias(name, PREVIOUS, None)
    (entry,) = champions.reconcile(home)
    assert (entry.step, entry.change.version) == ("done", "1")
    with warehouses.connect(home.warehouse) as con:
        link = decision_log.links(con, workload_id=name)[-1]
    assert (link.kind, link.evidence_digest, link.approver) == ("rollback", "e2", "bob")
    assert journal.pending_workloads(home.locks) == []
