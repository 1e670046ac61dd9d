"""A training whose machine is lost goes on at another one that shares the store and no folder."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from s3fs import S3FileSystem

from components.extensions.machines import object_store
from components.extensions.machines.object_store import ObjectStore
from components.train import checkpoints
from components.train.recipe import Recipe
from flows import settings
from flows.jobs import runner
from flows.jobs.job_specs import TrainSpec
from flows.machines import shared_job
from tests.support import buckets

pytestmark = pytest.mark.lake

MODULES = Path(__file__).parent / "modules"
STORE = ObjectStore("s3://flywheel/team")
RUN = """
import os, sys
from pathlib import Path
from flows.jobs import runner
from flows.jobs.job_specs import TrainSpec
home = Path(os.environ["FLYWHEEL_HOME"])
spec = TrainSpec.model_validate_json(sys.argv[1])
runner.run_job(spec, home / "jobs" / "train-0123", print, module="saving_job")
"""


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(MODULES), str(Path.cwd())]))
    monkeypatch.setenv("FLYWHEEL_STORE", STORE.url)
    with buckets.serving():
        yield


def wait_until(claim: Callable[[], bool], training: "subprocess.Popen[bytes]") -> None:
    while not claim():
        assert training.poll() is None, "the training ended"
        time.sleep(0.2)


def train(home: Path) -> "subprocess.Popen[bytes]":
    """Start the training at a machine, in a process of its own as a flow run is."""
    adapter = home / "adapters" / "shop" / "0123"
    spec = TrainSpec(
        snapshot=home / "snapshots" / "s", base=home / "base", folder=adapter, recipe=Recipe()
    )
    command = [sys.executable, "-c", RUN, spec.model_dump_json()]
    return subprocess.Popen(command, env=os.environ | {"FLYWHEEL_HOME": str(home)})


def stored() -> list[str]:
    """The checkpoints in the store that are whole."""
    place = "checkpoints/shop/0123"
    names = STORE.names(place)
    return [name for name in names if STORE.read(f"{place}/{name}/manifest.json")]


def progress_seen_from(home: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("FLYWHEEL_HOME", str(home))
    progress = runner.newest_progress(home / "jobs" / "train-0123")
    return progress.done if progress else 0


def test_a_training_goes_on_elsewhere_from_its_last_whole_checkpoint_and_is_seen_there(
    machines: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    training = train(first)
    wait_until(lambda: stored() == ["checkpoint-2"], training)
    wait_until(lambda: progress_seen_from(third, monkeypatch) == 3, training)
    training.kill()
    training.wait()
    assert (first / "adapters/shop/0123/checkpoints/checkpoint-3").exists(), "unsealed"

    again = train(second)
    wait_until(lambda: stored() == ["checkpoint-4"], again)
    wait_until(lambda: progress_seen_from(third, monkeypatch) == 5, again)
    again.kill()
    again.wait()
    assert not (third / "jobs").exists(), "looking writes nothing"
    spec = STORE.read("jobs/train-0123/spec.json")
    assert spec is not None
    assert json.loads(spec)["folder"].startswith(str(second))
    sealed = checkpoints.newest_checkpoint(second / "adapters/shop/0123/checkpoints", Recipe())
    assert sealed is not None
    assert sealed.name == "checkpoint-4"

    shared_job.forget_checkpoints(third / "adapters" / "shop" / "0123")
    assert stored() == []


def test_a_damaged_checkpoint_in_the_store_is_passed_over(
    machines: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("FLYWHEEL_HOME", str(home))
    sound, damaged = (tmp_path / f"checkpoint-{step}" for step in (1, 2))
    for folder in (sound, damaged):
        folder.mkdir()
        (folder / "weights").write_text(folder.name)
        checkpoints.seal_checkpoint(folder)
        shared_job.push_checkpoint(settings.load(), "checkpoints/shop/0123", folder)
    system = S3FileSystem(use_listings_cache=False)
    place = f"{STORE.url}/checkpoints/shop/0123/checkpoint-2"
    for path in system.find(place):
        if not path.endswith("manifest.json"):
            system.pipe_file(path, b"something else")
    adapter = home / "adapters" / "shop" / "0123"
    shared_job.pull_checkpoints(settings.load(), adapter)
    newest = checkpoints.newest_checkpoint(adapter / "checkpoints", Recipe())
    assert newest is not None
    assert newest.name == "checkpoint-1"


def test_a_checkpoint_whose_end_the_store_refused_for_a_while_is_pushed_later(
    machines: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, pipe, refused = tmp_path / "home", S3FileSystem.pipe_file, list[str]()

    def refusing(system: S3FileSystem, path: str, *args: Any, **more: Any) -> object:
        if len(refused) < object_store.ATTEMPTS:
            refused.append(path)
            raise OSError("please reduce your request rate")
        return pipe(system, path, *args, **more)

    monkeypatch.setenv("FLYWHEEL_HOME", str(home))
    monkeypatch.setattr(S3FileSystem, "pipe_file", refusing)
    adapter = home / "adapters" / "shop" / "0123"
    checkpoint = adapter / "checkpoints" / "checkpoint-1"
    checkpoint.mkdir(parents=True)
    (checkpoint / "weights").write_text("learned")
    checkpoints.seal_checkpoint(checkpoint)
    with shared_job.shared(home / "jobs" / "train-0123", adapter):
        deadline = time.monotonic() + 30
        while len(refused) < object_store.ATTEMPTS and time.monotonic() < deadline:
            time.sleep(0.1)
    assert STORE.read("checkpoints/shop/0123/checkpoint-1/manifest.json") is not None
