"""An erasure on one machine reaches the object store, in all its versions, and other machines."""

import json
import shutil
import time
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from fsspec.asyn import sync
from mlflow import MlflowClient
from s3fs import S3FileSystem

from components.erase.affected_outputs import Output
from components.erase.certificate import Certificate
from components.erase.subject import Subject
from components.extensions.machines import moved_outputs
from components.extensions.machines.object_store import ObjectStore
from components.scorecard import VERDICTS_FILE
from components.store import manifest, output_folders
from flows import home_backup, settings
from flows.erasing import erase
from flows.machines import erased_copies
from flows.settings import Settings
from tests.components.erase.conftest import Eraser
from tests.support import buckets, erased_home, mlflow_stores
from tests.support.erased_home import ANN, WORKLOAD, House


@pytest.fixture(scope="module")
def server() -> Generator[None]:
    with buckets.serving_versions():
        yield


@pytest.fixture(
    scope="module", params=[pytest.param(buckets.NAME, marks=pytest.mark.slow), buckets.VERSIONED]
)
def bucket(server: None, request: pytest.FixtureRequest) -> str:
    return request.param


def empty_store(bucket: str, folder: Path, patch: pytest.MonkeyPatch) -> ObjectStore:
    """Return an empty store, which a home in the folder uses."""
    store = ObjectStore(f"s3://{bucket}/{folder.name.lower()}")
    patch.setenv("FLYWHEEL_STORE", store.url)
    patch.setenv("FLYWHEEL_HOME", str(folder / "a"))
    return store


def share(folder: Path, patch: pytest.MonkeyPatch) -> House:
    """Make a home whose outputs are in its store, and an MLflow without models."""
    patch.setenv("MLFLOW_TRACKING_URI", mlflow_stores.create(folder))
    MlflowClient().create_registered_model(WORKLOAD)
    built = erased_home.build(folder / "a")
    job = built.settings.jobs / "train-a1"
    for name in ("spec.json", "log.txt"):
        settings.load().publish(job / name)
    return built


@pytest.fixture
def store(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    return empty_store(bucket, tmp_path, monkeypatch)


@pytest.fixture
def shared(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    return share(tmp_path, monkeypatch)


@dataclass(frozen=True)
class Erased:
    """A shared home from which a person was erased, and its snapshots from before."""

    house: House
    store: ObjectStore
    backup: Path
    written: Certificate


@pytest.fixture(scope="module")
def erased(
    bucket: str, tmp_path_factory: pytest.TempPathFactory, eraser: Eraser
) -> Generator[Erased]:
    """In whose store lay what pushes left that were killed, or finished second."""
    folder = tmp_path_factory.mktemp("erased")
    with pytest.MonkeyPatch.context() as patch:
        store = empty_store(bucket, folder, patch)
        house = share(folder, patch)
        asked, system = erased_home.question(ANN, 3), S3FileSystem(use_listings_cache=False)
        for place in (
            f"snapshots/{WORKLOAD}/killed/{'0' * 64}",
            f"scorecards/{WORKLOAD}/c1/{'1' * 64}",
        ):
            system.pipe_file(f"{store.url}/{place}", asked.encode())
        assert in_any_version(store, [asked])
        shutil.copytree(house.settings.snapshots, folder / "backup")
        yield Erased(house, store, folder / "backup", erase_ann(eraser))


def in_any_version(store: ObjectStore, words: list[str]) -> list[str]:
    """The objects in whose bytes a word stands, in any version of them."""
    system: Any = S3FileSystem(use_listings_cache=False)  # untyped
    bucket, _, prefix = store.url.removeprefix("s3://").partition("/")
    page = system.call_s3("list_object_versions", Bucket=bucket, Prefix=f"{prefix}/")
    found: list[str] = []
    for each in page.get("Versions", ()):
        key = {"Bucket": bucket, "Key": each["Key"], "VersionId": each["VersionId"]}
        body = system.call_s3("get_object", **key)["Body"]
        content: Any = sync(system.loop, body.read)
        found += [each["Key"] for word in words if word.encode() in content]
    return found


def erase_ann(eraser: Eraser) -> Certificate:
    return eraser(settings.load(), Subject(ANN))


def test_nothing_of_a_person_is_left_in_any_version_of_the_bucket(erased: Erased) -> None:
    store, written = erased.store, erased.written
    assert written.is_clean, written.searched.left
    assert in_any_version(store, [erased_home.question(ANN, 3), ANN]) == []
    assert not S3FileSystem(use_listings_cache=False).exists(f"{store.url}/jobs/train-a1")
    assert not store.names(f"snapshots/{WORKLOAD}")
    assert not store.names(f"scorecards/{WORKLOAD}")
    assert written.searched.passed_over == ("adapters/**.safetensors",)


def test_emptied_evidence_replaces_the_one_in_the_store(
    erased: Erased, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "b"))
    (folder,) = output_folders.find(settings.load().evidence / WORKLOAD)
    assert "Erased: this page showed requests of" in (folder / "report.html").read_text()
    manifest.read_untouched(folder)


def killed_pull(home: Settings, shared: House) -> None:
    """What a process leaves that is killed while it pulls a snapshot, or replaces one by it."""
    for name in (f".{shared.frozen.key}.partial", f".{shared.frozen.key}.replaced.partial"):
        left = home.snapshots / WORKLOAD / name
        left.mkdir(parents=True)
        (left / "train.jsonl").write_text(erased_home.question(ANN, 3))


@pytest.mark.slow
def test_another_machine_deletes_its_copies_and_is_named_until_it_has(
    shared: House,
    store: ObjectStore,
    eraser: Eraser,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "b"))
    other = settings.load()
    erased_copies.enter(other)
    for root in (other.snapshots, other.scorecards, other.evidence, other.adapters):
        assert output_folders.find(root / WORKLOAD)
    job = other.jobs / "train-a1"
    job.mkdir(parents=True)
    spec = {"snapshot": str(other.snapshots / WORKLOAD / shared.frozen.key)}
    (job / "spec.json").write_text(json.dumps(spec))
    (job / "log.txt").write_text(erased_home.question(ANN, 3))
    killed_pull(other, shared)
    unfinished = other.scorecards / WORKLOAD / "unfinished" / "samples.parquet"
    unfinished.parent.mkdir()
    unfinished.write_text(erased_home.question(ANN, 3))
    verdicts = other.scorecards / WORKLOAD / VERDICTS_FILE
    verdicts.write_text('["of a question", "first"]\n')

    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "a"))
    home = settings.load()
    killed_pull(home, shared)
    written = erase_ann(eraser)
    name = erased_copies.machine_name(other)
    S3FileSystem(use_listings_cache=False).pipe_file(f"{store.url}/erased/0.json", b"\xff")
    store.write("erased/1.json", "not a list")
    waiting = f"copies of the machine {name}, whose worker has not answered yet"
    assert waiting in written.searched.passed_over
    assert written.is_clean, written.searched.left
    asked = erased_home.question(ANN, 3)
    assert erased_home.holds(other.home, asked)

    erased_copies.forget(other)
    assert erased_home.holds(other.home, asked) == []
    assert not job.exists()
    assert not verdicts.exists()
    assert (other.adapters / WORKLOAD / "a1" / "adapter_model.safetensors").exists()
    searched = erase.verify_erasure(home, subject=Subject(ANN), certificate_path=None)
    assert waiting not in searched.passed_over

    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "b"))
    (evidence,) = output_folders.find(other.evidence / WORKLOAD)
    verdicts.write_text('["of a question asked since", "first"]\n')
    erased_copies.forget(other)
    assert (evidence / manifest.NAME).exists(), "what was emptied stays"
    assert verdicts.exists(), "they are of what was kept"


def test_a_damaged_object_of_an_output_keeps_no_other_erasure_from_being_followed(
    store: ObjectStore,
) -> None:
    home = settings.load()
    snapshot = home.snapshots / WORKLOAD / "s1"
    snapshot.mkdir(parents=True)
    (snapshot / manifest.NAME).write_text("{}")
    S3FileSystem().pipe_file(f"{store.url}/snapshots/{WORKLOAD}/s1/{manifest.NAME}", b"\xff")
    store.write("erased/c1.json", json.dumps([asdict(Output("snapshot", WORKLOAD, "s1"))]))
    store.write("erased/c2.json", "[]")
    assert erased_copies.forget(home) == {"c2.json"}
    assert erased_copies.machine_name(home) not in store.names("erased/c1")


def test_a_machine_deletes_its_copies_though_its_lake_was_away_for_a_while(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    monkeypatch.setenv("FLYWHEEL_WAREHOUSE", "postgres://127.0.0.1:1/away")
    home, is_over = settings.load(), Event()
    home.archive.mkdir(parents=True)  # it is cleared with the lake's help
    store.write("erased/c1.json", "[]")
    worker = Thread(target=erased_copies.forget_until, args=(home, set(), is_over, 0.1))
    worker.start()
    try:
        assert eventually(lambda: any("was erased elsewhere" in line for line in logged))
        home.archive.rmdir()
        assert eventually(lambda: erased_copies.machine_name(home) in store.names("erased/c1"))
    finally:
        is_over.set()
        worker.join()


def eventually(claim: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not claim() and time.monotonic() < deadline:
        time.sleep(0.02)
    return claim()


def test_copies_that_a_restored_backup_brings_back_are_deleted_and_not_pushed_again(
    erased: Erased,
) -> None:
    home = settings.load()
    shutil.copytree(erased.backup, home.snapshots, dirs_exist_ok=True)
    assert erased.house.frozen.path.exists()
    assert home.store
    home_backup.push_outputs(home, home.store, print)
    assert not erased.house.frozen.path.exists()
    assert output_folders.names(home.snapshots / WORKLOAD) == []


@pytest.mark.slow
def test_what_a_restore_pushes_while_another_machine_erases_it_is_deleted_again(
    shared: House,
    store: ObjectStore,
    eraser: Eraser,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    place = shared.frozen.path.relative_to(shared.settings.home).as_posix()
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "b"))
    other = settings.load()
    assert output_folders.fetch(other.home / place)
    before = erased_copies.forget(other)
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "a"))
    erase_ann(eraser)
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "b"))
    assert moved_outputs.push(store, other.home, place).is_copied
    assert erased_copies.take_back(other, before, [place]) == [place]
    assert store.files(place) == []
    assert not (other.home / place).exists()


def test_what_is_left_in_the_store_makes_a_certificate_unclean(erased: Erased) -> None:
    home = settings.load()
    path = f"{erased.store.url}/snapshots/{WORKLOAD}/{erased.house.frozen.key}/{'0' * 64}"
    S3FileSystem().pipe_file(path, b"pushed again by a machine that knows of nothing")
    searched = erase.verify_erasure(home, subject=Subject(ANN), certificate_path=None)
    (left,) = searched.left
    assert left.where == path.rpartition("/")[0]
    assert erased.written.is_clean


@pytest.mark.slow
def test_a_push_during_an_erasure_sends_again_what_was_tidied_away(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = S3FileSystem.pipe_file

    def tidied_first(system: S3FileSystem, path: str, *args: Any, **more: Any) -> object:
        store.tidy(f"s3://{path}".removeprefix(f"{store.url}/").rpartition("/")[0])
        return pipe(system, path, *args, **more)

    with monkeypatch.context() as during:
        during.setattr(S3FileSystem, "pipe_file", tidied_first)
        folder = buckets.finish_output(tmp_path / "a", key="during")
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "b"))
    assert output_folders.fetch(tmp_path / "b" / folder.relative_to(tmp_path / "a"))
