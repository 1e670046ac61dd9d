"""A job gets its GPUs and its processes, and none of them outlives its starter."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from components.evaluate.settings import EvaluationSettings
from components.train.checkpoints import StopCondition
from components.train.recipe import Recipe
from flows.jobs import job_specs, launch, runner
from flows.jobs.job_specs import EvaluateSpec, JobSpec, TrainSpec
from flows.settings import SettingsError
from tests.flows.jobs.test_runner import MODULES, eventually, waiting

RECIPE = Recipe(per_device_train_batch_size=2, gradient_accumulation_steps=2)
HERE = Path()
TRAINING = TrainSpec(snapshot=HERE, base=HERE, folder=HERE, recipe=RECIPE)
MEASURING = EvaluateSpec(
    snapshot=HERE, base=HERE, models={}, root=HERE, settings=EvaluationSettings(), side="holdout"
)


@pytest.mark.parametrize(
    ("spec", "requested", "gpus", "expected"),
    [
        pytest.param(TRAINING, None, 0, 1, id="cpu"),
        pytest.param(TRAINING, 2, 0, 2, id="cpu-two-requested"),
        pytest.param(TRAINING, None, 3, 3, id="one-for-each-gpu"),
        pytest.param(TRAINING, 1, 8, 1, id="one-gpu-of-many"),
        pytest.param(TRAINING, None, 8, 4, id="no-more-than-rows-in-a-batch"),
        pytest.param(MEASURING, None, 8, 1, id="an-evaluation-takes-one"),
    ],
)
def test_the_number_of_a_jobs_processes(
    spec: JobSpec, requested: int | None, gpus: int, expected: int
) -> None:
    assert launch.process_count(spec, requested, gpus) == expected


def test_more_processes_than_gpus_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"FLYWHEEL_PROCESSES is 3, but .* sees 2 GPU"):
        launch.process_count(TRAINING, 3, 2)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        pytest.param({}, "0,2", id="all-visible"),
        pytest.param({"CUDA_VISIBLE_DEVICES": "4,5,GPU-8932f937"}, "4,GPU-8932f937", id="some"),
    ],
)
def test_a_job_sees_the_gpus_that_it_holds_and_no_other(
    environment: dict[str, str], expected: str
) -> None:
    assert launch.visible_devices([0, 2], environment) == expected


def test_waiting_for_a_gpu_is_not_taken_from_a_trainings_time(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    for deadline, later in ((100.0, 130.0), (None, None)):
        spec = TRAINING.model_copy(update={"stop": StopCondition(at_step=7, deadline=deadline)})
        path.write_text(spec.model_dump_json())
        launch.note_waiting(spec, path, 30.0)
        moved = job_specs.read("train", path)
        assert moved == spec.model_copy(update={"stop": StopCondition(at_step=7, deadline=later)})
        assert runner.read_waiting(tmp_path) == 30.0
    runner.forget_waiting(tmp_path)
    assert runner.read_waiting(tmp_path) == 0.0


def test_processes_on_a_cpu_share_the_cores_unless_configured_otherwise() -> None:
    cores = len(os.sched_getaffinity(0))
    assert launch.cpu_environment(cores, {})["OMP_NUM_THREADS"] == "1"
    assert "OMP_NUM_THREADS" not in launch.cpu_environment(2, {"OMP_NUM_THREADS": "8"})


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Return a program that runs two waiting processes of a job."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(MODULES), *filter(None, sys.path)]))
    spec = f"WaitTogether(**{waiting(tmp_path).model_dump()!r})"
    return (
        "from flows.jobs import runner; from pathlib import Path;"
        "from tiny_job import WaitTogether;"
        f"runner.run_job({spec}, Path({str(tmp_path / 'job')!r}), print, module='tiny_launch')"
    )


def started(folder: Path) -> list[psutil.Process]:
    """Wait for both processes; return the launcher, which is their parent, and them."""
    pids = [folder / "pid0", folder / "pid1"]
    assert eventually(lambda: all(pid.exists() and pid.read_text() for pid in pids), 60)
    both = [psutil.Process(int(pid.read_text())) for pid in pids]
    (launcher,) = {process.parent() for process in both}
    assert launcher is not None
    return [launcher, *both]


def ended(processes: list[psutil.Process]) -> bool:
    return all(not child.is_running() or child.status() == "zombie" for child in processes)


@pytest.mark.slow
def test_all_processes_save_and_end_when_their_flow_is_killed(
    together: str, tmp_path: Path
) -> None:
    with subprocess.Popen([sys.executable, "-c", together]) as flow:
        processes = started(tmp_path)
        flow.send_signal(signal.SIGKILL)
    assert eventually(lambda: ended(processes))
    saved = [(tmp_path / f"saved{rank}").read_text() for rank in (0, 1)]
    assert saved == ["saved", "saved"]


@pytest.mark.slow
def test_no_process_outlives_a_killed_launcher(together: str, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", together], stderr=subprocess.PIPE) as flow:
        launcher, *both = started(tmp_path)
        launcher.kill()
        assert eventually(lambda: ended(both))
        _, errors = flow.communicate()
    assert b"wait_together job ended with code" in errors
