"""The job's process: `python -m flows.jobs.entrypoint KIND SPEC` trains, plans or evaluates."""

import json
import os
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from components.chat import chat_templates
from components.costs import Work
from components.models import device
from components.schema import Progress
from components.store import manifest
from flows.jobs import job_specs, runner
from flows.jobs.job_specs import (
    CalibrateSpec,
    EvaluateSpec,
    JobSpec,
    LengthsSpec,
    PlanSpec,
    TrainSpec,
)

JOB_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "MPLBACKEND": "Agg",
    # In one process it schedules alike each time, and writes to no stream of ours.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_NO_USAGE_STATS": "1",
}
"""What libraries read from the environment when they are imported."""


def main(kind: str, spec_path: Path) -> None:
    """Do one job; the process's exit code tells whether it was finished."""
    os.environ |= JOB_ENVIRONMENT
    started = time.monotonic()
    try:
        run(job_specs.read(kind, spec_path))
    finally:
        if os.environ.get("RANK", "0") == "0":
            taken = json.dumps(asdict(measured_work(time.monotonic() - started)))
            manifest.write_atomically(spec_path.with_name(runner.WORK), taken)


def run(spec: JobSpec) -> None:
    """Do what a specification describes."""
    match spec:
        case TrainSpec():
            train_adapter(spec)
        case LengthsSpec():
            count_lengths(spec)
        case PlanSpec():
            plan_training(spec)
        case CalibrateSpec():
            calibrate_training(spec)
        case EvaluateSpec():
            evaluate_models(spec)
        case _:
            raise TypeError(f"running a job: {spec!r} is no specification of one")


def measured_work(wall: float) -> Work:
    """Measure this job's work; the processes of one training work alike, so one stands for all."""
    import torch

    processes = int(os.environ.get("WORLD_SIZE", "1"))
    cpu = processes * device.cpu_seconds(device.child_processes())
    return device.measure_work(
        cpu=cpu, wall=wall, gpus_held=processes if torch.cuda.is_available() else 0
    )


def train_adapter(spec: TrainSpec) -> None:
    """Train one adapter, or a candidate of a search until it is to stop."""
    import torch

    from components.train import fit  # noqa: PLC0415 - only now are the offline settings in place

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    reached = fit.fit(
        spec.snapshot,
        spec.base,
        spec.folder,
        spec.recipe,
        warm_start=spec.warm_start,
        report=print_progress,
        stop=spec.stop,
    )
    if os.environ.get("RANK", "0") != "0":
        return
    if reached.finished:
        write_example_prompt(spec.base, spec.folder)
        if spec.rows is not None:
            manifest.write_atomically(spec.rows, json.dumps(reached.rows))
    if spec.reached is not None:
        manifest.write_atomically(spec.reached, json.dumps(asdict(reached)))


def write_example_prompt(base: Path, adapter: Path) -> None:
    """Put beside an adapter how its prompts are written."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    shown = json.dumps(chat_templates.example(tokenizer, base), indent=2, ensure_ascii=False)
    manifest.write_atomically(adapter / chat_templates.EXAMPLE, shown + "\n")


def count_lengths(spec: LengthsSpec) -> None:
    """Count the tokens of each step of candidates."""
    from components.train.plan.planner import tokens_by_step  # noqa: PLC0415 - as above

    found = [tokens_by_step(spec.snapshot, one.base, one.recipe) for one in spec.candidates]
    manifest.write_atomically(spec.counted, json.dumps(found))


def plan_training(spec: PlanSpec) -> None:
    """Plan a training into a file."""
    from components.train.plan import estimate, planner  # noqa: PLC0415 - as above

    made = planner.make_plan(
        spec.snapshot, spec.base, spec.recipe, spec.worker, report=print_progress
    )
    spec.plan.write_bytes(estimate.PLAN_JSON.dump_json(made))


def calibrate_training(spec: CalibrateSpec) -> None:
    """Train for some seconds and keep nothing."""
    from components.train.plan import planner as calibrating  # noqa: PLC0415 - as above

    calibrating.calibrate(
        spec.snapshot, spec.base, spec.recipe, spec.seconds, report=print_progress
    )


def evaluate_models(spec: EvaluateSpec) -> None:
    """Measure models on each task."""
    from components.evaluate import harness  # noqa: PLC0415 - as above

    harness.evaluate(
        spec.snapshot,
        spec.base,
        spec.models,
        spec.root,
        spec.settings,
        side=spec.side,
        report=print_progress,
        now=datetime.now(UTC),
    )


def print_progress(progress: Progress) -> None:
    """Print one progress line for the flow that waits for this job."""
    sys.stdout.write(
        runner.progress_line(progress) + "\n"
    )  # at once: others may write to the same pipe
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
