"""The process that trains or evaluates: ``python -m flows.job KIND SPEC``; see ``flows.jobs``.

Progress goes to standard output, one JSON object a line; everything else to standard error.
"""

import json
import os
import sys
from pathlib import Path

from components.schema import Progress
from flows import config, jobs, settings


def main(kind: str, spec_path: Path) -> None:
    """Do one job; the process's exit code tells whether it was finished."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "MPLBACKEND": "Agg"}
    spec: dict[str, str] = json.loads(spec_path.read_text())
    {"train": train, "evaluate": evaluate}[kind](spec)


def train(spec: dict[str, str]) -> None:
    """Train the adapter that ``spec`` names: ``config snapshot folder``."""
    from components.train import fit

    workload = config.read(Path(spec["config"]))
    fit.fit(Path(spec["snapshot"]), workload.base, Path(spec["folder"]), workload.train, report=say)


def evaluate(spec: dict[str, str]) -> None:
    raise SystemExit(2)


def say(progress: Progress) -> None:
    """Print one progress line for the flow that waits for this job."""
    print(jobs.to_json(progress), flush=True)  # noqa: T201 - this is the job's protocol


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
