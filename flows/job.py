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
from typing import Any

from components import machine, manifest, rendering
from components.costs import Work
from components.evaluate.settings import EvaluationSettings
from components.schema import Progress
from components.train.plan.fitting import Worker
from components.train.recipe import Recipe
from components.train.stops import Stop
from flows import jobs

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
    spec: dict[str, Any] = json.loads(spec_path.read_text())
    kinds = {
        "train": train,
        "lengths": lengths,
        "plan": plan,
        "calibrate": calibrate,
        "evaluate": evaluate,
    }
    started = time.monotonic()
    try:
        kinds[kind](spec)
    finally:
        if os.environ.get("RANK", "0") == "0":
            taken = json.dumps(asdict(work(time.monotonic() - started)))
            manifest.write_atomically(spec_path.with_name(jobs.WORK), taken)


def work(wall: float) -> Work:
    """Measure this job's work; the processes of one training work alike, so one stands for all."""
    import torch

    processes = int(os.environ.get("WORLD_SIZE", "1"))
    cpu = processes * machine.cpu_seconds(machine.workers())
    return machine.work(cpu=cpu, wall=wall, gpus_held=processes if torch.cuda.is_available() else 0)


def train(spec: dict[str, Any]) -> None:
    """Train one adapter: ``snapshot base folder recipe warm_start``.

    ``rows`` is the file that says what became of the snapshot's rows. A candidate of a search has a
    ``stop``, too, and a file for what was ``reached``.
    """
    import torch

    from components.train import fit  # noqa: PLC0415 - only now are the offline settings in place

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    reached = fit.fit(
        Path(spec["snapshot"]),
        Path(spec["base"]),
        Path(spec["folder"]),
        Recipe.model_validate(spec["recipe"]),
        warm_start=Path(spec["warm_start"]) if spec["warm_start"] else None,
        report=say,
        stop=Stop(**spec["stop"]) if "stop" in spec else None,
    )
    if os.environ.get("RANK", "0") != "0":
        return
    if reached.finished:
        show_prompt(Path(spec["base"]), Path(spec["folder"]))
        if "rows" in spec:
            manifest.write_atomically(Path(spec["rows"]), json.dumps(reached.rows))
    if "reached" in spec:
        manifest.write_atomically(Path(spec["reached"]), json.dumps(asdict(reached)))


def show_prompt(base: Path, adapter: Path) -> None:
    """Put beside an adapter how its prompts are written."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    shown = json.dumps(rendering.example(tokenizer, base), indent=2, ensure_ascii=False)
    manifest.write_atomically(adapter / rendering.EXAMPLE, shown + "\n")


def lengths(spec: dict[str, Any]) -> None:
    """Count the tokens of each step of candidates: ``snapshot candidates counted``."""
    from components.train.search.lengths import tokens_by_step  # noqa: PLC0415 - as above

    found = [
        tokens_by_step(
            Path(spec["snapshot"]), Path(one["base"]), Recipe.model_validate(one["recipe"])
        )
        for one in spec["candidates"]
    ]
    manifest.write_atomically(Path(spec["counted"]), json.dumps(found))


def plan(spec: dict[str, Any]) -> None:
    """Plan a training into a file: ``snapshot base recipe worker plan``."""
    from components.train.plan import making, planned  # noqa: PLC0415 - as above

    made = making.make(
        Path(spec["snapshot"]),
        Path(spec["base"]),
        Recipe.model_validate(spec["recipe"]),
        Worker.model_validate(spec["worker"]),
        report=say,
    )
    Path(spec["plan"]).write_bytes(planned.AS_JSON.dump_json(made))


def calibrate(spec: dict[str, Any]) -> None:
    """Train for some seconds and keep nothing: ``snapshot base recipe seconds``."""
    from components.train.plan import calibrate as calibrating  # noqa: PLC0415 - as above

    calibrating.calibrate(
        Path(spec["snapshot"]),
        Path(spec["base"]),
        Recipe.model_validate(spec["recipe"]),
        spec["seconds"],
        report=say,
    )


def evaluate(spec: dict[str, Any]) -> None:
    """Measure models on each task: ``snapshot base models root settings side``."""
    from components.evaluate import harness  # noqa: PLC0415 - as above

    harness.evaluate(
        Path(spec["snapshot"]),
        Path(spec["base"]),
        {name: Path(path) if path else None for name, path in spec["models"].items()},
        Path(spec["root"]),
        EvaluationSettings.model_validate(spec["settings"]),
        side=spec["side"],
        report=say,
        now=datetime.now(UTC),
    )


def say(progress: Progress) -> None:
    """Print one progress line for the flow that waits for this job."""
    sys.stdout.write(jobs.to_json(progress) + "\n")  # at once: others may write to the same pipe
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
