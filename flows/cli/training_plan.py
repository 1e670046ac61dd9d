"""Plan a training without loading torch here, and print the plan."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.table import Table

from components.models.cpu_products import VARIABLE
from components.schema import Progress
from components.train.plan import bases, estimate
from components.train.plan.estimate import PLAN_JSON, ParameterCounts, TrainingPlan
from components.train.recipe import Worker
from flows.cli.console import console, print_line
from flows.jobs import runner
from flows.jobs.job_specs import CalibrateSpec, PlanSpec
from flows.workload_file import Workload


@dataclass(frozen=True, slots=True)
class Calibration:
    """The measurements of a training of some seconds.

    ``seconds`` passed in ``steps`` steps after the first one. ``peak_bytes`` includes the
    ``loaded_bytes`` of libraries from before the training.
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
    """Train for some seconds as the plan advises; ``None`` where that can't be done here.

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
        listener(shown_calibration(progress, seconds))

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


def shown_calibration(progress: Progress, seconds: float) -> Progress:
    """Return how much of a calibration's time has passed, as a person follows it."""
    figures = {"step": progress.done, "peak_memory_gb": progress.figures["peak_bytes"] / 1e9}
    passed = min(progress.figures["seconds"], seconds)
    return Progress(progress.stage, round(passed), round(seconds), "seconds", figures)


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


def print_plan(plan: TrainingPlan, calibration: Calibration | None, worker: Worker) -> None:
    """Print a plan, the time that a calibration foresees, and what it costs."""
    _print_parameters(plan.parameters)
    _print_memory(plan)
    print_line(
        f"steps     {len(plan.work.steps):,} of {plan.asked.batch * plan.asked.accumulation} rows; "
        f"{plan.work.tokens:,} tokens, {plan.work.computed:,} of them computed "
        "(what rows begin with in common is computed once)"
    )
    if plan.device == "cpu":
        print_line(f"computes  in {plan.products}")
    _print_time(plan, calibration, worker)
    _print_fit(plan)


def _three_columns(*columns: str) -> Table:
    table = Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.columns[2].justify = "right"
    return table


def _print_parameters(counts: ParameterCounts) -> None:
    print_line(
        f"trains    {counts.trainable:,} of {counts.total:,} parameters ({counts.fraction:.2%})"
    )
    table = _three_columns("r (d + k)", "", "")
    for module in counts.low_rank:
        formula = f"{module.count} x {module.r} ({module.d:,} + {module.k:,})"
        table.add_row(module.module, formula, f"{module.numbers:,}")
    if counts.others:
        table.add_row("others", "", f"{counts.others:,}")
    table.add_row("sum", "", f"{counts.trainable:,}")
    console.print(table)


def _print_memory(plan: TrainingPlan) -> None:
    option = plan.asked
    print_line(
        f"memory    of the heaviest step, {plan.heaviest_tokens:,} tokens in "
        f"{option.accumulation} x {option.batch} rows; the longest row has {plan.longest_row:,}"
    )
    table = _three_columns("part", "what", "GB")
    parts: dict[str, int] = asdict(option.memory)
    for name, meaning in PARTS.items():
        if name == "weights" and plan.device == "cpu":
            meaning += f", written out in {plan.products.partition(' ')[0]}"
        if parts[name]:
            table.add_row(name.replace("_", " "), meaning, f"{parts[name] / 1e9:.3f}")
    table.add_row("peak", "gradients come as activations go", f"{option.memory.peak / 1e9:.3f}")
    console.print(table)


def _print_time(plan: TrainingPlan, calibration: Calibration | None, worker: Worker) -> None:
    if calibration is None:
        why = "it is another machine's" if plan.is_elsewhere else "nothing was tried"
        print_line(f"time      not known: {why}")
        return
    print_line(
        f"time      {_duration_text(calibration.expected_seconds)}, from "
        f"{calibration.seconds:.0f} s of this training ({calibration.steps} steps, thrown away; "
        f"{calibration.peak_bytes / 1e9:.3f} GB were held at most)"
    )
    cost = bases.training_cost(calibration.expected_seconds, worker)
    if cost is not None:
        print_line(f"cost      {cost:.2f} at {worker.price_per_hour:g} an hour")


def _print_fit(plan: TrainingPlan) -> None:
    where = "this machine" if plan.device == "cpu" else "this GPU"
    where = "the worker's GPU" if plan.is_elsewhere else where
    room = f"{plan.asked.memory.peak / 1e9:.2f} of {plan.free / 1e9:.2f} GB free on {where}"
    print_line(f"fits      {'yes' if plan.fits else 'NO'}: {room}")
    if plan.largest is None:
        print_line("          not even one row at a time; lower max_length, r or target_modules")
        if plan.products.startswith("fp32"):
            print_line(f"          {VARIABLE}=bf16 takes less for the weights, and longer")
    elif plan.largest != plan.asked:
        knobs = [f"{name}: {str(value).lower()}" for name, value in plan.largest.knobs.items()]
        print_line(
            f"          the largest batch that does is {plan.largest.batch}, with "
            f"{plan.largest.memory.peak / 1e9:.2f} GB: train: {{{', '.join(knobs)}}}"
        )
    elif plan.asked.accumulation > 1:
        print_line("          no larger batch does")


def _duration_text(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours} h"] * bool(hours) + [f"{minutes} min"] * bool(hours or minutes)
    return " ".join([*parts, f"{rest} s"])
