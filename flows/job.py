"""The process that trains or evaluates: ``python -m flows.job KIND SPEC``; see ``flows.jobs``.

Progress goes to standard output, one JSON object a line; everything else to standard error. Where
several processes train together, ``flows.launch`` starts each of them here.
"""

import json
import os
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from components import machine, manifest, rendering
from components.costs import Work
from components.schema import Progress
from flows import job_specs, jobs
from flows.job_specs import (
    CalibrateSpec,
    EvaluateSpec,
    JobSpec,
    LengthsSpec,
    PlanSpec,
    TrainSpec,
)

SURROUNDINGS = {
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
    os.environ |= SURROUNDINGS
    started = time.monotonic()
    try:
        run(job_specs.read(kind, spec_path))
    finally:
        if os.environ.get("RANK", "0") == "0":
            taken = json.dumps(asdict(work(time.monotonic() - started)))
            manifest.write_atomically(spec_path.with_name(jobs.WORK), taken)


def run(spec: JobSpec) -> None:
    """Do what a specification describes."""
    match spec:
        case TrainSpec():
            train(spec)
        case LengthsSpec():
            lengths(spec)
        case PlanSpec():
            plan(spec)
        case CalibrateSpec():
            calibrate(spec)
        case EvaluateSpec():
            evaluate(spec)
        case _:
            raise TypeError(f"running a job: {spec!r} is no specification of one")


def work(wall: float) -> Work:
    """Measure this job's work; the processes of one training work alike, so one stands for all."""
    import torch

    processes = int(os.environ.get("WORLD_SIZE", "1"))
    cpu = processes * machine.cpu_seconds(machine.workers())
    return machine.work(cpu=cpu, wall=wall, gpus_held=processes if torch.cuda.is_available() else 0)


def train(spec: TrainSpec) -> None:
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
        report=say,
        stop=spec.stop,
    )
    if os.environ.get("RANK", "0") != "0":
        return
    if reached.finished:
        show_prompt(spec.base, spec.folder)
        if spec.rows is not None:
            manifest.write_atomically(spec.rows, json.dumps(reached.rows))
    if spec.reached is not None:
        manifest.write_atomically(spec.reached, json.dumps(asdict(reached)))


def show_prompt(base: Path, adapter: Path) -> None:
    """Put beside an adapter how its prompts are written."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    shown = json.dumps(rendering.example(tokenizer, base), indent=2, ensure_ascii=False)
    manifest.write_atomically(adapter / rendering.EXAMPLE, shown + "\n")


def lengths(spec: LengthsSpec) -> None:
    """Count the tokens of each step of candidates."""
    from components.train.search.lengths import tokens_by_step  # noqa: PLC0415 - as above

    found = [tokens_by_step(spec.snapshot, one.base, one.recipe) for one in spec.candidates]
    manifest.write_atomically(spec.counted, json.dumps(found))


def plan(spec: PlanSpec) -> None:
    """Plan a training into a file."""
    from components.train.plan import making, planned  # noqa: PLC0415 - as above

    made = making.make(spec.snapshot, spec.base, spec.recipe, spec.worker, report=say)
    spec.plan.write_bytes(planned.AS_JSON.dump_json(made))


def calibrate(spec: CalibrateSpec) -> None:
    """Train for some seconds and keep nothing."""
    from components.train.plan import calibrate as calibrating  # noqa: PLC0415 - as above

    calibrating.calibrate(spec.snapshot, spec.base, spec.recipe, spec.seconds, report=say)


def evaluate(spec: EvaluateSpec) -> None:
    """Measure models on each task."""
    from components.evaluate import harness  # noqa: PLC0415 - as above

    harness.evaluate(
        spec.snapshot,
        spec.base,
        spec.models,
        spec.root,
        spec.settings,
        side=spec.side,
        report=say,
        now=datetime.now(UTC),
    )


def say(progress: Progress) -> None:
    """Print one progress line for the flow that waits for this job."""
    sys.stdout.write(jobs.to_json(progress) + "\n")  # at once: others may write to the same pipe
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
