"""What flow runs of several machines need of one turn: its workload, its bases, its scorecards."""

import json
import shutil
from collections.abc import Generator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from components.extensions.machines.object_store import ObjectStore
from components.gate import evidence_folder
from components.gate.evidence_folder import EvidenceSubject
from components.gate.judgement import Judgement
from components.gate.policy import Policy
from components.models.base import content_hash
from components.release import releases
from components.store import manifest, output_folders
from flows import (
    evaluate,
    home_workloads,
    promote,
    promotion,
    settings,
    train,
    workload_file,
)
from flows.home_workloads import ForeignPathError, RecordChangedError, WorkloadFileError
from flows.search import local_base
from flows.settings import Settings
from flows.workload_file import Workload
from tests.support import buckets, workload_text

STORE = ObjectStore("s3://flywheel/team")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
PASSED = Judgement("pass", ("better",), "correct_name")


@pytest.fixture(scope="module")
def server() -> Generator[None]:
    with buckets.serving():
        yield


@pytest.fixture
def home(folder: Path, server: None, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The machine that takes turns, whose base no other machine has."""
    buckets.emptied()
    monkeypatch.setenv("FLYWHEEL_STORE", STORE.url)
    monkeypatch.setenv("FLYWHEEL_HOME", str(folder / "a"))
    for name in ("base", "other"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "config.json").write_text(json.dumps({"name": name}))
        (folder / name / "model.safetensors").write_text(f"weights of {name}")
        (folder / name / "vocab.txt").write_text("a\nb\n")
    return settings.load()


def begin(home: Settings, folder: Path, **changed: object) -> tuple[Workload, str]:
    """Begin a turn; return its workload, and what other machines are started with."""
    workload = workload_file.read_workload(workload_text.write(folder, **changed))
    turn = home.turns / "support" / "t1"
    home_workloads.begin(turn, workload)
    home_workloads.share(home, turn, workload)
    return workload, home.portable(turn / home_workloads.RECORD)


def at_another_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Be another machine, where the bases are not."""
    for name in ("base", "other"):
        shutil.move(folder / name, folder / f"not-{name}")
    monkeypatch.setenv("FLYWHEEL_HOME", str(folder / "b"))
    return settings.load()


def test_another_machine_reads_the_workload_of_a_turn_and_pulls_its_base(
    home: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload, config = begin(home, folder)
    assert config == "turns/support/t1/workload.json"
    key = content_hash(workload.base)
    there = at_another_machine(folder, monkeypatch)
    read = home_workloads.workload_of_run(config)
    assert read.base == there.models / key
    assert content_hash(read.base) == key
    assert (read.base / "vocab.txt").read_text() == "a\nb\n"
    assert read.base_name == workload.base_name
    assert home_workloads.original_base(read.base) == workload.base
    rest = {"base", "base_served_as"}
    assert read.model_dump(exclude=rest) == workload.model_dump(exclude=rest)


def test_a_base_of_other_content_than_its_name_says_is_refused(
    home: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload, config = begin(home, folder)
    key = content_hash(workload.base)
    (folder / "other" / "poison.jinja").write_text("{{ evil }}")
    STORE.remove(f"models/{key}")
    record = json.dumps({"files": manifest.file_digests(folder / "other")})
    STORE.push(f"models/{key}", folder / "other", record)
    at_another_machine(folder, monkeypatch)
    with pytest.raises(ValueError, match=f"expected {key}"):
        home_workloads.workload_of_run(config)


def test_a_base_at_the_same_path_is_used_where_it_is(
    home: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload, config = begin(home, folder)
    monkeypatch.setenv("FLYWHEEL_HOME", str(folder / "b"))
    assert home_workloads.workload_of_run(config).base == workload.base
    assert not settings.load().models.exists()


def test_the_bases_that_a_search_tries_are_pulled_and_have_the_keys_of_the_turns_own_machine(
    home: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = {"over": {"base": ["base", "other"]}, "budget": {"tokens": 1000}}
    workload, config = begin(home, folder, search=search, curate={"validation_share": 0.1})
    snapshot = home.snapshots / "support" / "s"
    keys = [
        train.key_of_adapter(workload.model_copy(update={"base": tried.base}), snapshot)
        for tried in workload.candidates()
    ]
    there = at_another_machine(folder, monkeypatch)
    read = home_workloads.workload_of_run(config)
    tried = [candidate.base for candidate in read.candidates()]
    assert {base.parent for base in tried} == {there.models}
    assert keys == [
        train.key_of_adapter(read.model_copy(update={"base": base}), snapshot) for base in tried
    ]
    assert local_base(read, workload.candidates()[1].base) == tried[1]


def test_a_turn_that_has_ended_starts_nothing_on_another_machine(
    home: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, config = begin(home, folder)
    home_workloads.withhold(home, home.turns / "support" / "t1")
    at_another_machine(folder, monkeypatch)
    with pytest.raises(ForeignPathError, match="of a turn that has not ended"):
        home_workloads.workload_of_run(config)


def test_another_machine_promotes_by_what_the_turn_froze_and_the_rules_of_its_own_file(
    home: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen, _ = begin(home, folder)
    turn, adapter = home.turns / "support" / "t1", home.adapters / "support" / "a1"
    adapter.mkdir(parents=True)
    (adapter / "adapter_model.safetensors").write_text("weights")
    manifest.write(adapter, kind="adapter", now=NOW, body={})
    subject = EvidenceSubject(
        *("support", "s1", "v1", "b1", "a1", "base", "c1", "o1"),
        adapter_bytes=manifest.folder_digest(adapter),
    )
    to = home.evidence / "support" / evidence_folder.digest(subject, PASSED, Policy())
    to.mkdir(parents=True)
    evidence_folder.finish(
        to, subject, PASSED, Policy(), {}, brief="", now=NOW, turn=home_workloads.reference(turn)
    )
    home_workloads.withhold(home, turn)

    there = at_another_machine(folder, monkeypatch)
    evidence = promote.read_own_evidence(there, "support", to.name)
    releases.require_bytes(there.adapters, evidence)
    with pytest.raises(WorkloadFileError, match="knows none"):
        promotion.in_force(there, evidence)
    own = workload_text.write(folder, base="not-other", gate={"floor": 0.9})
    home_workloads.adopt(there, "support", own)
    rules = promotion.in_force(there, evidence)
    assert (rules.base, rules.gate.floor) == (frozen.base, 0.9)
    changed = json.loads((turn / home_workloads.RECORD).read_text()) | {"note": "another"}
    (turn / home_workloads.RECORD).write_text(json.dumps(changed))
    home.publish(turn / home_workloads.RECORD)
    with pytest.raises(RecordChangedError, match="the record was changed since"):
        promotion.in_force(there, evidence)


@pytest.mark.parametrize(
    "path",
    ["turns/support/t2/workload.json", "turns/../keys/signing.key", "turns/support/workload.json"],
)
def test_what_is_no_record_of_a_turn_is_refused(home: Settings, folder: Path, path: str) -> None:
    begin(home, folder)
    with pytest.raises(ForeignPathError):
        home_workloads.workload_of_run(path)


def test_a_snapshot_that_a_run_is_started_with_is_pulled(
    home: Settings, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    snapshot = home.snapshots / "support" / "0123"
    snapshot.mkdir(parents=True)
    (snapshot / "train.parquet").write_text("rows")
    manifest.write(snapshot, kind="snapshot", now=NOW, body={})
    parameter = home.portable(snapshot)
    assert parameter == "snapshots/support/0123"
    there = at_another_machine(folder, monkeypatch)
    path = home_workloads.path_within(there.snapshots, parameter, "snapshot")
    assert (path / "train.parquet").read_text() == "rows"
    with pytest.raises(ForeignPathError):
        home_workloads.path_within(there.snapshots, "snapshots/../keys/x", "snapshot")


def test_scorecards_are_found_where_another_machine_has_written_them(
    home: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = at_another_machine(folder, monkeypatch)
    card = there.scorecards / "support" / "c1"
    card.mkdir(parents=True)
    (card / "samples.parquet").write_text("samples")
    manifest.write(card, kind="scorecard", now=NOW, body={})
    file = Path("jobs") / "evaluate-0123" / "cards-4567.json"
    (there.home / file).parent.mkdir(parents=True)
    places = {"base": {"holdout": there.portable(card)}}
    (there.home / file).write_text(json.dumps(places))
    there.publish(there.home / file)

    monkeypatch.setenv("FLYWHEEL_HOME", str(home.home))
    mine = home.scorecards / "support" / "c1"
    assert evaluate.cards_in(home.home / file) == {"base": {"holdout": mine}}
    assert output_folders.fetch(mine)


def test_without_a_store_paths_are_absolute_as_ever(home: Settings) -> None:
    alone = replace(home, store=None)
    path = alone.snapshots / "support" / "0123"
    assert alone.portable(path) == str(path)
    assert alone.local(str(path)) == path
    assert alone.read(alone.jobs / "none.json") is None
