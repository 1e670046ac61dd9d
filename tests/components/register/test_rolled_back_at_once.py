"""A rollback moves the alias even if the warehouse is busy, and its row follows."""

import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from components.decide import decision_log
from components.decide.approvers import Approving
from components.register import registry, taint, version_tags
from components.register.registry import Aliases
from components.register.version_tags import CHAMPION
from components.release import champions, release_state, rollback_rules
from components.release.release_state import Pending, RollbackError
from components.release.rollback_rules import Order
from components.store import warehouse
from flows import release_home
from flows.settings import Settings
from tests.support import forking, warehouses
from tests.support.forking import PROCESSES
from tests.support.versions import NOW, crowned


def hold(path: Path, is_held: Event, let_go: Event) -> None:
    with warehouse.connect(path):
        is_held.set()
        let_go.wait(120)


@contextmanager
def warehouse_held(home: Settings) -> Generator[Callable[[], None]]:
    """Let another process hold the warehouse; yield what makes it let go."""
    is_held, let_go = PROCESSES.Event(), PROCESSES.Event()
    holder = forking.process(hold, home.warehouse, is_held, let_go)
    holder.start()
    assert is_held.wait(60)
    yield let_go.set
    let_go.set()
    holder.join()


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_a_champion_goes_at_once_though_the_warehouse_is_held_and_the_row_follows(
    home: Settings,
) -> None:
    crowned("urgent", 3, home)
    lines: list[str] = []

    def order() -> None:
        champions.roll_back(
            release_home.of(home), Order("urgent", None, "bob", "rude"), lines.append
        )

    with warehouse_held(home) as let_go:
        ordering = threading.Thread(target=order)
        ordering.start()
        until(lambda: bool(lines))
        assert lines[0].startswith("urgent: version 2 is champion again")
        assert registry.read_aliases("urgent").champion == "2"
        assert ordering.is_alive()
        let_go()
        ordering.join()
    assert registry.read_aliases("urgent") == Aliases(champion="2", previous="1")
    assert registry.version_numbered("urgent", "3").rolled_back == "to version 2 by bob: rude"
    assert release_state.pending_workloads(home.locks) == []
    assert written(home, "urgent") == [("rollback", "e3", "bob")]


@pytest.mark.slow
def test_a_rollback_that_was_killed_while_it_waited_for_the_warehouse_is_written_down(
    home: Settings,
) -> None:
    crowned("killed", 2, home)
    with warehouse_held(home):
        process = forking.process(_order, home, "killed")
        process.start()
        until(lambda: registry.read_aliases("killed").champion == "1")
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    (entry,) = champions.reconcile(release_home.of(home))
    assert entry.change.version == "1"
    assert written(home, "killed") == [("rollback", "e2", "bob")]


def _order(home: Settings, name: str) -> None:
    champions.roll_back(release_home.of(home), Order(name, None, "bob", "rude"))


def pending(home: Settings, name: str, ordered_at: datetime = NOW) -> Pending:
    """Order a rollback of the second version, as where the warehouse is held, and be killed."""
    with warehouses.connect(home.warehouse) as con:
        known = release_state.verified_state(con, name)
    versions = registry.list_versions(name)
    change = rollback_rules.plan_rollback(name, versions, "2", known, None, by="bob", reason="rude")
    order = Pending(change, ordered_at, "")
    release_state.write_pending(home.locks, order)
    return order


@pytest.mark.parametrize(
    "ordered_at", [NOW, datetime.now(UTC) + timedelta(days=1)], ids=["", "the-clock-was-set-back"]
)
@pytest.mark.slow
def test_a_pending_rollback_is_written_down_once(home: Settings, ordered_at: datetime) -> None:
    name = f"unwritten-{ordered_at:%d}"
    crowned(name, 2, home)
    order = pending(home, name, ordered_at)  # and the alias had not moved
    (entry,) = champions.reconcile(release_home.of(home))
    assert entry.change.version == "1"
    assert registry.read_aliases(name) == Aliases(champion="1")
    assert champions.reconcile(release_home.of(home)) == []
    release_state.write_pending(home.locks, order)  # as if it had been killed before the file went
    assert champions.reconcile(release_home.of(home)) == []
    assert release_state.pending_workloads(home.locks) == []
    assert written(home, name) == [("rollback", "e2", "bob")]


@pytest.mark.slow
def test_a_pending_rollback_to_what_was_erased_meanwhile_is_undone_and_on_record(
    home: Settings,
) -> None:
    crowned("tainted-since", 2, home)
    pending(home, "tainted-since")
    registry.put_alias("tainted-since", CHAMPION, "1")
    taint.flag_tainted("tainted-since", {"a1"}, "c1")
    (entry,) = champions.reconcile(release_home.of(home))
    assert (entry.change.kind, entry.change.reason) == ("erased", "c1")
    assert registry.read_aliases("tainted-since").champion == "2"
    assert written(home, "tainted-since") == [("rollback", "e2", "bob"), ("erased", "e2", "")]


@pytest.mark.slow
def test_a_pending_rollback_breaks_no_rules_that_came_after_it(home: Settings) -> None:
    crowned("ruled-since", 2, home)
    pending(home, "ruled-since")
    listed = [{"name": "ann"}, {"name": "cy"}]
    rules = Approving.model_validate({"proof": "code", "approvers": listed}).rules()
    with warehouses.connect(home.warehouse) as con, warehouse.transaction(con):
        decision_log.in_force(con, "ruled-since", rules, now=NOW)
    champions.reconcile(release_home.of(home))
    assert written(home, "ruled-since") == [("rollback", "e2", "bob")]
    with warehouses.connect(home.warehouse) as con:
        links = decision_log.links(con)
        assert rollback_rules.in_force(release_home.of(home), con, "ruled-since") == rules
    assert decision_log.first_unproved(links) is None


@pytest.mark.slow
def test_without_the_warehouse_a_rollback_leads_where_the_journal_leads(home: Settings) -> None:
    """Who moves MLflow's `previous` does not choose the version."""
    crowned("led", 3, home)
    registry.put_alias("led", version_tags.PREVIOUS, "1")
    with warehouse_held(home) as let_go:
        ordering = threading.Thread(target=_order, args=(home, "led"))
        ordering.start()
        until(lambda: registry.read_aliases("led").champion != "3")
        assert registry.read_aliases("led").champion == "2"
        let_go()
        ordering.join()


@pytest.mark.slow
def test_a_rollback_to_another_version_than_the_pending_one_is_refused(home: Settings) -> None:
    crowned("other", 3, home)
    with warehouses.connect(home.warehouse) as con:
        known = release_state.verified_state(con, "other")
    change = rollback_rules.plan_rollback(
        "other", registry.list_versions("other"), "3", known, "1", by="bob", reason="rude"
    )
    release_state.write_pending(home.locks, Pending(change, NOW, ""))
    with warehouse_held(home), pytest.raises(RollbackError, match="to version 1 is not written"):
        champions.roll_back(release_home.of(home), Order("other", "2", "bob", "rude"))


def written(home: Settings, name: str) -> list[tuple[str, str, str | None]]:
    with warehouses.connect(home.warehouse) as con:
        links = decision_log.links(con, workload_id=name)
    decided = [link for link in links if link.kind not in ("approve", "promoted", "rules")]
    return [(link.kind, link.evidence_digest, link.approver) for link in decided]
