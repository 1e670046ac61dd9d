"""What the first of several machines shows in an object store, and what the others make of it."""

import json
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path

import pytest

from components.store.object_store import ObjectStore
from components.train.recipe import Recipe
from flows import settings
from flows.jobs import peer
from flows.jobs.job_specs import TrainSpec
from flows.jobs.machines import SILENT_SECONDS, Announcement, SharedTraining, ShownTrainings
from tests.support import buckets

STORE = ObjectStore("s3://flywheel/team")
PLACE = "machines/10.0.0.4-29500.json"
THERE = Path("/there")
SPEC = TrainSpec(
    snapshot=THERE / "snapshots/w/s",
    base=THERE / "base",
    folder=THERE / "adapters/w/a",
    recipe=Recipe(),
)
ANNOUNCED = Announcement("a1", "train", "/there/jobs/train-a/spec.json", 1)


@pytest.fixture(scope="module")
def server() -> Generator[None]:
    with buckets.serving():
        yield


def show(beat: int, attempt: str = "a1") -> None:
    content = {
        "home": str(THERE),
        "base": "0123",
        "spec": SPEC.model_dump(mode="json"),
        "beat": beat,
        "announcement": {**asdict(ANNOUNCED), "attempt": attempt},
    }
    STORE.write(PLACE, json.dumps(content))


def test_a_training_is_joined_only_while_its_machine_goes_on_to_show_it(server: None):
    shown = ShownTrainings(STORE, PLACE)
    assert shown.read(0.0) is None
    show(7)
    assert shown.read(1.0) is None, "it may be left by a machine that was killed"
    assert shown.read(500.0) is None
    show(8)
    training = shown.read(501.0)
    assert training == SharedTraining(ANNOUNCED, THERE, "0123", SPEC)
    assert shown.read(501.0 + SILENT_SECONDS) == training
    assert shown.read(502.0 + SILENT_SECONDS) is None
    show(9)
    assert shown.read(900.0) == training
    show(1, attempt="a2")
    assert shown.read(901.0) is None, "another attempt has to show that it runs, too"
    show(2, attempt="a2")
    again = shown.read(902.0)
    assert again is not None and again.announcement.attempt == "a2"
    STORE.remove_file(PLACE)
    assert shown.read(903.0) is None


@pytest.mark.parametrize(
    "change",
    [
        {"snapshot": Path("/elsewhere/s")},
        {"folder": THERE / "adapters/../../../etc"},
        {"reached": Path("/there/../etc/passwd")},
    ],
)
def test_paths_that_are_not_of_the_first_machines_home_are_refused(
    server: None, tmp_path: Path, change: dict[str, Path]
):
    home = settings.load({"FLYWHEEL_HOME": str(tmp_path), "FLYWHEEL_STORE": STORE.url})
    training = SharedTraining(ANNOUNCED, THERE, "0123", SPEC.model_copy(update=change))
    with pytest.raises(ValueError, match="/"):
        peer.fetch_training(home, training)
    assert [*tmp_path.iterdir()] == []


def test_a_snapshot_that_the_store_lacks_is_named(
    server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    variables = {"FLYWHEEL_HOME": str(tmp_path), "FLYWHEEL_STORE": STORE.url}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    training = SharedTraining(ANNOUNCED, THERE, "0123", SPEC)
    with pytest.raises(LookupError, match="has no snapshots/w/s"):
        peer.fetch_training(settings.load(), training)
