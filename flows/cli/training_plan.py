"""Plan a training without loading torch here, and print the plan."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from components.schema import Progress
from components.train.plan import bases, estimate
from components.train.plan.bases import Worker
from components.train.plan.estimate import PLAN_JSON, ParameterCounts, TrainingPlan
from flows.jobs import runner
from flows.jobs.job_specs import CalibrateSpec, PlanSpec
from flows.workload_file import Workload


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


def make_plan(
    workload: Workload, snapshot: Path, listener: Callable[[Progress], None]
) -> TrainingPlan:
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
        runner.run_job(spec, Path(folder), listener)
        return PLAN_JSON.validate_json(written.read_text())


def calibrate_plan(
    workload: Workload,
    snapshot: Path,
    plan: TrainingPlan,
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
        runner.run_job(spec, Path(folder), keep)
    if last is None or last.done < 2:
        return None
    passed = last.figures["seconds"]
    return Calibration(
        seconds=passed,
        steps=last.done - 1,
        expected_seconds=estimate.expected_seconds(plan.work, last.done, passed),
        peak_bytes=int(last.figures["peak_bytes"]),
        loaded_bytes=int(last.figures["loaded_bytes"]),
    )


PARTS = {
    "weights": "the base's 4-bit weights",
    "constants": "their quantization constants",
    "unquantized": "what of the base is not in 4 bits",
    "adapters": "what is trained",
    "optimizer": "AdamW's two moments of it",
    "gradients": "at the end of a step",
    "activations": "at their highest",
    "logits": "of the answers' tokens",
    "gradients_before": "kept beside the activations",
    "rest": "libraries; what computes a layer",
}


def print_plan(
    plan: TrainingPlan, timed: Calibration | None, worker: Worker, console: Console
) -> None:
    """Print a plan, the time that a calibration foresees, and what it costs."""
    _print_parameters(plan.parameters, console)
    _print_memory(plan, console)
    for line in [*_work_text(plan), *_time_text(plan, timed, worker), *_fit_text(plan)]:
        console.print(line, soft_wrap=True, markup=False)


def _print_parameters(counts: ParameterCounts, console: Console) -> None:
    console.print(
        f"trains    {counts.trainable:,} of {counts.total:,} parameters ({counts.fraction:.2%})",
        soft_wrap=True,
    )
    table = Table("r (d + k)", "", "", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.columns[2].justify = "right"
    for one in counts.low_rank:
        formula = f"{one.count} x {one.r} ({one.d:,} + {one.k:,})"
        table.add_row(one.module, formula, f"{one.numbers:,}")
    if counts.others:
        table.add_row("others", "", f"{counts.others:,}")
    table.add_row("sum", "", f"{counts.trainable:,}")
    console.print(table)


def _print_memory(plan: TrainingPlan, console: Console) -> None:
    option = plan.asked
    console.print(
        f"memory    of the heaviest step, {plan.heaviest_tokens:,} tokens in "
        f"{option.accumulation} x {option.batch} rows; the longest row has {plan.longest_row:,}",
        soft_wrap=True,
    )
    table = Table("part", "what", "GB", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.columns[2].justify = "right"
    parts: dict[str, int] = asdict(option.memory)
    for name, said in PARTS.items():
        if name == "weights" and plan.device == "cpu":
            said += ", written out in bf16"
        if parts[name]:
            table.add_row(name.replace("_", " "), said, f"{parts[name] / 1e9:.3f}")
    table.add_row("peak", "gradients come as activations go", f"{option.memory.peak / 1e9:.3f}")
    console.print(table)


def _work_text(plan: TrainingPlan) -> Iterable[str]:
    yield (
        f"steps     {len(plan.work.steps):,} of {plan.asked.batch * plan.asked.accumulation} rows; "
        f"{plan.work.tokens:,} tokens, {plan.work.computed:,} of them computed "
        "(what rows begin with in common is computed once)"
    )


def _time_text(plan: TrainingPlan, timed: Calibration | None, worker: Worker) -> Iterable[str]:
    if timed is None:
        why = "it is another machine's" if plan.is_elsewhere else "nothing was tried"
        yield f"time      not known: {why}"
        return
    held = f"{timed.peak_bytes / 1e9:.3f} GB were held at most"
    yield (
        f"time      {_duration_text(timed.expected_seconds)}, from {timed.seconds:.0f} s of this "
        f"training ({timed.steps} steps, thrown away; {held})"
    )
    cost = bases.training_cost(timed.expected_seconds, worker)
    if cost is not None:
        yield f"cost      {cost:.2f} at {worker.price_per_hour:g} an hour"


def _fit_text(plan: TrainingPlan) -> Iterable[str]:
    where = "this machine" if plan.device == "cpu" else "this GPU"
    where = "the worker's GPU" if plan.is_elsewhere else where
    room = f"{plan.asked.memory.peak / 1e9:.2f} of {plan.free / 1e9:.2f} GB free on {where}"
    yield f"fits      {'yes' if plan.fits else 'NO'}: {room}"
    if plan.largest is None:
        yield "          not even one row at a time; lower max_length, r or target_modules"
    elif plan.largest != plan.asked:
        knobs = ", ".join(
            f"{name}: {_yaml_text(value)}" for name, value in plan.largest.knobs.items()
        )
        yield (
            f"          the largest batch that does is {plan.largest.batch}, with "
            f"{plan.largest.memory.peak / 1e9:.2f} GB: train: {{{knobs}}}"
        )
    elif plan.asked.accumulation > 1:
        yield "          no larger batch does"


def _yaml_text(value: int | bool) -> str:
    return str(value).lower()


def _duration_text(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    said = [f"{hours} h"] * bool(hours) + [f"{minutes} min"] * bool(hours or minutes)
    return " ".join([*said, f"{rest} s"])
