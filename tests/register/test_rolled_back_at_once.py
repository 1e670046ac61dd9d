"""A rollback that finds the warehouse held moves the aliases, and the books follow."""

import threading
import time
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from components import warehouse
from components.decide import record
from components.decide.record import Asked
from components.register import aliases, registry, rollback
from components.register.aliases import Aliases
from flows import champions, orders
from flows.orders import Order
from flows.settings import Settings
from tests.forking import PROCESSES
from tests.register.versions import NOW, crowned


def hold(path: Path, is_held: Event, let_go: Event) -> None:
    with warehouse.connect(path):
        is_held.set()
        let_go.wait(120)


def test_a_champion_goes_at_once_though_the_warehouse_is_held_and_the_books_follow(
    home: Settings,
) -> None:
    crowned("urgent", 3, home)
    is_held, let_go = PROCESSES.Event(), PROCESSES.Event()
    holder = PROCESSES.Process(target=hold, args=(home.warehouse, is_held, let_go))
    holder.start()
    assert is_held.wait(60)
    told: list[str] = []

    def order() -> None:
        champions.roll_back(home, "urgent", None, by="bob", reason="rude", say=told.append)

    ordering = threading.Thread(target=order)
    ordering.start()
    while ordering.is_alive() and not told:
        time.sleep(0.1)
    assert told[0].startswith("urgent: version 2 is champion again")
    assert aliases.read("urgent").champion == "2"
    assert ordering.is_alive()
    let_go.set()
    ordering.join()
    holder.join()
    assert aliases.read("urgent") == Aliases(champion="2", previous="1")
    assert registry.numbered("urgent", "3").rolled_back == "to version 2 by bob: rude"
    assert orders.workloads(home.locks) == []
    assert written(home, "urgent") == [("rollback", "e3", "bob")]


@pytest.mark.parametrize(
    "given_at", [NOW, datetime.now(UTC) + timedelta(days=1)], ids=["", "the-clock-was-set-back"]
)
def test_a_rollback_that_was_killed_before_it_was_written_down_is_written_down_once(
    home: Settings, given_at: datetime
) -> None:
    name = f"unwritten-{given_at:%d}"
    crowned(name, 2, home)
    versions, now = registry.versions(name), aliases.read(name)
    with warehouse.connect(home.warehouse) as con:
        known = champions.approved(con, name)
    change = rollback.plan(name, versions, now, [], None, approved=known, by="bob", reason="rude")
    order = Order(change, given_at, "")
    orders.give(home.locks, order)
    assert aliases.read(name) == Aliases(champion="1")
    (settled,) = champions.reconcile(home)
    assert (settled.step, settled.change.version) == ("done", "1")
    assert champions.reconcile(home) == []
    orders.give(home.locks, order)  # as if it had been killed before the file went
    champions.reconcile(home)
    assert orders.workloads(home.locks) == []
    assert written(home, name) == [("rollback", "e2", "bob")]


def written(home: Settings, name: str) -> list[tuple[str, str, str | None]]:
    with warehouse.connect(home.warehouse) as con:
        links = record.links(con, Asked(workload_id=name))
    said = [one for one in links if one.kind not in ("approve", "rules")]
    return [(one.kind, one.evidence_digest, one.approver) for one in said]
