"""One training over two machines, which are network namespaces here, gives that of one machine."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from components.evaluate.settings import EvaluationSettings
from components.store import manifest
from components.store.object_store import ObjectStore
from components.train.checkpoints import StopCondition
from components.train.recipe import Recipe
from flows import settings
from flows.jobs import launch, machines
from flows.jobs.job_specs import EvaluateSpec, TrainSpec
from flows.jobs.machines import Announcement
from flows.settings import Machines, SettingsError
from tests.support import tiny, training_rows

HERE = Path()
TWO = Machines(2, 1, "10.0.0.4", 29500)
VARIABLES = {"FLYWHEEL_MACHINES": "2", "FLYWHEEL_RENDEZVOUS": "10.0.0.4:29500"}


def training(recipe: Recipe | None = None, stop: StopCondition | None = None) -> TrainSpec:
    return TrainSpec(snapshot=HERE, base=HERE, folder=HERE, recipe=recipe or Recipe(), stop=stop)


def test_the_machines_are_read_from_the_environment() -> None:
    assert settings.load({}).machines is None
    assert settings.load({"FLYWHEEL_MACHINES": "1"}).machines is None
    assert settings.load(VARIABLES).machines == Machines(2, 0, "10.0.0.4", 29500)
    assert settings.load(VARIABLES | {"FLYWHEEL_MACHINE": "1"}).machines == TWO


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"FLYWHEEL_MACHINES": "two"}, "FLYWHEEL_MACHINES is 'two'"),
        ({"FLYWHEEL_MACHINE": "2"}, "FLYWHEEL_MACHINE is 2; 2 machines have 0 to 1"),
        ({"FLYWHEEL_MACHINE": "-1"}, "FLYWHEEL_MACHINE is '-1'"),
        ({"FLYWHEEL_RENDEZVOUS": ""}, "FLYWHEEL_RENDEZVOUS is '', and FLYWHEEL_MACHINES is 2"),
        ({"FLYWHEEL_RENDEZVOUS": "trainer"}, "expected HOST:PORT"),
        ({"FLYWHEEL_RENDEZVOUS": "trainer:99999"}, "expected HOST:PORT"),
        ({"FLYWHEEL_RENDEZVOUS": "../x:29500"}, "expected HOST:PORT"),
    ],
)
def test_machines_that_cannot_meet_are_refused(variables: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        settings.load(VARIABLES | variables)
    assert message in str(refused.value)


def test_only_trainings_whose_steps_have_an_example_for_each_machine_are_spread() -> None:
    small = Recipe(per_device_train_batch_size=1, gradient_accumulation_steps=1)
    measuring = EvaluateSpec(
        snapshot=HERE,
        base=HERE,
        models={},
        root=HERE,
        settings=EvaluationSettings(),
        side="holdout",
    )
    spread, alone = settings.load(VARIABLES | {"FLYWHEEL_MACHINE": "1"}), settings.load({})
    shared = replace(spread, store=ObjectStore("s3://flywheel/team"))
    assert machines.for_job(training(), spread) == TWO
    assert machines.for_job(training(), alone) is None
    assert machines.for_job(training(recipe=small), spread) is None
    assert machines.for_job(training(stop=StopCondition(at_step=5)), spread) == TWO
    assert machines.for_job(training(stop=StopCondition(deadline=5.0)), spread) is None
    assert machines.for_job(measuring, spread) is None
    measured = Recipe(eval_steps=10)
    assert machines.for_job(training(recipe=measured), spread) == TWO
    assert machines.for_job(training(recipe=measured), shared) is None
    assert machines.for_job(training(), shared) == TWO


def test_the_examples_of_a_step_are_shared_by_all_machines() -> None:
    recipe = Recipe(per_device_train_batch_size=8, gradient_accumulation_steps=1)
    assert launch.process_count(training(recipe=recipe), None, 8, machines=2) == 4
    assert launch.process_count(training(recipe=recipe), 3, 8, machines=2) == 3


def test_each_machine_starts_its_own_processes_and_knows_where_the_first_is() -> None:
    command = launch.processes_command(["-m", "job"], 4, TWO)
    options = dict(itertools.pairwise(command))
    assert options["--num_machines"] == "2"
    assert options["--machine_rank"] == "1"
    assert options["--num_processes"] == "8"
    assert (options["--main_process_ip"], options["--main_process_port"]) == ("10.0.0.4", "29500")


def never() -> None:
    raise AssertionError("nobody else has the machines")


def test_a_training_is_announced_as_long_as_its_machine_holds_it(tmp_path: Path) -> None:
    file = tmp_path / "gpus" / "machines"
    announcement = Announcement("a1", "train", "/home/jobs/train-1/spec.json", 2)
    assert machines.announced(file) is None
    with machines.leading(file, never) as announce:
        assert machines.announced(file) is None, "its GPUs may still be waited for"
        announce(announcement)
        assert machines.announced(file) == announcement
        assert machines.announced(file) == announcement, "looking takes nothing"
    assert machines.announced(file) is None
    with machines.leading(file, never):
        assert machines.announced(file) is None, "what was announced before is over"


def test_a_second_training_waits_until_the_machines_are_free(tmp_path: Path) -> None:
    file, waits = tmp_path / "machines", list[str]()
    with ExitStack() as first:
        first.enter_context(machines.leading(file, never))

        def wait() -> None:
            waits.append("waiting")
            first.close()

        with machines.leading(file, wait):
            assert waits == ["waiting"]


# Two machines: namespaces that share a disk and a cable.


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def cable() -> Generator[tuple[str, str]]:
    """Connect two network namespaces; yield their names. The first has the address 10.77.0.1."""
    names = tuple(f"fw{os.getpid()}{end}" for end in "ab")
    ends = tuple(f"v{os.getpid()}{end}" for end in "ab")
    with ExitStack() as stack:
        try:
            for name in names:
                ip("netns", "add", name)
                stack.callback(ip, "netns", "del", name)
            ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no network namespaces can be made here: {error}")
        for number, (name, end) in enumerate(zip(names, ends, strict=True), 1):
            ip("link", "set", end, "netns", name)
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", end)
            ip("-n", name, "link", "set", end, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names[0], names[1]


@dataclass
class Trainings:
    """Trainings of a tiny base, each into a folder of its name."""

    root: Path
    base: Path
    namespaces: tuple[str, str]
    running: list["subprocess.Popen[bytes]"] = field(
        default_factory=list["subprocess.Popen[bytes]"]
    )

    def spec(self, name: str) -> Path:
        recipe = Recipe(
            r=4,
            learning_rate=1e-2,
            per_device_train_batch_size=6,
            num_train_epochs=6,
            save_steps=2,
        )
        spec = TrainSpec(snapshot=self.root, base=self.base, folder=self.root / name, recipe=recipe)
        path = self.root / "jobs" / name / "spec.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(spec.model_dump_json())
        return path

    def start(
        self,
        namespace: str | None,
        module: str,
        *arguments: object,
        around: Sequence[str] = (),
        **variables: str,
    ) -> "subprocess.Popen[bytes]":
        inside = [*(("ip", "netns", "exec", namespace) if namespace else ()), *around]
        log = (self.root / f"{module}-{len(self.running)}.log").open("wb")
        process = subprocess.Popen(
            [*inside, sys.executable, "-m", module, *map(str, arguments)],
            env=os.environ
            | {"FLYWHEEL_HOME": str(self.root / "home"), "OMP_NUM_THREADS": "1"}
            | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **variables},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        self.running.append(process)
        return process

    def lead(self, name: str) -> "subprocess.Popen[bytes]":
        return self.start(
            self.namespaces[0], "flows.jobs.launch", "train", self.spec(name), **self.places(0)
        )

    def join(self, *container: str) -> "subprocess.Popen[bytes]":
        return self.start(self.namespaces[1], "flows.jobs.peer", around=container, **self.places(1))

    def places(self, number: int) -> dict[str, str]:
        address = {"FLYWHEEL_RENDEZVOUS": "10.77.0.1:29511"}
        return {"FLYWHEEL_MACHINES": "2", "FLYWHEEL_MACHINE": str(number), **address}

    def log(self, process: "subprocess.Popen[bytes]") -> str:
        number = self.running.index(process)
        (path,) = self.root.glob(f"*-{number}.log")
        return path.read_text(errors="replace")

    def losses(self, process: "subprocess.Popen[bytes]") -> dict[int, float]:
        lines = [line for line in self.log(process).splitlines() if line.startswith('{"stage"')]
        reports = [json.loads(line) for line in lines]
        return {r["done"]: r["figures"]["loss"] for r in reports if "loss" in r["figures"]}

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        return load_file(self.root / name / "adapter_model.safetensors")

    def has_checkpoint(self, name: str) -> bool:
        return any((self.root / name / "checkpoints").glob("checkpoint-*/sealed.json"))


@contextmanager
def ending(processes: Sequence["subprocess.Popen[bytes]"]) -> Generator[None]:
    try:
        yield
    finally:
        for process in processes:
            kill(process)


def kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill a machine: all of its processes at once."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def wait_until(
    claim: Callable[[], bool], process: "subprocess.Popen[bytes]", trainings: Trainings
) -> None:
    """Wait until something is so, while a process of the trainings runs."""
    while not claim():
        assert process.poll() is None, trainings.log(process)
        time.sleep(0.05)


@pytest.fixture
def trainings(tmp_path: Path, cable: tuple[str, str]) -> Generator[Trainings]:
    answers = ["Yes." if number % 2 else "No, not at all." for number in range(30)]
    requests = [f"Number {number * 'x'}?" for number in range(30)]
    training_rows.snapshot(tmp_path, list(zip(requests, answers, strict=True)))
    record = json.dumps({"files": manifest.file_digests(tmp_path)})
    (tmp_path / manifest.NAME).write_text(record)
    made = Trainings(tmp_path, tiny.build(tmp_path / "base"), cable)
    with ending(made.running):
        yield made


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_two_machines_train_as_two_processes_of_one_do(trainings: Trainings) -> None:
    peer = trainings.join()
    leader = trainings.lead("apart")
    assert leader.wait() == 0, trainings.log(leader)
    wait_until(lambda: "ended here with code 0" in trainings.log(peer), peer, trainings)
    together = trainings.start(
        None, "flows.jobs.launch", "train", trainings.spec("together"), FLYWHEEL_PROCESSES="2"
    )
    assert together.wait() == 0, trainings.log(together)
    apart, near = trainings.losses(leader), trainings.losses(together)
    assert len(apart) == 30
    assert apart == pytest.approx(near, rel=1e-4)
    assert trainings.losses(peer) == {}, "one of them reports"
    weights, others = trainings.weights("apart"), trainings.weights("together")
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, others[name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("killed", ["leader", "peer"])
def test_a_killed_machine_ends_the_other_which_says_why_and_both_resume(
    trainings: Trainings, killed: str
) -> None:
    peer = trainings.join()
    leader = trainings.lead("cut")
    wait_until(lambda: trainings.has_checkpoint("cut"), leader, trainings)
    kill(leader if killed == "leader" else peer)
    if killed == "peer":
        assert leader.wait() != 0
        assert "the connection to another one was lost" in trainings.log(leader)[-4000:]
        assert "resumes from its last checkpoint" in trainings.log(leader)[-4000:]
        peer = trainings.join()
    else:
        wait_until(lambda: "ended here with code 1" in trainings.log(peer), peer, trainings)
        assert "the connection to another one was lost" in trainings.log(peer)
    again = trainings.lead("cut")
    assert again.wait() == 0, trainings.log(again)
    assert min(trainings.losses(again)) > 2, "it resumed"
    whole = trainings.lead("whole")
    assert whole.wait() == 0, trainings.log(whole)
    for name, tensor in trainings.weights("cut").items():
        torch.testing.assert_close(tensor, trainings.weights("whole")[name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_container_that_is_stopped_stops_the_training_on_all_machines_with_a_checkpoint(
    trainings: Trainings,
) -> None:
    peer = trainings.join("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    leader = trainings.lead("cut")
    wait_until(lambda: trainings.has_checkpoint("cut"), leader, trainings)
    (first,) = psutil.Process(peer.pid).children()  # the container's process 1
    first.terminate()
    stopped = 128 + signal.SIGTERM
    assert peer.wait(60) == stopped, trainings.log(peer)
    assert leader.wait(60) != 0
    assert f"exitcode: {stopped}" in trainings.log(leader), "its launcher's own code is another"


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_machines_that_see_different_checkpoints_do_not_go_on(
    trainings: Trainings, tmp_path: Path
) -> None:
    peer = trainings.join()
    leader = trainings.lead("cut")
    wait_until(lambda: trainings.has_checkpoint("cut"), leader, trainings)
    kill(leader)
    wait_until(lambda: "ended here with code 1" in trainings.log(peer), peer, trainings)
    kill(peer)
    # The other machine has a folder of its own under the same name.
    alone = tmp_path / "alone"
    alone.mkdir()
    mount = f"mount --bind {alone} {tmp_path / 'cut'}; exec {sys.executable} -m flows.jobs.peer"
    peer = subprocess.Popen(
        ["ip", "netns", "exec", trainings.namespaces[1], "unshare", "-m", "sh", "-c", mount],
        env=os.environ
        | {"FLYWHEEL_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
        | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **trainings.places(1)},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    trainings.running.append(peer)
    again = trainings.lead("cut")
    assert again.wait() != 0
    assert "one process finds a checkpoint of step" in trainings.log(again)
    assert trainings.has_checkpoint("cut"), "nothing was deleted"
