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
from components.models import base, device
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
    # Its progress bars write one line of 10 KB to the log. A job's streams are never a terminal.
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    # In one process it schedules alike each time, and writes to no stream of ours.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_NO_USAGE_STATS": "1",
}  # libraries read it when they are imported

UNCOMPILED = {"TORCHDYNAMO_DISABLE": "1"}
"""Else bitsandbytes prepares functions that are never called here for PyTorch's compiler, and only
to import that takes four seconds of a core."""


def main(kind: str, spec_path: Path) -> None:
    """Run one job; the process's exit code is 0 if it was finished."""
    os.environ |= JOB_ENVIRONMENT
    started = time.monotonic()
    try:
        spec = job_specs.read(kind, spec_path)
        if not isinstance(spec, EvaluateSpec) or spec.settings.engine != "vllm":  # it compiles
            os.environ |= UNCOMPILED
        run(spec)
    finally:
        if os.environ.get("RANK", "0") == "0":
            work = measured_work(time.monotonic() - started)
            manifest.write_atomically(spec_path.with_name(runner.WORK), json.dumps(asdict(work)))


def run(spec: JobSpec) -> None:
    """Run a job; heavy modules are imported only now, with the offline settings in place."""
    match spec:
        case TrainSpec():
            train_adapter(spec)
        case LengthsSpec():
            from components.train.plan.planner import tokens_by_step  # noqa: PLC0415

            counts = [tokens_by_step(spec.snapshot, c.base, c.recipe) for c in spec.candidates]
            manifest.write_atomically(spec.counted, json.dumps(counts))
        case PlanSpec():
            from components.train.plan import estimate, planner  # noqa: PLC0415

            inputs = (spec.snapshot, spec.base, spec.recipe)
            plan = planner.make_plan(*inputs, spec.worker, report=print_progress)
            spec.plan.write_bytes(estimate.PLAN_JSON.dump_json(plan))
        case CalibrateSpec():
            from components.train.plan import planner  # noqa: PLC0415

            inputs = (spec.snapshot, spec.base, spec.recipe)
            planner.calibrate(*inputs, spec.seconds, report=print_progress)
        case EvaluateSpec():
            from components.evaluate import harness  # noqa: PLC0415

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
        case _:
            raise TypeError(f"running a job: expected its specification, found {spec!r}")


def measured_work(wall: float) -> Work:
    """Measure this job's work; all processes of a training work alike, so one is measured."""
    import torch

    processes = int(os.environ.get("WORLD_SIZE", "1"))
    cpu = processes * device.cpu_seconds(device.child_processes())
    return device.measure_work(
        cpu=cpu, wall=wall, gpus_held=processes if torch.cuda.is_available() else 0
    )


def require_named_inputs(spec: TrainSpec) -> None:
    """Check that a training reads what its adapter's key names.

    Raises:
        FileNotFoundError: The snapshot is unfinished, or a file of it is gone.
        ValueError: The snapshot or the base was changed.
    """
    manifest.read_untouched(spec.snapshot)
    content = base.content_hash(spec.base) if spec.base_content is not None else None
    if content != spec.base_content:
        raise ValueError(
            f"training {spec.folder.name}: {spec.base} has the content {content}, and had "
            f"{spec.base_content} when the training was ordered; put that back, or run the turn "
            "again, which trains another adapter"
        )


def train_adapter(spec: TrainSpec) -> None:
    """Train one adapter, or a candidate of a search until its stop condition."""
    if os.environ.get("RANK", "0") == "0":
        require_named_inputs(spec)
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
        require_named_inputs(spec)
        write_example_prompt(spec.base, spec.folder)
        if spec.rows is not None:
            manifest.write_atomically(spec.rows, json.dumps(reached.rows))
    if spec.reached is not None:
        reached.write(spec.reached)


def write_example_prompt(model: Path, adapter: Path) -> None:
    """Write an example of the prompts into the adapter's folder."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
    example = json.dumps(chat_templates.example(tokenizer, model), indent=2, ensure_ascii=False)
    manifest.write_atomically(adapter / chat_templates.EXAMPLE, example + "\n")


def print_progress(progress: Progress) -> None:
    """Print one progress line for the flow that waits for this job."""
    # In one write: others may write to the same pipe.
    sys.stdout.write(runner.progress_line(progress) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    run_main = main
    if "TORCHELASTIC_ERROR_FILE" in os.environ:
        # So that a launcher of several processes ends its log with the first one's error.
        from torch.distributed.elastic.multiprocessing import errors

        run_main = errors.record(main)
    run_main(sys.argv[1], Path(sys.argv[2]))
