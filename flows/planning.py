"""Plan a training for the terminal, in processes of their own: torch stays out of this one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from components.schema import Progress
from components.train.plan import work
from components.train.plan.planned import AS_JSON, Plan
from flows import jobs
from flows.job_specs import CalibrateSpec, PlanSpec
from flows.workload import Workload


@dataclass(frozen=True, slots=True)
class Calibration:
    """What came of training for some seconds: the time all of it will take, and what was held.

    ``seconds`` passed in ``steps`` steps after the first one. Of the ``peak_bytes`` that were held
    at most, ``loaded_bytes`` were there before the training began: libraries.
    """

    seconds: float
    steps: int
    expected_seconds: float
    peak_bytes: int
    loaded_bytes: int


def make(workload: Workload, snapshot: Path, listener: Callable[[Progress], None]) -> Plan:
    """Plan the workload's training on a snapshot.

    Raises:
        JobError: The snapshot has nothing to learn for the recipe.
    """
    with TemporaryDirectory(prefix="flywheel-plan-") as folder:
        written = Path(folder) / "plan.json"
        spec = PlanSpec(
            snapshot=snapshot,
            base=workload.base,
            recipe=workload.train,
            worker=workload.worker,
            plan=written,
        )
        jobs.run(spec, Path(folder), listener)
        return AS_JSON.validate_json(written.read_text())


def calibrate(
    workload: Workload,
    snapshot: Path,
    plan: Plan,
    seconds: float,
    listener: Callable[[Progress], None],
) -> Calibration | None:
    """Train for so many seconds as the plan advises; ``None`` where that can't be done here.

    Raises:
        JobError: The training failed.
    """
    if plan.advised is None or plan.is_elsewhere or not seconds:
        return None
    recipe = workload.train.model_copy(update=plan.advised.knobs)
    last: Progress | None = None

    def keep(progress: Progress) -> None:
        nonlocal last
        last = progress
        listener(progress)

    with TemporaryDirectory(prefix="flywheel-calibrate-") as folder:
        spec = CalibrateSpec(snapshot=snapshot, base=workload.base, recipe=recipe, seconds=seconds)
        jobs.run(spec, Path(folder), keep)
    if last is None or last.done < 2:
        return None
    passed = last.figures["seconds"]
    return Calibration(
        seconds=passed,
        steps=last.done - 1,
        expected_seconds=work.expected_seconds(plan.work, last.done, passed),
        peak_bytes=int(last.figures["peak_bytes"]),
        loaded_bytes=int(last.figures["loaded_bytes"]),
    )
