"""A change of champion that is killed at any point is fully there or not at all."""

import os
import signal
import sqlite3
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing, contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from threading import Thread

import pytest
from mlflow import MlflowClient

from components.decide import decision_log
from components.decide.approvers import Approving
from components.register import registry, version_tags
from components.register.registry import Aliases
from components.register.version_tags import CHAMPION
from components.release import (
    champion_alias,
    champions,
    installation,
    release_state,
    rollback_rules,
)
from components.release.release_state import ChampionChange, ReleaseState
from components.store import warehouse
from flows import promotion, release_home
from flows.settings import Settings
from tests.support import forking, ssh, warehouses
from tests.support.forking import PROCESSES
from tests.support.versions import (
    NOW,
    ask,
    ask_with_files,
    crowned,
    decide,
    say_yes,
    workload,
)


def history(name: str, home: Settings) -> None:
    """Give a workload two champions, the second of now, and an approved challenger."""
    crowned(name, 2, home)
    ask(name, 3)
    say_yes(home, name, 3)


def planned(name: str, number: int = 3) -> ChampionChange:
    keys = (name, str(number), f"e{number}", f"a{number}")
    return release_state.plan_promotion(*keys, by="ann", reason="better")


def rolling(name: str, home: Settings) -> ChampionChange:
    with warehouses.connect(home.tables) as con:
        known = release_state.verified_state(con, name)
    versions = registry.list_versions(name)
    return rollback_rules.plan_rollback(
        name, versions, known.champion, known, None, by="bob", reason="rude"
    )


def append(change: ChampionChange, home: Settings) -> None:
    with warehouses.connect(home.tables) as con, warehouse.transaction(con):
        release_state.append_change(con, change, NOW)


def carry_out(change: ChampionChange, home: Settings, is_ready: Event, may_begin: Event) -> None:
    """Change the champion, once the test is ready to watch."""
    is_ready.set()
    may_begin.wait(60)
    append(change, home)
    champions.project(release_home.of(home), change.workload_id)


@contextmanager
def mlflow_held() -> Generator[None]:
    """Let somebody else hold MLflow's database, so that whoever calls MLflow waits."""
    path = os.environ["MLFLOW_TRACKING_URI"].removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as con:
        con.execute("begin exclusive")
        yield
        con.execute("rollback")


def is_so_within(seconds: float, is_so: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def until(is_so: Callable[[], bool]) -> None:
    assert is_so_within(60, is_so)


def recorded(home: Settings, name: str) -> ReleaseState:
    with warehouses.connect(home.tables) as con:
        return release_state.read_state(con, name)


def kill(change: ChampionChange, home: Settings, moment: str) -> None:
    """Let a process change the champion, and kill it at a moment that is seen from outside.

    ``waiting``: before it has the warehouse. ``appended``: its link is there, and it waits for
    MLflow. ``moved``: the alias stands on the version, and it does or has done the rest.
    """
    name, is_ready, may_begin = change.workload_id, PROCESSES.Event(), PROCESSES.Event()

    def has_moved() -> bool:
        return registry.read_aliases(name).champion == change.version

    process = forking.process(carry_out, change, home, is_ready, may_begin)
    process.start()
    assert is_ready.wait(60)
    with ExitStack() as mlflow, ExitStack() as held:
        if moment == "waiting":
            held.enter_context(warehouses.connect(home.tables))
            may_begin.set()
            process.join(0.5)
        else:
            mlflow.enter_context(mlflow_held())
            may_begin.set()
            until(lambda: recorded(home, name).champion == change.version)
        if moment == "moved":
            held.enter_context(warehouses.connect(home.tables))
            mlflow.close()
            if not is_so_within(1, has_moved):  # it has yet to read the chain, and is next in line
                held.close()
                held.enter_context(warehouses.connect(home.tables))
            until(has_moved)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert process.exitcode == -signal.SIGKILL


MOMENTS = [pytest.param("waiting", marks=pytest.mark.slow), "appended", "moved"]


def require_agreement(home: Settings, name: str, champion: str) -> None:
    """Check that the chain, MLflow and the file for a busy warehouse have one champion."""
    state = recorded(home, name)
    known = release_state.read_known(home.locks, name)
    assert known is not None
    assert state.last is not None
    assert known.through == state.last.head.anchor
    names = (state.champion, registry.read_aliases(name).champion, known.state.champion)
    assert names == (champion,) * 3
    assert champions.recover(release_home.of(home), name) is None


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_promotion_is_finished_or_never_began(moment: str, home: Settings) -> None:
    name = f"promoted-{moment}"
    history(name, home)
    kill(planned(name), home, moment)
    champions.recover(release_home.of(home), name)
    if moment == "waiting":
        assert registry.read_aliases(name) == Aliases("2", challenger="3", previous="1")
        assert registry.version_numbered(name, "3").decision == ""
        require_agreement(home, name, "2")
        return
    require_agreement(home, name, "3")
    assert registry.read_aliases(name) == Aliases("3", previous="2")
    tags = MlflowClient().get_model_version(name, "3").tags
    assert (tags[version_tags.DECISION_TAG], tags[version_tags.APPROVER_TAG]) == ("approve", "ann")


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_rollback_is_finished_or_never_began(moment: str, home: Settings) -> None:
    name = f"rolled-{moment}"
    history(name, home)
    kill(rolling(name, home), home, moment)
    champions.recover(release_home.of(home), name)
    if moment == "waiting":
        require_agreement(home, name, "2")
        return
    require_agreement(home, name, "1")
    assert registry.read_aliases(name) == Aliases("1", challenger="3")
    assert registry.version_numbered(name, "2").rolled_back == "to version 1 by bob: rude"


def test_what_nobody_has_approved_does_not_become_champion(home: Settings) -> None:
    history("unapproved", home)
    ask("unapproved", 4)
    with pytest.raises(release_state.UnapprovedError, match="nobody has approved evidence e4"):
        append(planned("unapproved", 4), home)
    require_agreement(home, "unapproved", "2")


def test_a_promotion_needs_an_approval_by_the_rules_of_its_moment(
    home: Settings, base_model: Path, tmp_path: Path
) -> None:
    crowned("ruled", 1, home)
    evidence = ask_with_files("ruled", 2)
    say_yes(home, "ruled", 2)  # by a name that was typed
    listed = [{"name": "ann", "keys": [ssh.public(ssh.keygen(tmp_path))]}]
    rules = Approving.model_validate({"proof": "signature", "approvers": listed}).rules()
    with warehouses.connect(home.tables) as con, warehouse.transaction(con):
        decision_log.in_force(con, "ruled", rules, now=NOW)
    made, decision = workload("ruled", base_model), decide("ruled", 2)
    with pytest.raises(release_state.UnapprovedError, match="under the rules of now"):
        promotion.promote_version(made, evidence, decision, lambda: None)
    require_agreement(home, "ruled", "1")


def test_the_home_has_the_champion_on_record_before_the_alias_moves(home: Settings) -> None:
    history("recorded", home)
    append(planned("recorded"), home)

    def has_recorded() -> bool:
        known = release_state.read_known(home.locks, "recorded")
        return known is not None and known.state.champion == "3"

    with mlflow_held():
        projecting = Thread(target=champions.project, args=(release_home.of(home), "recorded"))
        projecting.start()
        until(has_recorded)
    projecting.join()
    require_agreement(home, "recorded", "3")


def test_an_alias_that_was_moved_during_a_change_follows_it(home: Settings) -> None:
    history("since", home)
    append(planned("since"), home)
    registry.put_alias("since", CHAMPION, "1")
    assert champions.recover(release_home.of(home), "since") is not None
    require_agreement(home, "since", "3")


def test_a_change_to_what_was_deleted_from_mlflow_leaves_no_champion_there_and_blocks_nobody(
    home: Settings,
) -> None:
    history("gone", home)
    append(planned("gone"), home)
    MlflowClient().delete_model_version("gone", "3")
    champions.recover(release_home.of(home), "gone")
    assert registry.read_aliases("gone").champion is None
    append(rolling("gone", home), home)
    champions.recover(release_home.of(home), "gone")
    require_agreement(home, "gone", "2")


def test_a_promotion_that_was_held_up_takes_no_rollback_back(home: Settings) -> None:
    # As on a lake, whose lock is lost with its connection.
    name = "held-up"
    history(name, home)
    append(planned(name), home)
    outdated = recorded(home, name)
    append(rolling(name, home), home)
    states = iter([outdated])
    champion_alias.project(name, lambda: next(states, recorded(home, name)))
    assert registry.read_aliases(name).champion == "2"
    assert registry.version_numbered(name, "3").rolled_back == "to version 2 by bob: rude"


def test_one_process_at_a_time_changes_a_champion(home: Settings) -> None:
    path, folder = home.tables, home.locks
    with (
        installation.lock_champion(path, folder, "locked") as first,
        installation.lock_champion(path, folder, "other") as other,
    ):
        assert (first, other) == (True, True)
        with installation.lock_champion(path, folder, "locked", wait=False) as second:
            assert not second
    with installation.lock_champion(path, folder, "locked", wait=False) as again:
        assert again
