"""Outputs that were finished before a home had a store are pushed, if they are as they were."""

from collections.abc import Generator
from pathlib import Path

import pytest
from s3fs import S3FileSystem

from components.extensions.machines import moved_outputs
from components.extensions.machines.object_store import ObjectStore
from components.store import manifest, output_folders
from tests.support import buckets
from tests.support.buckets import finish_output

STORE = ObjectStore("s3://flywheel/team")
PLACE = "adapters/shop%20a/0123"


@pytest.fixture(scope="module")
def server() -> Generator[None]:
    with buckets.serving():
        yield


@pytest.fixture
def system(server: None) -> S3FileSystem:
    return buckets.emptied()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with one finished output and one of a training that still runs."""
    monkeypatch.delenv("FLYWHEEL_STORE", raising=False)
    home = tmp_path / "a"
    monkeypatch.setenv("FLYWHEEL_HOME", str(home))
    finish_output(home, "first", "0123")
    (home / "adapters/shop%20a/89ab").mkdir()
    return home


def push(home: Path) -> moved_outputs.PushedOutput:
    return moved_outputs.push(STORE, home, PLACE)


def test_a_finished_output_is_pushed_once_and_another_machine_finds_it(
    home: Path, system: S3FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert moved_outputs.places_here(home, ("adapters", "snapshots")) == [PLACE]
    assert push(home).is_copied
    assert push(home) == moved_outputs.PushedOutput()
    other = home.with_name("b")
    monkeypatch.setenv("FLYWHEEL_STORE", STORE.url)
    monkeypatch.setenv("FLYWHEEL_HOME", str(other))
    assert output_folders.fetch(other / PLACE)
    assert (other / PLACE / "weights").read_bytes() == (home / PLACE / "weights").read_bytes()


def test_what_the_store_lost_of_an_output_is_pushed_again(home: Path, system: S3FileSystem) -> None:
    push(home)
    files = manifest.read(home / PLACE)["files"]
    assert isinstance(files, dict)
    gone = f"flywheel/team/{PLACE}/{files['weights']}"
    system.rm_file(gone)
    assert push(home).is_copied
    assert system.cat_file(gone) == (home / PLACE / "weights").read_bytes()


def test_what_was_changed_or_differs_is_named_and_not_pushed(
    home: Path, system: S3FileSystem
) -> None:
    (home / PLACE / "weights").write_text("changed")
    assert push(home).objection == "weights was changed after it was finished"
    assert not system.exists(f"flywheel/team/{PLACE}/manifest.json")
    (home / PLACE / "weights").unlink()
    assert push(home).objection == "weights is gone"
    STORE.write(f"{PLACE}/manifest.json", '{"files": {}}')
    finish_output(home.with_name("c"), "other", "0123")
    assert push(home.with_name("c")).objection == "another output was finished under this key"


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(b"\xff\xfe", id="no-text"),
        pytest.param(b"[]", id="no-object"),
        pytest.param(b'{"files": ["weights"]}', id="no-digests"),
        pytest.param(b'{"files": {"weights": 7}}', id="a-number-for-a-digest"),
        pytest.param(b'{"files": {"a\\u0000b": "' + b"0" * 64 + b'"}}', id="no-name-of-a-file"),
    ],
)
def test_a_manifest_that_is_none_is_named(home: Path, system: S3FileSystem, record: bytes) -> None:
    (home / PLACE / "manifest.json").write_bytes(record)
    assert push(home).objection is not None
    assert not system.exists(f"flywheel/team/{PLACE}/manifest.json")
