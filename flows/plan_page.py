"""Write a plan for the terminal: what is trained, what it takes, and whether it fits."""

from collections.abc import Iterable
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from components.train.plan import fitting
from components.train.plan.fitting import Worker
from components.train.plan.parameters import Parameters
from components.train.plan.planned import Plan
from flows.planning import Calibration

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


def show(plan: Plan, timed: Calibration | None, worker: Worker, console: Console) -> None:
    """Print a plan, the time that a calibration foresees, and what it costs."""
    _say_parameters(plan.parameters, console)
    _say_memory(plan, console)
    for line in [*_work(plan), *_time(plan, timed, worker), *_fit(plan)]:
        console.print(line, soft_wrap=True, markup=False)


def _say_parameters(found: Parameters, console: Console) -> None:
    console.print(
        f"trains    {found.trainable:,} of {found.total:,} parameters ({found.fraction:.2%})",
        soft_wrap=True,
    )
    table = Table("r (d + k)", "", "", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.columns[2].justify = "right"
    for one in found.low_rank:
        formula = f"{one.count} x {one.r} ({one.d:,} + {one.k:,})"
        table.add_row(one.module, formula, f"{one.numbers:,}")
    if found.others:
        table.add_row("others", "", f"{found.others:,}")
    table.add_row("sum", "", f"{found.trainable:,}")
    console.print(table)


def _say_memory(plan: Plan, console: Console) -> None:
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


def _work(plan: Plan) -> Iterable[str]:
    yield (
        f"steps     {len(plan.work.steps):,} of {plan.asked.batch * plan.asked.accumulation} rows; "
        f"{plan.work.tokens:,} tokens, {plan.work.computed:,} of them computed "
        "(what rows begin with in common is computed once)"
    )


def _time(plan: Plan, timed: Calibration | None, worker: Worker) -> Iterable[str]:
    if timed is None:
        why = "it is another machine's" if plan.is_elsewhere else "nothing was tried"
        yield f"time      not known: {why}"
        return
    held = f"{timed.peak_bytes / 1e9:.3f} GB were held at most"
    yield (
        f"time      {_span(timed.expected_seconds)}, from {timed.seconds:.0f} s of this training "
        f"({timed.steps} steps, thrown away; {held})"
    )
    cost = fitting.cost(timed.expected_seconds, worker)
    if cost is not None:
        yield f"cost      {cost:.2f} at {worker.price_per_hour:g} an hour"


def _fit(plan: Plan) -> Iterable[str]:
    where = "this machine" if plan.device == "cpu" else "this GPU"
    where = "the worker's GPU" if plan.is_elsewhere else where
    room = f"{plan.asked.memory.peak / 1e9:.2f} of {plan.free / 1e9:.2f} GB free on {where}"
    yield f"fits      {'yes' if plan.fits else 'NO'}: {room}"
    if plan.largest is None:
        yield "          not even one row at a time; lower max_length, r or target_modules"
    elif plan.largest != plan.asked:
        knobs = ", ".join(f"{name}: {_yaml(value)}" for name, value in plan.largest.knobs.items())
        yield (
            f"          the largest batch that does is {plan.largest.batch}, with "
            f"{plan.largest.memory.peak / 1e9:.2f} GB: train: {{{knobs}}}"
        )
    elif plan.asked.accumulation > 1:
        yield "          no larger batch does"


def _yaml(value: int | bool) -> str:
    return str(value).lower()


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    said = [f"{hours} h"] * bool(hours) + [f"{minutes} min"] * bool(hours or minutes)
    return " ".join([*said, f"{rest} s"])
