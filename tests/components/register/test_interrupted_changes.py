"""A change of champion that is killed at any point is finished or fully undone."""

import os
import signal
import sqlite3
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from mlflow import MlflowClient

from components.register import champion_change, journal, registry, version_tags
from components.register.champion_change import Succession
from components.register.journal import ChampionChange, ChampionJournal
from components.register.registry import Aliases, Version
from components.register.version_tags import CHALLENGER, CHAMPION
from tests.support import forking, warehouses
from tests.support.forking import PROCESSES

NOW = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)


def books(folder: Path) -> ChampionJournal:
    return ChampionJournal(lambda: warehouses.connect(folder / "w.duckdb"), lambda: NOW)


def make(name: str, number: int, **tags: str) -> Version:
    """Register a version of few bytes."""
    client = MlflowClient()
    made = client.create_model_version(
        name,
        "file:///nowhere",
        tags={
            version_tags.EVIDENCE_TAG: f"e{number}",
            version_tags.ADAPTER_TAG: f"a{number}",
            **tags,
        },
    )
    return registry.as_version(made)


def history(name: str) -> None:
    """Give a workload two approved versions, the second champion, and a challenger."""
    MlflowClient().create_registered_model(name)
    for number in (1, 2):
        make(name, number, **{version_tags.DECISION_TAG: "approve"})
    make(name, 3)
    registry.put_alias(name, CHAMPION, "2")
    registry.put_alias(name, CHALLENGER, "3")


def promotion(name: str) -> ChampionChange:
    return champion_change.promotion(name, "3", "e3", "a3", by="ann", reason="better")


def rolling(name: str) -> ChampionChange:
    known = Succession(frozenset({("1", "e1"), ("2", "e2")}), {"1": None, "2": "1"}, frozenset())
    versions = registry.list_versions(name)
    return champion_change.plan_rollback(name, versions, "2", known, None, by="bob", reason="rude")


def carry_out(change: ChampionChange, folder: Path, is_ready: Event, may_begin: Event) -> None:
    """Change the champion, once the test is ready to watch."""
    is_ready.set()
    may_begin.wait(60)
    champion_change.carry_out(books(folder), books(folder).intend(change))


@contextmanager
def mlflow_held() -> Generator[None]:
    """Let somebody else hold MLflow's database, so that whoever calls MLflow waits."""
    path = os.environ["MLFLOW_TRACKING_URI"].removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as con:
        con.execute("begin exclusive")
        yield
        con.execute("rollback")


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_intended(folder: Path) -> bool:
    with books(folder).open() as con:
        return bool(journal.unfinished_changes(con))


def kill(change: ChampionChange, folder: Path, moment: str) -> None:
    """Let a process change the champion, and kill it at a moment that is seen from outside.

    ``waiting``: before it has the warehouse. ``intended``: its row is there, and it waits for
    MLflow. ``moved``: the alias stands on the version, and it waits for the warehouse.
    """
    is_ready, may_begin = PROCESSES.Event(), PROCESSES.Event()
    process = forking.process(carry_out, change, folder, is_ready, may_begin)
    process.start()
    assert is_ready.wait(60)
    with ExitStack() as mlflow, ExitStack() as held:
        if moment == "waiting":
            held.enter_context(books(folder).open())
            may_begin.set()
            process.join(0.5)
        else:
            mlflow.enter_context(mlflow_held())
            may_begin.set()
            until(lambda: is_intended(folder))
        if moment == "moved":
            held.enter_context(books(folder).open())
            mlflow.close()
            until(lambda: registry.read_aliases(change.workload_id).champion == change.version)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert process.exitcode == -signal.SIGKILL


def recover(folder: Path) -> list[tuple[str, str]]:
    return [(entry.step, entry.note) for entry in champion_change.recover(books(folder))]


MOMENTS = [pytest.param("waiting", marks=pytest.mark.slow), "intended", "moved"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_promotion_is_finished_or_undone(moment: str, tmp_path: Path) -> None:
    name = f"promoted-{moment}"
    history(name)
    kill(promotion(name), tmp_path, moment)
    ended = recover(tmp_path)
    if moment == "waiting":
        assert ended == []
        assert registry.read_aliases(name) == Aliases(champion="2", challenger="3")
        assert registry.version_numbered(name, "3").decision == ""
        return
    assert ended == [("done", "it was interrupted, and is finished")]
    assert registry.read_aliases(name) == Aliases(champion="3")
    crowned = registry.version_numbered(name, "3")
    tags = MlflowClient().get_model_version(name, "3").tags
    assert (crowned.decision, tags[version_tags.APPROVER_TAG]) == ("approve", "ann")
    with books(tmp_path).open() as con:
        (entry,) = journal.list_changes(con, name)
        assert (entry.step, journal.unfinished_changes(con)) == ("done", [])
    assert recover(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_rollback_is_finished_or_undone(moment: str, tmp_path: Path) -> None:
    name = f"rolled-{moment}"
    history(name)
    kill(rolling(name), tmp_path, moment)
    recover(tmp_path)
    if moment == "waiting":
        assert registry.read_aliases(name) == Aliases(champion="2", challenger="3")
        return
    assert registry.read_aliases(name) == Aliases(champion="1", challenger="3")
    assert registry.version_numbered(name, "2").rolled_back == "to version 1 by bob: rude"
    with books(tmp_path).open() as con:
        assert journal.unfinished_changes(con) == []


def begun(name: str, folder: Path, **changes: str) -> ChampionChange:
    """Write that the third version is to be champion, and no more."""
    change = replace(promotion(name), **changes)  # pyright: ignore[reportArgumentType]
    books(folder).intend(change)
    return change


def test_what_was_never_registered_leaves_all_as_it_was(tmp_path: Path) -> None:
    name = "unmade"
    history(name)
    begun(name, tmp_path, evidence_digest="e9", version="9")
    before = registry.read_aliases(name)
    assert recover(tmp_path) == [("undone", "the version was never registered; nothing had moved")]
    assert registry.read_aliases(name) == before


@pytest.mark.parametrize("moved", [False, True], ids=["before-moving", "after-moving"])
@pytest.mark.parametrize("why", ["erased meanwhile", "nobody has approved version 3"])
def test_what_may_not_be_champion_any_more_is_undone(why: str, moved: bool, tmp_path: Path) -> None:
    name = f"undone-{why.split()[0]}-{moved}"
    history(name)
    before = registry.read_aliases(name)
    begun(name, tmp_path)
    if moved:
        registry.put_alias(name, CHAMPION, "3")
    if why == "erased meanwhile":
        registry.tag_version(name, "3", {version_tags.TAINTED_TAG: "c1"})
    is_approved = why == "erased meanwhile"
    (entry,) = champion_change.recover(books(tmp_path), name, lambda _: is_approved)
    assert entry.step == "undone"
    assert why in entry.note
    assert registry.read_aliases(name) == before


def test_a_champion_set_meanwhile_stays(tmp_path: Path) -> None:
    history("since")
    begun("since", tmp_path)
    registry.put_alias("since", CHAMPION, "1")
    assert recover(tmp_path) == [("undone", "version 1 has become champion meanwhile")]
    assert registry.read_aliases("since").champion == "1"


def test_nobody_begins_another_change_before_the_interrupted_one_is_recovered(
    tmp_path: Path,
) -> None:
    history("open")
    change = begun("open", tmp_path)
    with pytest.raises(journal.UnsettledError, match="change 1 was interrupted"):
        books(tmp_path).intend(change)
    recover(tmp_path)
    assert books(tmp_path).intend(change).number == 2


def test_a_change_ended_by_another_process_is_not_ended_twice(tmp_path: Path) -> None:
    history("intended-twice")
    entry = books(tmp_path).intend(replace(promotion("intended-twice"), version="9"))
    assert recover(tmp_path)[0][0] == "undone"
    with pytest.raises(journal.SettledError, match="change 1 has an end already"):
        books(tmp_path).end(entry, "done", "")


def test_a_promotion_that_was_held_up_takes_no_rollback_back(tmp_path: Path) -> None:
    # As on a lake, whose lock is lost with its connection.
    name = "held-up"
    history(name)
    entry = books(tmp_path).intend(promotion(name))
    recover(tmp_path)
    known = Succession(frozenset({("2", "e2"), ("3", "e3")}), {"3": "2"}, frozenset())
    change = champion_change.plan_rollback(
        name, registry.list_versions(name), "3", known, None, by="bob", reason="rude"
    )
    champion_change.carry_out(books(tmp_path), books(tmp_path).intend(change))
    with pytest.raises(journal.SettledError, match="change 1 has an end already"):
        champion_change.carry_out(books(tmp_path), entry)
    assert registry.read_aliases(name).champion == "2"
    assert registry.version_numbered(name, "3").rolled_back == "to version 2 by bob: rude"


def test_one_process_at_a_time_changes_a_champion(tmp_path: Path) -> None:
    with (
        journal.lock_champion(tmp_path / "w.duckdb", tmp_path, "locked") as first,
        journal.lock_champion(tmp_path / "w.duckdb", tmp_path, "other") as other,
    ):
        assert (first, other) == (True, True)
        with journal.lock_champion(tmp_path / "w.duckdb", tmp_path, "locked", wait=False) as second:
            assert not second
    with journal.lock_champion(tmp_path / "w.duckdb", tmp_path, "locked", wait=False) as again:
        assert again
