"""Whoever may write to the bucket of a home, and what the names of objects can't do to it."""

import hashlib
import json
from collections.abc import Generator
from pathlib import Path

import pytest

from components.extensions.machines.object_store import ObjectStore, StoreError
from components.store import output_folders, shared_files
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
    monkeypatch.setenv("FLYWHEEL_STORE", STORE.url)
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def plant(place: str, name: str, text: str) -> None:
    """Write an output's objects as an attacker does, by keys that no push of ours makes."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    system = buckets.emptied("flywheel/nothing")
    at = f"flywheel/team/a/{place}"
    system.call_s3("put_object", Bucket="flywheel", Key=f"team/a/{place}/{digest}", Body=text)
    body = json.dumps({"files": {name: digest}})
    system.call_s3("put_object", Bucket="flywheel", Key=f"team/a/{place}/manifest.json", Body=body)
    assert any("manifest" in path for path in system.find(at))


def test_no_name_of_an_object_leads_out_of_its_folder(home: Path) -> None:
    (home / "keys").mkdir(parents=True)
    (home / "keys/signing.pub").write_text("ours")
    plant("snapshots/../keys", "signing.pub", "theirs")
    plant("adapters/support/..", "x", "in the way")
    plant("jobs/../keys", "signing.pub", "theirs")
    ours = finish_output(home)
    assert output_folders.names(home / "snapshots") == []
    assert output_folders.names(home / "adapters") == ["shop%20a", "support"]
    assert output_folders.find(home / "adapters" / "support") == []
    assert output_folders.find(ours.parent) == [ours]
    STORE.copy_files("jobs", home / "copies")
    assert (home / "keys/signing.pub").read_text() == "ours"
    assert not list(home.glob("copies/**/*.pub"))


def test_a_path_that_leads_out_is_no_place_of_the_store(home: Path) -> None:
    plant("snapshots/../keys", "signing.pub", "theirs")
    assert settings.find_place(home / "snapshots" / ".." / "keys") is None
    assert not output_folders.fetch(home / "snapshots" / ".." / "keys")
    with pytest.raises(StoreError, match="leads out of its folder"):
        STORE.pull("snapshots/../keys", home / "keys")
    assert shared_files.shared_place(home / "snapshots" / "support") is not None
