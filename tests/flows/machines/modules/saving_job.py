"""A training that saves as a real one does: ``python -m saving_job train SPEC``, for ever."""

import shutil
import sys
import time
from pathlib import Path

from components.schema import Progress
from components.train import checkpoints
from flows.jobs import entrypoint, job_specs
from flows.jobs.job_specs import TrainSpec

spec = job_specs.read(sys.argv[1], Path(sys.argv[2]))
assert isinstance(spec, TrainSpec)
saved = spec.folder / checkpoints.CHECKPOINTS
newest = checkpoints.newest_checkpoint(saved, spec.recipe)
begin = checkpoints.step_of(newest.name) if newest else 0
for step in range(begin + 1, begin + 4):
    folder = saved / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "weights").write_text(f"of step {step}")
    if step < begin + 3:  # the last one is still being written
        checkpoints.seal_checkpoint(folder)
    if step > begin + 1:
        shutil.rmtree(saved / f"checkpoint-{step - 2}", ignore_errors=True)
    entrypoint.print_progress(Progress("train", step, 100, "steps", {}))
time.sleep(600)
