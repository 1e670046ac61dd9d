"""`flywheel prune` deletes what nothing needs any more, and nothing else."""

import itertools
import json
import os
import re
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from typer.testing import CliRunner, Result

from components.collect import retention
from components.decide import decision_log
from components.decide.decision_log import LogEvent
from components.erase import affected_outputs
from components.extensions.canary import rollout_log
from components.gate import evidence_folder
from components.register import tracking
from components.release import release_state
from components.release.release_state import ChampionChange
from components.schema import Json
from components.store import file_locks, ledger, manifest, output_folders, warehouse
from components.store.output_folders import SourceGoneError
from flows.cli.main import app
from flows.machines import erased_copies
from flows.prune import prune_outputs
from flows.prune.prune_outputs import PruneBusyError
from flows.settings import Settings
from tests.support import erased_home, forking, mlflow_stores, nights, warehouses
from tests.support.nights import ALL, BEFORE, GONE, NOW, WORKLOAD, Night, Turn

OLD = NOW - timedelta(days=200)
EXAMPLES = nights.key("snapshot", "lost")


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    """A home of which the last turn was some nights ago."""
    home = Settings(tmp_path / "home", 1, 2)
    Turn("newest", days=10).run(home)
    return home


def kept(home: Settings, night: Night) -> list[str]:
    prune_outputs.prune(home, BEFORE)
    return nights.there(night)


def test_a_lost_chain_goes_with_its_jobs_and_its_verdict_stays(home: Settings) -> None:
    lost, newest = Turn("lost", asked="ann asks").run(home), Turn("young", days=89).run(home)
    pruned = prune_outputs.prune(home, BEFORE)
    assert nights.there(lost) == GONE
    assert nights.there(newest) == ALL
    assert {kind.kind: kind.count for kind in pruned.kinds} == {
        "evidence": 1,
        "scorecard": 3,
        "adapter": 1,
        "snapshot": 1,
        "job": 1,
    }
    assert all(kind.size > 0 for kind in pruned.kinds)
    found = [
        path for path in home.home.rglob("*") if path.is_file() and b"ann" in path.read_bytes()
    ]
    assert found == []
    assert evidence_folder.read(lost.evidence).judgement.reasons == ("worse",)
    assert manifest.read(lost.evidence)["created_at"] == OLD.isoformat(timespec="seconds")
    assert prune_outputs.prune(home, BEFORE).kinds == (), "a second run finds nothing"


def test_pruning_a_workload_leaves_the_others_outputs_and_jobs(home: Settings) -> None:
    lost, others = Turn("lost").run(home), Turn("other", workload="routing").run(home)
    Turn("new", days=10, workload="routing").run(home)
    begun = home.adapters / "unfinished" / nights.key("adapter", "begun")
    begun.mkdir(parents=True)
    nights.age(begun, OLD)
    unknown = home.jobs / f"search-{nights.key('search')}"
    unknown.mkdir()
    nights.age(unknown, OLD)

    pruned = prune_outputs.prune(home, BEFORE, WORKLOAD)
    assert {kind.kind: kind.count for kind in pruned.kinds}["job"] == 1
    assert (nights.there(lost), nights.there(others)) == (GONE, ALL)
    assert begun.exists()
    assert unknown.exists()
    assert (home.jobs / f"train-{others.adapter.name}").exists()
    assert not (home.jobs / f"train-{lost.adapter.name}").exists()


def test_looking_changes_nothing(home: Settings) -> None:
    lost = Turn("lost").run(home)
    before = sorted(home.home.rglob("*"))
    assert prune_outputs.find_prunable(home, BEFORE).kinds
    assert sorted(home.home.rglob("*")) == before
    assert nights.there(lost) == ALL


def passed(home: Settings) -> Night:
    return Turn("passed", outcome="pass").run(home)


def champion_before(home: Settings) -> Night:
    first = Turn("first").run(home)
    second = Turn("second", outcome="pass", adapter={"warm_start": first.adapter.name})
    second.run(home)
    return first


def teacher(home: Settings) -> Night:
    first = Turn("first").run(home)
    recipe: Json = {"objective": {"teacher_model_name_or_path": f"{first.adapter}"}}
    Turn("second", days=10, adapter={"recipe": recipe}).run(home)
    return first


@pytest.mark.parametrize(
    ("need", "expected"),
    [
        pytest.param(passed, ALL, id="evidence-that-passed"),
        pytest.param(champion_before, ["snapshots", "adapters", "evidence"], id="a-warm-start"),
        pytest.param(teacher, ["snapshots", "adapters", "evidence"], id="a-teacher"),
    ],
)
def test_what_a_version_is_made_from_stays(
    home: Settings, need: Callable[[Settings], Night], expected: list[str]
) -> None:
    assert kept(home, need(home)) == expected


def journalled(home: Settings, lost: Night) -> None:
    change = ChampionChange(
        *(WORKLOAD, "promoted", lost.evidence.name, lost.adapter.name, "1", None, None, "zoe", ""),
    )
    approval = LogEvent("approve", WORKLOAD, lost.evidence.name, "run", NOW, "zoe")
    with warehouses.connect(home.warehouse) as con, warehouse.transaction(con):
        decision_log.append_event(con, approval)
        release_state.append_change(con, change, NOW)


def decided(home: Settings, lost: Night) -> None:
    event = LogEvent("lapsed", WORKLOAD, lost.evidence.name, "run", NOW, reason="stale")
    with warehouses.connect(home.warehouse) as con, warehouse.transaction(con):
        decision_log.append_event(con, event)


def answers_a_share(home: Settings, lost: Night) -> None:
    names = {"evidence": lost.evidence.name, "adapter": lost.adapter.name}
    with warehouses.connect(home.warehouse) as con:
        step = rollout_log.first_step(*("r1", WORKLOAD, "2", "1"), **names, order="", now=NOW)
        rollout_log.write(con, step)


@pytest.mark.parametrize("record", [journalled, decided, answers_a_share])
def test_what_the_warehouse_names_as_decided_stays(
    home: Settings, record: Callable[[Settings, Night], None]
) -> None:
    """Also where its evidence did not pass by today's words."""
    lost = Turn("lost").run(home)
    record(home, lost)
    assert kept(home, lost) == ALL


def test_retention_goes_on_when_a_snapshot_was_pruned(home: Settings) -> None:
    lost = Turn("lost").run(home)
    with warehouses.connect(home.warehouse) as con:
        for folder in lost.folders:
            ledger.record_output(con, WORKLOAD, folder, now=NOW)
    assert kept(home, lost) == GONE
    with warehouses.connect(home.warehouse) as con:
        retention.archive(
            con, str(home.archive), WORKLOAD, snapshots=home.snapshots, days=30, now=NOW
        )
        kinds = con.execute("select kind from raw.manifests order by kind").fetchall()
    assert kinds == [("adapter",), ("evidence",)], "what was measured and trained is still counted"


@pytest.mark.slow
def test_copies_in_mlflow_go(home: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """By which else a person could be found whom an erasure no longer finds."""
    lost = Turn("lost", asked="ann asks").run(home)
    passed = Turn("passed", asked="bob asks", outcome="pass").run(home)
    home.mlflow_home.mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_stores.create(home.mlflow_home))
    monkeypatch.chdir(home.mlflow_home)
    for night in (lost, passed):
        run = tracking.open_run(WORKLOAD, night.adapter.name, params={}, tags={})
        tracking.log_scores(run, {}, night.scorecards)
        tracking.log_evidence(run, night.evidence, "fail")
    assert erased_home.holds(home.mlflow_home, "ann asks")
    prune_outputs.prune(home, BEFORE)
    assert erased_home.holds(home.mlflow_home, "ann asks") == []
    assert len(erased_home.holds(home.mlflow_home, "bob asks")) == 5


@pytest.fixture
def under_prefect(
    home: Settings, prefect_server: None, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """A home whose Prefect is the tests' server."""
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL

    database = PREFECT_API_DATABASE_CONNECTION_URL.value().partition("///")[2]
    home.prefect_home.mkdir()
    (home.prefect_home / "prefect.db").symlink_to(database)
    monkeypatch.setenv("FLYWHEEL_HOME", str(home.home))
    return home


def run(flow: str, state: str, **parameters: str) -> UUID:
    """Make a flow run as Prefect keeps it."""
    from prefect import Flow, states
    from prefect.client.orchestration import get_client

    def nothing(config: str = "", snapshot: str = "") -> None:
        """Stand for the flow, of which only the record in Prefect matters."""

    with get_client(sync_client=True) as client:
        made = client.create_flow_run(Flow(nothing, name=flow), parameters=parameters)
        client.set_flow_run_state(made.id, getattr(states, state)(), force=True)
    return made.id


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flow", "state", "expected"),
    [
        pytest.param("turn", "Running", ALL, id="a-turn"),
        pytest.param("turn", "AwaitingRetry", ALL, id="a-turn-that-is-tried-again"),
        pytest.param("turn", "Scheduled", GONE, id="a-turn-that-has-not-begun"),
        pytest.param("turn", "Crashed", GONE, id="a-turn-that-crashed"),
        pytest.param("train", "Pending", ALL, id="a-training"),
    ],
)
def test_a_run_under_way_keeps_all_of_its_workload(
    under_prefect: Settings, flow: str, state: str, expected: list[str]
) -> None:
    lost = Turn("lost").run(under_prefect)
    record = under_prefect.turns / WORKLOAD / "some-run" / "workload.json"
    run_id = run(flow, state, config=str(record))
    try:
        assert kept(under_prefect, lost) == expected
        left_alone = prune_outputs.find_prunable(under_prefect, BEFORE).under_way
        assert left_alone == ({WORKLOAD} if expected == ALL else set())
    finally:
        end(run_id)


@pytest.mark.slow
def test_a_run_of_another_workload_keeps_what_it_names(under_prefect: Settings) -> None:
    lost = Turn("lost").run(under_prefect)
    record = str(under_prefect.turns / "other" / "some-run" / "workload.json")
    run_id = run("evaluate", "Running", config=record, snapshot=str(lost.snapshot))
    try:
        assert kept(under_prefect, lost) == ["snapshots", "evidence"]
    finally:
        end(run_id)


def end(run_id: UUID) -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        client.delete_flow_run(run_id)


@pytest.mark.slow
def test_the_pages_in_prefect_go(under_prefect: Settings) -> None:
    from flows import promote

    lost = Turn("lost").run(under_prefect)
    promote.publish_page.fn("ann asks", lost.evidence.name, WORKLOAD)
    promote.publish_page.fn("bob asks", "another", WORKLOAD)
    prune_outputs.prune(under_prefect, BEFORE)
    database = sqlite3.connect((under_prefect.home / "prefect" / "prefect.db").resolve())
    with closing(database) as con:
        pages = con.execute("select data from artifact where key = ?", [f"gate-{WORKLOAD}"])
        assert [page for (page,) in pages] == ['"bob asks"']


def command(home: Settings, *arguments: str, answer: str = "") -> Result:
    variables = {"FLYWHEEL_HOME": str(home.home)}
    return CliRunner().invoke(app, ["prune", *arguments], input=answer, env=variables)


def test_the_command_shows_asks_and_deletes(tmp_path: Path) -> None:
    home, days = Settings(tmp_path / "home", 1, 2), (datetime.now(UTC) - NOW).days
    lost = Turn("lost", days=100 - days).run(home)
    Turn("newest", days=10 - days).run(home)
    assert "there is no warehouse" in command(home, "--yes").stderr
    with warehouses.connect(home.warehouse):
        pass
    shown = command(home, "--dry-run")
    assert re.search(r"^ +3  scorecards, [0-9.]+ MiB$", shown.stdout, re.MULTILINE), shown.output
    assert command(home, answer="n\n").exit_code == 1
    assert "nothing that old can go" in command(home, "--older-than", "120", "--yes").stdout
    assert nights.there(lost) == ALL
    done = command(home, answer="y\n")
    assert "deleted 7 outputs and jobs" in done.stdout, done.output
    assert nights.there(lost) == GONE
    assert "nothing that old can go" in command(home).stdout
    assert command(home, "--older-than", "6").exit_code == 2


def job(home: Settings, name: str, text: str, days: int = 1) -> Path:
    folder = home.jobs / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.json").write_text(text)
    nights.age(folder, NOW - timedelta(days=days))
    return folder


def test_a_recent_job_keeps_what_it_reads(home: Settings) -> None:
    lost = Turn("lost").run(home)
    spec = json.dumps({"snapshot": str(lost.snapshot), "models": {"a": str(lost.adapter)}})
    job(home, f"evaluate-validation-{nights.key('any')}", spec)
    assert kept(home, lost) == ["snapshots", "adapters", "evidence"]


def test_a_workloads_file_keeps_what_it_replays(home: Settings) -> None:
    lost = Turn("lost").run(home)
    home.workloads.mkdir()
    file = home.workloads / "other.yaml"
    file.write_text(f"workload: other\ncurate: {{replay: {{sources: [{lost.snapshot}]}}}}\n")
    assert kept(home, lost) == ["snapshots", "evidence"]


@pytest.mark.parametrize(
    ("conditions", "days", "expected"),
    [
        pytest.param({"holdout_version": "v-lost"}, 20, True, id="on-its-holdout"),
        pytest.param(
            {"examples": nights.key("snapshot", "lost")}, 20, True, id="with-its-examples"
        ),
        pytest.param({"holdout_version": "v-other"}, 20, False, id="on-another-holdout"),
        pytest.param({"holdout_version": "v-lost"}, 100, False, id="and-is-old"),
    ],
)
def test_a_scorecard_keeps_the_snapshots_that_it_may_have_been_measured_on(
    home: Settings, conditions: dict[str, str], days: int, *, expected: bool
) -> None:
    """Else an erasure would not know whose requests it has."""
    lost = Turn("lost").run(home)
    nights.scorecard(home, "base", {**conditions}, NOW - timedelta(days=days))
    assert ("snapshots" in kept(home, lost)) is expected


def test_a_snapshot_from_after_a_measurement_was_not_measured_on(home: Settings) -> None:
    Turn("passed", days=200, outcome="pass", holdout="v1").run(home)
    same = Turn("same", days=150, holdout="v1").run(home)
    assert kept(home, same) == GONE


def test_the_newest_of_each_workload_stays_however_old_it_is(tmp_path: Path) -> None:
    """A workload that rested for a year goes on with them."""
    home = Settings(tmp_path / "home", 1, 2)
    last, before = Turn("last", days=400).run(home), Turn("before", days=401).run(home)
    assert kept(home, before) == GONE
    assert nights.there(last) == ALL


def unfinished(home: Settings, days: int, job_days: int) -> tuple[Path, Night]:
    """A training on an old snapshot that was interrupted so long ago."""
    lost = Turn("lost").run(home)
    adapter = home.adapters / WORKLOAD / nights.key("unfinished")
    (adapter / "checkpoints" / "checkpoint-8").mkdir(parents=True)
    (adapter / "checkpoints" / "checkpoint-8" / "optimizer.pt").write_bytes(b"state")
    nights.age(adapter, NOW - timedelta(days=days))
    spec = json.dumps({"snapshot": str(lost.snapshot), "folder": str(adapter)})
    job(home, f"train-{adapter.name}", spec, job_days)
    return adapter, lost


@pytest.mark.parametrize("job_days", [80, 95])
def test_an_interrupted_training_stays_with_its_snapshot_until_it_is_old(
    home: Settings, job_days: int
) -> None:
    adapter, lost = unfinished(home, 80, job_days)
    assert kept(home, lost) == ["snapshots", "evidence"]
    assert adapter.exists()
    assert (home.jobs / f"train-{adapter.name}" / "spec.json").exists()
    prune_outputs.prune(home, NOW - timedelta(days=70))
    assert not adapter.exists()
    assert not lost.snapshot.exists()


def test_folders_of_somebody_else_stay_with_what_they_need(home: Settings) -> None:
    linked, written = Turn("linked").run(home), Turn("written").run(home)
    elsewhere = home.home.parent / "elsewhere"
    linked.adapter.rename(elsewhere)
    linked.adapter.symlink_to(elsewhere)
    (written.snapshot / "notes.txt").write_text("why this one was odd")
    own = home.adapters / WORKLOAD / "of-a-colleague"
    own.mkdir()
    (own / "weights").write_text("")
    nights.age(own, OLD)
    copied = home.scorecards / WORKLOAD / "to-look-at"
    shutil.copytree(written.scorecards[0], copied)
    planned = prune_outputs.prune(home, BEFORE)
    assert set(planned.unused.foreign) == {linked.adapter, written.snapshot, copied}
    assert output_folders.fetch(copied)
    assert nights.there(linked) == ["snapshots", "adapters", "evidence"]
    assert nights.there(written) == ["snapshots", "evidence"]
    assert (elsewhere / "adapter_model.safetensors").exists()
    assert own.exists()


def test_outputs_on_another_disk_are_found_and_deleted(home: Settings, tmp_path: Path) -> None:
    lost = Turn("lost").run(home)
    home.snapshots.rename(tmp_path / "disk")
    home.snapshots.symlink_to(tmp_path / "disk")
    assert kept(home, lost) == GONE
    assert not (tmp_path / "disk" / WORKLOAD / lost.snapshot.name).exists()


def test_a_manifest_that_cant_be_read_keeps_everything(home: Settings) -> None:
    lost, damaged = Turn("lost").run(home), Turn("damaged").run(home)
    (damaged.adapter / manifest.NAME).write_text("{")
    with pytest.raises(affected_outputs.DamagedOutputError, match=damaged.adapter.name):
        prune_outputs.prune(home, BEFORE)
    assert nights.there(lost) == ALL


def test_a_measurement_on_a_snapshot_that_is_pruned_meanwhile_is_not_kept(home: Settings) -> None:
    lost = Turn("lost").run(home)
    sources = output_folders.count_copies([lost.snapshot])
    prune_outputs.prune(home, BEFORE)
    folder = home.scorecards / WORKLOAD / nights.key("late")
    with pytest.raises(SourceGoneError), output_folders.while_kept(sources, folder):
        folder.mkdir()
    assert not folder.exists()


def test_a_backup_under_way_keeps_everything_until_it_is_written(home: Settings) -> None:
    lost = Turn("lost").run(home)
    with (
        file_locks.held(home.home / erased_copies.BEING_PRUNED, shared=True),
        pytest.raises(PruneBusyError, match="a backup, an erasure or another prune is under way"),
    ):
        prune_outputs.prune(home, BEFORE)
    assert kept(home, lost) == GONE


EVENTS = ("shutil.rmtree", "os.remove", "os.rename")
"""What a process does to the disk, as Python audits it."""


def prune_and_die(home: Settings, states: Path) -> None:
    """Leave a copy of the home for each moment at which a prune of it can be killed."""
    for event in EVENTS:
        for number in itertools.count():
            copy = replace(home, home=states / f"{event} {number}")
            shutil.copytree(home.home, copy.home)
            if (child := os.fork()) == 0:
                die_at(event, number)
                prune_outputs.prune(copy, BEFORE)
                os._exit(0)
            if os.waitpid(child, 0)[1] == 0:
                break


def die_at(event: str, number: int) -> None:
    """Let this process die before it does something for the nth time."""
    left = [number]

    def count(name: str, _: object) -> None:
        if name == event:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


@pytest.mark.slow
def test_a_killed_prune_leaves_nothing_untraceable_and_the_next_one_ends_it(
    home: Settings, tmp_path: Path
) -> None:
    lost = Turn("lost", asked="ann asks").run(home)
    process = forking.process(prune_and_die, home, tmp_path / "states")
    process.start()
    process.join()
    states = [replace(home, home=path) for path in (tmp_path / "states").iterdir()]
    assert process.exitcode == 0
    assert len(states) > 10
    for state in states:
        outputs = erased_copies.outputs_of(state)
        traced = affected_outputs.trace(outputs, lambda row_id: row_id == "i-lost")
        assert {output.key for output in traced.tainted} >= holding(state, "ann asks")
        assert affected_outputs.untraceable(outputs, []) == []
        prune_outputs.prune(state, BEFORE)
        assert holding(state, "") == holding(home, "") - {each.name for each in lost.folders[:-1]}
        assert holding(state, "ann asks") == set()


def holding(home: Settings, text: str) -> set[str]:
    """Return the keys of the outputs and jobs in whose files a text stands."""
    return {
        path.relative_to(home.home).parts[2]
        for root in (home.snapshots, home.adapters, home.scorecards, home.evidence)
        for path in root.rglob("*")
        if path.is_file() and path.parent.parent != root and text.encode() in path.read_bytes()
    }
