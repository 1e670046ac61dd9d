"""A prune on one machine reaches the object store, and the copies of other machines."""

from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from s3fs import S3FileSystem
from typer.testing import CliRunner

from components.erase.leftovers import Searched
from components.store import output_folders
from flows import home_backup, settings
from flows.cli.main import app
from flows.machines import erased_copies
from flows.prune import prune_outputs
from flows.settings import Settings
from tests.support import buckets, erased_home, nights, warehouses
from tests.support.nights import BEFORE, NOW, WORKLOAD, Turn

Machine = Callable[[str], Settings]

KINDS = ("snapshots", "adapters", "scorecards", "evidence")


@pytest.fixture(scope="module")
def server() -> Generator[None]:
    with buckets.serving_versions():
        yield


@pytest.fixture
def on(server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Go to one of the machines that share a store."""
    monkeypatch.setenv("FLYWHEEL_STORE", f"s3://{buckets.VERSIONED}/{tmp_path.name.lower()}")

    def go(name: str) -> Settings:
        monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / name))
        return settings.load()

    return go


@pytest.fixture
def shared(on: Machine) -> tuple[Settings, Settings]:
    """One machine has a lost chain and a newer one, the other has copies of all."""
    home = on("a")
    Turn("newest", days=10).run(home)
    lost = Turn("lost", asked="ann asks").run(home)
    job = home.jobs / f"train-{lost.adapter.name}" / "spec.json"
    home.publish(job)
    assert home.store
    buckets.aged(f"{home.store.url}/{home.portable(job)}", 10_000 * 86400)
    other = on("b")
    erased_copies.enter(other)
    assert finished(other) == {kind: 6 if kind == "scorecards" else 2 for kind in KINDS}
    on("a")
    return home, other


def finished(home: Settings) -> dict[str, int]:
    """Count what a machine has or finds in the store."""
    return {kind: len(output_folders.find(home.home / kind / WORKLOAD)) for kind in KINDS}


PRUNED = {"snapshots": 1, "adapters": 1, "scorecards": 3, "evidence": 2}


@pytest.mark.slow
def test_the_copies_of_another_machine_go_and_it_is_named_until_then(
    shared: tuple[Settings, Settings], on: Machine
) -> None:
    home, other = shared
    prune_outputs.prune(home, BEFORE)
    assert home.store
    assert home.store.names("jobs") == []
    assert home.store.names("pruned") == []
    lost = [f"{kind}/{WORKLOAD}/{nights.key(kind[:-1], 'lost')}" for kind in KINDS[:2]]
    assert [home.store.versions(place) for place in lost] == [0, 0], "in any version"
    assert erased_copies.unconfirmed(home, []) == [erased_copies.machine_name(other)]
    assert erased_home.holds(other.home, "ann asks")

    on("b")
    erased_copies.forget(other)
    assert erased_home.holds(other.home, "ann asks") == []
    assert finished(other) == PRUNED
    assert finished(on("c")) == PRUNED, "nothing is pulled again"
    assert erased_copies.unconfirmed(home, []) == []


def test_a_store_that_is_away_ends_the_command_with_a_message(
    on: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = on("a")
    with warehouses.connect(home.warehouse):
        pass
    with monkeypatch.context() as away:
        buckets.take_away(away)
        ended = CliRunner().invoke(app, ["prune", "--yes"])
    S3FileSystem.clear_instance_cache()
    assert ended.exit_code == 1, ended.output
    assert ended.stderr.startswith("pruning: ")


@pytest.mark.slow
def test_no_push_brings_it_back(shared: tuple[Settings, Settings], on: Machine) -> None:
    home, other = shared
    known = erased_copies.forget(other)
    prune_outputs.prune(home, BEFORE)
    assert other.store
    home_backup.push_outputs(on("b"), other.store, print)
    assert finished(on("c")) == PRUNED

    place = f"adapters/{WORKLOAD}/{nights.key('adapter', 'lost')}"
    assert erased_copies.take_back(on("b"), known, [place]) == [place], "if it was quicker"


@pytest.mark.slow
def test_old_versions_that_a_prune_may_not_delete_are_left_to_an_erasure(
    shared: tuple[Settings, Settings], on: Machine
) -> None:
    home, _ = shared
    prune_outputs.prune(home, BEFORE)
    place = f"snapshots/{WORKLOAD}/{nights.key('snapshot', 'lost')}"
    assert home.store
    home.store.write(f"{place}/0", "what ann asks")
    home.store.remove(place)
    with warehouses.connect(home.warehouse):
        pass
    searched = erased_copies.search_store(home, [], Searched({}, (), ()))
    assert [left.where for left in searched.left] == [f"{home.store.url}/{place}"]
    home.store.forget_versions()
    assert erased_copies.search_store(home, [], Searched({}, (), ())).left == ()


@pytest.mark.slow
def test_what_is_made_again_stays(shared: tuple[Settings, Settings], on: Machine) -> None:
    home, _ = shared
    prune_outputs.prune(home, BEFORE)
    again = on("c")
    snapshot = nights.snapshot(again, "lost", "v-lost", NOW)
    erased_copies.forget(again)
    assert snapshot.exists()
    erased_copies.forget(on("b"))
    assert finished(on("b")) == PRUNED | {"snapshots": 2}


@pytest.mark.slow
@pytest.mark.parametrize("follower", ["the-next-prune", "an-erasure"])
def test_a_killed_prune_is_announced_by_the_next(
    shared: tuple[Settings, Settings], on: Machine, follower: str
) -> None:
    home, other = shared
    planned = prune_outputs.find_prunable(home, BEFORE)
    with (
        pytest.raises(KeyboardInterrupt),
        erased_copies.pruning(home, planned.unused.outputs),
    ):
        output_folders.remove(home.snapshots / WORKLOAD / nights.key("snapshot", "lost"))
        raise KeyboardInterrupt
    if follower == "an-erasure":
        erased_copies.announce_pruned(home)
    else:
        prune_outputs.prune(home, BEFORE)
    on("b")
    erased_copies.forget(other)
    assert finished(other)["snapshots"] == 1
    assert not (other.snapshots / WORKLOAD / nights.key("snapshot", "lost")).exists()


@pytest.mark.slow
def test_an_interrupted_training_of_another_machine_goes_there(
    shared: tuple[Settings, Settings], on: Machine
) -> None:
    home, other = shared
    on("b")
    adapter = other.adapters / WORKLOAD / nights.key("unfinished")
    (adapter / "checkpoints").mkdir(parents=True)
    (adapter / "checkpoints" / "state").write_text("learned from what ann asks")
    assert other.store
    spec = f'{{"snapshot": "/{nights.key("snapshot", "lost")}", "folder": "{adapter}"}}'
    place = f"jobs/train-{adapter.name}/spec.json"
    other.store.write(place, spec)
    on("a")
    prune_outputs.prune(home, BEFORE)
    assert finished(home)["snapshots"] == 2, "it may be resumed"

    buckets.aged(f"{other.store.url}/{place}", 10_000 * 86400)
    other.store.write(f"checkpoints/{WORKLOAD}/{adapter.name}/checkpoint-8/state", "state")
    prune_outputs.prune(home, BEFORE)
    assert finished(home) == PRUNED
    assert other.store.names("checkpoints") == []
    on("b")
    erased_copies.forget(other)
    assert not adapter.exists()
