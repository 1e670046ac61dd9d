"""Outputs of machines that share a bucket and no folder; a machine is a process with a home."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from s3fs import S3FileSystem

from components.extensions.machines import moved_outputs
from components.extensions.machines.object_store import DamagedObjectError, ObjectStore, StoreError
from components.store import manifest, output_folders
from components.store.output_folders import SourceGoneError
from flows import settings
from tests.support import buckets
from tests.support.buckets import finish_output

STORE = ObjectStore("s3://flywheel/team/a")


@pytest.fixture(scope="module")
def server() -> Generator[None]:
    with buckets.serving():
        yield


@pytest.fixture
def home(tmp_path: Path, server: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    buckets.emptied()
    monkeypatch.setenv("FLYWHEEL_STORE", STORE.url + "/")
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "a"))
    return tmp_path / "a"


def elsewhere(folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same output at another machine, as this process from now on is."""
    other = home.with_name("b")
    monkeypatch.setenv("FLYWHEEL_HOME", str(other))
    return other / folder.relative_to(home)


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_what_one_machine_finished_another_one_finds_lists_and_reads(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = finish_output(home)
    there = elsewhere(here, home, monkeypatch)
    assert output_folders.find(there.parent, "01") == [there]
    assert contents(there) == contents(here)
    assert output_folders.names(there.parent) == ["0123"]
    assert output_folders.names(there.parents[1]) == ["shop%20a"]
    assert not output_folders.fetch(there.with_name("4567"))


def test_reading_a_manifest_pulls_its_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = elsewhere(finish_output(home), home, monkeypatch)
    assert manifest.read_untouched(there)["snapshot"] == "one"


def test_without_the_variable_nothing_is_sent(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLYWHEEL_STORE")
    finish_output(home)
    assert not S3FileSystem(use_listings_cache=False).exists("flywheel/team")


def test_a_folder_outside_of_the_outputs_stays_on_its_machine(home: Path) -> None:
    for path in (home.parent / "copy", home / "jobs" / "train-0123", home / "turns" / "a" / "b"):
        assert settings.find_place(path) is None


KILLED = """
import os, sys
from pathlib import Path
from s3fs import S3FileSystem
import flows.settings
from tests.support import buckets
left = 0
def counted(call):
    def wrapped(*args, **kwargs):
        global left
        if left == 0:
            os.kill(os.getpid(), 9)
        left -= 1
        return call(*args, **kwargs)
    return wrapped
S3FileSystem.put_file = counted(S3FileSystem.put_file)
S3FileSystem.pipe_file = counted(S3FileSystem.pipe_file)
for left in range(4):
    if not (child := os.fork()):
        buckets.finish_output(Path(os.environ["FLYWHEEL_HOME"]), key=f"after-{left}")
    assert os.waitpid(child, 0)[1] == 9
"""


@pytest.mark.slow
def test_a_push_that_is_killed_is_invisible_and_can_be_repeated(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run([sys.executable, "-c", KILLED], check=True)
    root = home / "adapters" / "shop%20a"
    keys = [f"after-{sent}" for sent in range(4)]  # files; the last one lacks the manifest only
    assert sorted(path.name for path in root.iterdir()) == keys
    assert output_folders.find(root) == []
    there = elsewhere(root, home, monkeypatch)
    assert output_folders.find(there) == []
    monkeypatch.setenv("FLYWHEEL_HOME", str(home))
    for key in keys:
        finish_output(home, key=key)
    elsewhere(root, home, monkeypatch)
    assert [folder.name for folder in output_folders.find(there)] == keys
    assert contents(there) == contents(root)


def test_a_kill_between_store_and_home_leaves_a_finished_output(home: Path) -> None:
    folder = finish_output(home)
    before = contents(folder)
    (folder / manifest.NAME).unlink()  # the push was done, the home's own manifest not
    (folder / "weights").write_text("of another attempt")
    assert output_folders.fetch(folder)
    assert contents(folder) == before


def test_a_pull_that_is_killed_leaves_nothing_that_counts(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finish_output(home)
    there = elsewhere(folder, home, monkeypatch)
    left = there.with_name(f".{there.name}{output_folders.PARTIAL}")
    left.mkdir(parents=True)
    (left / "weights").write_text("half")
    there.mkdir()
    (there / "weights").write_text("one weights")
    assert output_folders.names(there.parent) == ["0123"]
    assert output_folders.fetch(there)
    assert contents(there) == contents(folder)
    assert sorted(path.name for path in there.parent.iterdir()) == ["0123"]


RACE = """
import os
from pathlib import Path
import flows.settings
from tests.support import buckets
home = Path(os.environ["FLYWHEEL_HOME"])
reading, writing = os.pipe()
children = []
for content, place in (("one", home), ("two", home.with_name("b"))):
    if not (child := os.fork()):
        os.close(writing)
        os.environ["FLYWHEEL_HOME"] = str(place)
        os.read(reading, 1)
        for number in range(20):
            buckets.finish_output(place, content, f"key{number}")
        os._exit(0)
    children.append(child)
os.close(writing)
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
"""


@pytest.mark.slow
def test_two_machines_that_finish_one_key_at_once_end_with_the_same_bytes(home: Path) -> None:
    subprocess.run([sys.executable, "-c", RACE], check=True)
    homes = (home, home.with_name("b"))
    winners: set[str] = set()
    for number in range(20):
        first, second = (place / "adapters" / "shop%20a" / f"key{number}" for place in homes)
        assert contents(first) == contents(second)
        manifest.read_untouched(first)
        winners.add((first / "weights").read_text()[:3])
    assert winners <= {"one", "two"}


def damage(folder: Path, home: Path, name: str) -> str:
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    path = f"{STORE.url}/{folder.relative_to(home)}/{digest}"
    S3FileSystem().pipe_file(path, b"something else")
    return path


def test_a_damaged_object_is_refused_and_nothing_is_kept(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finish_output(home)
    path = damage(folder, home, "weights")
    there = elsewhere(folder, home, monkeypatch)
    with pytest.raises(DamagedObjectError, match=f"pulling weights from {path}"):
        output_folders.fetch(there)
    assert [*there.parent.iterdir()] == []
    S3FileSystem().rm_file(path)
    with pytest.raises(DamagedObjectError, match="its 0 bytes"):
        output_folders.fetch(there)


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({"../../x": "0" * 64}, id="parent"),
        pytest.param({"/etc/x": "0" * 64}, id="absolute"),
        pytest.param({"deep/../../x": "0" * 64}, id="through"),
        pytest.param({"manifest.json": "0" * 64}, id="itself"),
        pytest.param({"x": "../keys/signing.key"}, id="digest"),
        pytest.param({"": "0" * 64}, id="empty"),
    ],
)
def test_a_manifest_in_the_bucket_names_no_path_outside_of_its_folder(
    home: Path, files: dict[str, str]
) -> None:
    record = json.dumps({"files": files})
    S3FileSystem().pipe_file(f"{STORE.url}/adapters/a/b/manifest.json", record.encode())
    with pytest.raises(DamagedObjectError, match="expected a path inside the folder"):
        output_folders.fetch(home / "adapters" / "a" / "b")
    assert not home.exists()


def test_what_is_pulled_is_on_the_disk_before_it_counts_as_finished(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = elsewhere(finish_output(home), home, monkeypatch)
    synced = dict[str, bool]()

    def note(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced[path.name] = (there / manifest.NAME).exists()

    monkeypatch.setattr(os, "fsync", note)
    assert output_folders.fetch(there)
    names = {path.name for path in there.rglob("*") if path.is_file()} - {manifest.NAME}
    assert synced == dict.fromkeys([*names, f"{manifest.NAME}.partial"], False)


class WhileErased(ObjectStore):
    """A store that an erasure of the same home reaches before the manifest of a push."""

    def create(self, place: str, text: str) -> str:
        output_folders.remove((settings.load().home / place).parent)
        return super().create(place, text)


def test_an_output_that_is_erased_while_a_migration_pushes_it_is_not_in_the_store(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FLYWHEEL_STORE")
    folder = finish_output(home)
    monkeypatch.setenv("FLYWHEEL_STORE", STORE.url)
    place = folder.relative_to(home).as_posix()
    moved = moved_outputs.push(WhileErased(STORE.url), home, place)
    assert (moved.is_copied, STORE.files(place)) == (False, [])
    assert "deleted meanwhile" in str(moved.objection)


def test_removing_an_output_leaves_nothing_of_it_here_or_in_the_store(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finish_output(home)
    kept = finish_output(home, key="4567")
    output_folders.remove(folder)
    assert not output_folders.fetch(folder)
    assert not folder.exists()
    system = S3FileSystem(use_listings_cache=False)
    assert not system.find(f"{STORE.url}/{folder.relative_to(home)}")
    assert output_folders.fetch(elsewhere(kept, home, monkeypatch))


@pytest.mark.parametrize("where", ["here", "in the store"])
def test_what_was_made_from_an_output_that_is_deleted_meanwhile_is_not_kept(
    home: Path, where: str
) -> None:
    source = finish_output(home)
    sources = output_folders.count_copies([source])
    assert sources == {source: 2}
    output = home / "adapters" / "shop%20a" / "4567"
    with (
        pytest.raises(SourceGoneError, match=r"4567: .*0123, which it is made from, was deleted"),
        output_folders.while_kept(sources, output),
    ):
        finish_output(home, key="4567")
        (output_folders.forget if where == "here" else output_folders.withdraw)(source)
    assert output_folders.names(output.parent) == ["0123"]
    with (
        pytest.raises(SourceGoneError),
        output_folders.while_kept(sources, output),
    ):
        pytest.fail("it was known before")


def test_a_store_that_keeps_what_was_first_passes_and_nothing_of_the_check_is_left(
    home: Path,
) -> None:
    STORE.check()
    assert not S3FileSystem(use_listings_cache=False).find(STORE.url)


def test_a_store_that_ignores_conditions_is_named() -> None:
    with (
        buckets.serving(forgetful=True),
        pytest.raises(StoreError, match="in spite of If-None-Match"),
    ):
        STORE.check()


def test_a_store_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in buckets.variables("").items():
        monkeypatch.setenv(name, value)
    buckets.take_away(monkeypatch)
    with pytest.raises(StoreError, match=r"^writing to the object store s3://flywheel/team/a: ."):
        STORE.check()
    S3FileSystem.clear_instance_cache()


def test_a_store_whose_answers_are_cut_is_named(tmp_path: Path) -> None:
    with buckets.cutting(), pytest.raises(StoreError, match=r"^copying: .*not completed"):
        copy_from(STORE, tmp_path / "copy")


def copy_from(store: ObjectStore, path: Path) -> None:
    with store.reaching("copying"):
        store.get("spool/segment", path)


def test_what_a_key_may_not_do_below_a_place_is_listed() -> None:
    closed = {"spool": "LIST", "lake": "POST", "jobs": "HEAD", "turns": "DELETE"}
    refused = {"spool": "list", "lake": "write", "jobs": "read", "turns": "delete"}
    with buckets.serving(closed=[(method, f"team/a/{at}/") for at, method in closed.items()]):
        assert {at: STORE.refused(at) for at in closed} == {at: [refused[at]] for at in closed}
        assert STORE.refused("snapshots") == []
        assert not S3FileSystem(use_listings_cache=False).find("flywheel")


def test_the_check_of_what_is_allowed_leaves_no_version() -> None:
    with buckets.serving_versions() as bucket:
        store = ObjectStore(f"s3://{bucket}/team")
        assert store.refused("spool") == []
        assert store.versions("spool") == 0
        assert store.old_versions("spool") == []


@pytest.mark.parametrize(("version", "is_old"), [("0.4.2", True), ("2025.3.0", False)])
def test_an_s3fs_that_knows_no_conditions_is_refused(
    version: str, is_old: bool, tmp_path: Path
) -> None:
    info = tmp_path / "s3fs-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: s3fs\nVersion: {version}\n")
    code = "from components.extensions.machines import object_store; object_store.require_s3fs()"
    path = f"{tmp_path}:{Path.cwd()}"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode != 0) == is_old, ended.stderr
    assert ("s3fs is 0.4.2, which overwrites" in ended.stderr) == is_old


@pytest.mark.parametrize(
    "url",
    ["s3://", "/srv/store", "http://host/bucket", "s3://B/a", "s3://bucket/a b", "s3://b/../a"],
)
def test_a_url_that_names_no_bucket_is_refused(url: str) -> None:
    with pytest.raises(settings.SettingsError, match=r"FLYWHEEL_STORE is .*expected s3://BUCKET"):
        settings.load({"FLYWHEEL_STORE": url})
