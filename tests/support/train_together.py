"""Train in two processes for each spec: ``python -m tests.support.train_together SPEC...``.

They are forked once the libraries are loaded, which takes longer than a tiny training; see
``flows.jobs.launch`` for how a job's processes are started.
"""

import json
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

from components.models import base as bases
from components.schema import Progress
from components.train import fit
from components.train.recipe import Recipe


def train(spec: Path, rank: int, port: int) -> None:
    """Train as one of two processes; write its losses and bytes to its own file.

    The second one does not see what the first one writes.
    """
    join(rank, port)
    config = json.loads(spec.read_text())
    snapshot, base, folder = (Path(config[name]) for name in ("snapshot", "base", "folder"))
    folder = folder if rank == 0 else spec.with_suffix(".second")
    recipe = Recipe.model_validate(config["recipe"])
    model, tokenizer = bases.load(base, recipe.precision, for_training=True)
    losses: dict[int, float] = {}
    fit.fit(snapshot, (model, tokenizer), folder, recipe, report=keeper(losses))
    results = {"losses": losses, "held": held_bytes(model)}
    spec.with_suffix(f".{rank}").write_text(json.dumps(results))


def held_bytes(model: torch.nn.Module) -> int:
    """Return the bytes of this process's frozen weights while no layer computes."""
    frozen = (weight for weight in model.parameters() if not weight.requires_grad)
    parts = (weight.to_local() if isinstance(weight, DTensor) else weight for weight in frozen)
    return sum(part.nbytes for part in parts)


def keeper(losses: dict[int, float]) -> Callable[[Progress], None]:
    """Return a callback that stores each step's loss; a validation comes after the last step."""

    def keep(progress: Progress) -> None:
        if "loss" in progress.figures:
            losses[progress.done] = progress.figures["loss"]

    return keep


def join(rank: int, port: int) -> None:
    """Set the variables by which one of two processes connects to the other."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}


def both(work: Callable[..., None], *arguments: object) -> None:
    """Run a function in two processes, with the process's number and a common port appended."""
    forking = multiprocessing.get_context("fork")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    processes = [forking.Process(target=work, args=(*arguments, rank, port)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]


if __name__ == "__main__":
    for spec in sys.argv[1:]:
        both(train, Path(spec))
