"""A job reports while it works, explains its failure, and never outlives its flow."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from components.costs import Work
from components.models import base
from components.schema import Progress
from components.store import file_locks, manifest
from components.train.checkpoints import StopCondition
from components.train.recipe import Recipe
from flows.jobs import entrypoint, job_specs, runner
from flows.jobs.job_specs import LengthsSpec, TrainSpec
from flows.stack import processes
from tests.flows.jobs.modules.tiny_job import Bake, Count, Fail, Wait
from tests.support import tiny

MODULES = Path(__file__).parent / "modules"
JOB = "tiny_job"


@pytest.fixture(autouse=True)
def importable_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the jobs' processes import the tiny job."""
    monkeypatch.setenv("PYTHONPATH", str(MODULES))


def eventually(claim: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not claim() and time.monotonic() < deadline:
        time.sleep(0.05)
    return claim()


def waiting(folder: Path) -> Wait:
    return Wait(pid=str(folder / "pid"), saved=str(folder / "saved"))


def test_each_progress_line_arrives_and_the_newest_stays_on_disk(tmp_path: Path) -> None:
    lines: list[Progress] = []
    runner.run_job(Count(), tmp_path / "job", lines.append, module=JOB)
    assert [progress.done for progress in lines] == [1, 2, 3]
    assert lines[1] == Progress("count", 2, 3, "steps", {"loss": 0.5})
    assert runner.newest_progress(tmp_path / "job") == lines[-1]


def test_before_its_first_line_a_job_has_no_progress(tmp_path: Path) -> None:
    assert runner.newest_progress(tmp_path) is None


def test_the_work_of_an_earlier_run_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / runner.WORK).write_text('{"seconds": 9.0, "part": "core", "parts": 2}')
    assert runner.read_work(tmp_path / "job") == Work(9.0, "core", 2)
    runner.run_job(Count(), tmp_path / "job", print, module=JOB)
    assert runner.read_work(tmp_path / "job") is None


def test_a_failure_ends_with_the_last_lines_of_the_log(tmp_path: Path) -> None:
    with pytest.raises(runner.JobError) as caught:
        runner.run_job(Fail(), tmp_path / "job", print, module=JOB)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"fail job ended with code 3; the end of {tmp_path}/job/log.txt:"
    assert lines[1:] == [f"line {number}" for number in range(15, 30)]


def test_a_job_that_was_stopped_is_told_from_one_that_failed(tmp_path: Path) -> None:
    def stop(_: Progress) -> None:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)

    with pytest.raises(runner.JobError, match="ended with code 143") as stopped:
        runner.run_job(waiting(tmp_path), tmp_path / "job", stop, module=JOB)
    assert stopped.value.is_interrupted
    with pytest.raises(runner.JobError) as failed:
        runner.run_job(Fail(), tmp_path / "job", stop, module=JOB)
    assert not failed.value.is_interrupted


@pytest.mark.slow
def test_a_failed_job_explains_itself_and_records_its_work(tmp_path: Path) -> None:
    spec = LengthsSpec(snapshot=tmp_path / "gone", candidates=(), counted=tmp_path / "no/counted")
    with pytest.raises(runner.JobError, match=r"FileNotFoundError.*no/counted"):
        runner.run_job(spec, tmp_path / "job", print)
    work = runner.read_work(tmp_path / "job")
    assert work is not None
    assert work.seconds > 0


@pytest.mark.slow
def test_a_job_loads_a_base_without_progress_bars_and_without_a_compiler(tmp_path: Path) -> None:
    spec = LengthsSpec(snapshot=tmp_path, candidates=(), counted=tmp_path / "counted")
    path = tmp_path / "spec.json"
    path.write_text(spec.model_dump_json())
    code = (
        "import sys; from pathlib import Path; from flows.jobs import entrypoint\n"
        "from components.models import base\n"
        "entrypoint.main('lengths', Path(sys.argv[1]))\n"
        "base.load(Path(sys.argv[2]), 'nf4', for_training=True)\n"
        "sys.exit('torch._inductor.compile_fx' in sys.modules)"
    )
    arguments = [str(path), str(tiny.build(tmp_path / "base"))]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert "Loading weights" not in done.stderr
    assert done.returncode == 0


def test_a_second_run_waits_for_a_job_that_still_saves_after_its_flow_was_killed(
    tmp_path: Path,
) -> None:
    lock, pid = tmp_path / "job" / runner.LOCK, tmp_path / "pid"
    code = (
        "import sys; from pathlib import Path; from flows.jobs import runner; import tiny_job\n"
        "spec = tiny_job.Wait.model_validate_json(sys.argv[1])\n"
        "with runner.sole(Path(sys.argv[2]), lambda: None):\n"
        "    runner.run_job(spec, Path(sys.argv[2]), print, module='tiny_job')"
    )
    arguments = [waiting(tmp_path).model_dump_json(), str(tmp_path / "job")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(MODULES), *sys.path])}
    flow = subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment)
    try:
        assert eventually(lambda: pid.exists() and bool(pid.read_text()), seconds=60)
        job = int(pid.read_text())
        os.kill(job, signal.SIGSTOP)
    finally:
        flow.kill()
        flow.wait()
    assert is_held(lock)
    os.kill(job, signal.SIGCONT)
    waits: list[str] = []
    with runner.sole(tmp_path / "job", lambda: waits.append("waits")):
        assert (tmp_path / "saved").read_text() == "saved"
        assert is_held(lock)
    assert not is_held(lock)


def is_held(lock: Path) -> bool:
    with file_locks.held(lock, wait=False) as is_free:
        return not is_free


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        pytest.param("snapshot/train.parquet", "train.parquet hashes to", id="snapshot"),
        pytest.param("base/config.json", "has the content .* run the turn again", id="base"),
    ],
)
def test_a_training_does_not_take_other_data_than_its_adapter_names(
    tmp_path: Path, changed: str, message: str
) -> None:
    spec = named_inputs(tmp_path)
    entrypoint.require_named_inputs(spec)
    (tmp_path / changed).write_text("as somebody left it")
    with pytest.raises(ValueError, match=message):
        entrypoint.require_named_inputs(spec)


def named_inputs(folder: Path) -> TrainSpec:
    """Write a snapshot and a base, and order a training on them."""
    for name in ("snapshot/train.parquet", "base/config.json"):
        (folder / name).parent.mkdir()
        (folder / name).write_text("as it was")
    snapshot, model = folder / "snapshot", folder / "base"
    manifest.write(snapshot, kind="snapshot", now=datetime.now(UTC), body={})
    return TrainSpec(
        snapshot=snapshot,
        base=model,
        base_content=base.content_hash(model),
        folder=folder / "adapter",
        recipe=Recipe(),
    )


def test_a_specification_of_an_unknown_kind_or_with_an_unknown_field_is_refused(
    tmp_path: Path,
) -> None:
    with pytest.raises(runner.JobError, match="KeyError: 'bake'"):
        runner.run_job(Bake(), tmp_path / "job", print)
    path = tmp_path / "spec.json"
    path.write_text('{"snapshot": "s1", "candidates": [], "counted": "c", "retries": 2}')
    with pytest.raises(ValidationError, match="retries"):
        job_specs.read("lengths", path)


def test_a_specification_is_read_as_it_was_written(tmp_path: Path) -> None:
    spec = TrainSpec(
        snapshot=tmp_path / "s1",
        base=tmp_path / "base",
        folder=tmp_path / "a1",
        recipe=Recipe.model_validate({"objective": "dpo", "r": 4, "target_modules": "all-linear"}),
        stop=StopCondition(at_step=3, deadline=1.5),
    )
    path = tmp_path / "spec.json"
    path.write_text(spec.model_dump_json())
    assert job_specs.read("train", path) == spec


def test_a_job_saves_and_ends_when_its_flow_is_cancelled(tmp_path: Path) -> None:
    def cancel(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.run_job(waiting(tmp_path), tmp_path / "job", cancel, module=JOB)
    assert (tmp_path / "saved").read_text() == "saved"
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_job_saves_and_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    start = (
        "from flows.jobs import runner; from pathlib import Path; from tiny_job import Wait;"
        f"runner.run_job({waiting(tmp_path)!r}, Path({str(tmp_path / 'job')!r}),"
        f" print, module={JOB!r})"
    )
    with subprocess.Popen([sys.executable, "-c", start], stdout=subprocess.DEVNULL) as parent:
        assert eventually((tmp_path / "job/progress.json").exists)
        job = processes.identify_process(int((tmp_path / "pid").read_text()))
        parent.send_signal(signal.SIGKILL)
    assert eventually(lambda: not processes.is_alive(job))
    assert (tmp_path / "saved").read_text() == "saved"
