"""One training over two machines that share an object store and no folder."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from components.store import manifest
from components.store.object_store import ObjectStore
from components.train.recipe import Recipe
from flows.jobs.job_specs import TrainSpec
from tests.support import buckets, machines, tiny, training_rows

pytestmark = [pytest.mark.slow, pytest.mark.lake, pytest.mark.timeout(2400)]

STORE = ObjectStore("s3://flywheel/team")
SNAPSHOT = "snapshots/support/0123456789abcdef"

RUN = """
import sys
from pathlib import Path
from flows.jobs import job_specs, runner
spec = Path(sys.argv[1])
runner.run_job(job_specs.read("train", spec), spec.parent, lambda progress: None)
"""


@dataclass
class Team:
    """Machines `0` and `1`, each with a home that the other one can't see."""

    root: Path
    variables: dict[str, str]
    base: Path
    running: list["subprocess.Popen[bytes]"] = field(
        default_factory=list["subprocess.Popen[bytes]"]
    )

    def home(self, number: int) -> Path:
        return self.root / f"machine{number}" / "home"

    def adapter(self, number: int, name: str) -> Path:
        return self.home(number) / "adapters" / "support" / name

    def spec(self, name: str) -> Path:
        recipe = Recipe(
            r=4,
            learning_rate=1e-2,
            per_device_train_batch_size=6,
            num_train_epochs=6,
            save_steps=2,
            average_checkpoints=2,
        )
        spec = TrainSpec(
            snapshot=self.home(0) / SNAPSHOT,
            base=self.base,
            folder=self.adapter(0, name),
            recipe=recipe,
        )
        path = self.home(0) / "jobs" / f"train-{name}" / "spec.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(spec.model_dump_json())
        return path

    def start(self, number: int, *arguments: object, **more: str) -> "subprocess.Popen[bytes]":
        other = self.root / f"machine{1 - number}"
        command = [sys.executable, *map(str, arguments)]
        hide = f'mount -t tmpfs none {other} && exec "$@"'
        if number == 1:  # the base is on the first machine only
            hide = f"mount -t tmpfs none {self.base} && {hide}"
        log = (self.root / f"log-{len(self.running)}").open("wb")
        process = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", hide, "sh", *command],
            env=os.environ
            | {"FLYWHEEL_HOME": str(self.home(number)), "OMP_NUM_THREADS": "1"}
            | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **self.variables, **more},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        self.running.append(process)
        return process

    def lead(self, name: str, **more: str) -> "subprocess.Popen[bytes]":
        return self.start(0, "-c", RUN, self.spec(name), **more)

    def join(self) -> "subprocess.Popen[bytes]":
        return self.start(1, "-m", "flows.jobs.peer", FLYWHEEL_MACHINE="1")

    def log(self, process: "subprocess.Popen[bytes]") -> str:
        text = (self.root / f"log-{self.running.index(process)}").read_text(errors="replace")
        return text[-8000:]

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        return load_file(self.adapter(0, name) / "adapter_model.safetensors")


def kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill a machine: all of its processes at once."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def wait_until(claim: Callable[[], bool], process: "subprocess.Popen[bytes]", team: Team) -> None:
    while not claim():
        assert process.poll() is None, team.log(process)
        time.sleep(0.1)


@pytest.fixture
def team(tmp_path: Path) -> Generator[Team]:
    if not machines.may_hide_folders():
        pytest.skip("hiding the machines' folders from each other wants root")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meet = f"127.0.0.1:{free.getsockname()[1]}"
    with buckets.serving() as variables:
        shared = {**variables, "FLYWHEEL_STORE": STORE.url}
        shared |= {"FLYWHEEL_MACHINES": "2", "FLYWHEEL_RENDEZVOUS": meet}
        team = Team(tmp_path, shared, tiny.build(tmp_path / "base"))
        for number in (0, 1):
            team.home(number).mkdir(parents=True)
        snapshot = team.home(0) / SNAPSHOT
        snapshot.mkdir(parents=True)
        answers = ["Yes." if number % 2 else "No, not at all." for number in range(30)]
        requests = [f"Number {number * 'x'}?" for number in range(30)]
        training_rows.snapshot(snapshot, list(zip(requests, answers, strict=True)))
        record = json.dumps({"files": manifest.file_digests(snapshot)})
        STORE.push(SNAPSHOT, snapshot, record)
        (snapshot / manifest.NAME).write_text(record)
        try:
            yield team
        finally:
            for process in team.running:
                kill(process)


def test_two_machines_train_one_adapter_and_resume_it_though_one_was_killed(team: Team) -> None:
    peer = team.join()
    leader = team.lead("cut")
    place = "checkpoints/support/cut"
    wait_until(lambda: len(STORE.names(place)) > 1, leader, team)
    kill(peer)
    assert leader.wait() != 0
    job = team.home(0) / "jobs" / "train-cut" / "log.txt"
    assert "the connection to another one was lost" in job.read_text(errors="replace")
    kept = STORE.names(place)
    assert not STORE.names("machines"), "nothing is shown any more"
    peer = team.join()
    again = team.lead("cut")
    assert again.wait() == 0, team.log(again)
    assert "one process finds" not in job.read_text(errors="replace")
    wait_until(lambda: "ended here with code 0" in team.log(peer), peer, team)
    wait_until(lambda: not team.adapter(1, "cut").exists(), peer, team)
    assert json.loads(job.with_name("progress.json").read_text())["done"] == 30
    assert kept
    alone = team.lead("alone", FLYWHEEL_MACHINES="1", FLYWHEEL_PROCESSES="2")
    assert alone.wait() == 0, team.log(alone)
    for name, tensor in team.weights("cut").items():
        torch.testing.assert_close(tensor, team.weights("alone")[name], rtol=1e-3, atol=1e-4)
