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

from components.models import base as bases
from components.schema import Progress
from components.train import fit, process_group
from components.train.recipe import Recipe


def train(spec: Path, rank: int, port: int) -> None:
    """Be one of two processes; what it reports and holds goes to a file of its own."""
    join(rank, port)
    given = json.loads(spec.read_text())
    snapshot, base, folder = (Path(given[name]) for name in ("snapshot", "base", "folder"))
    wanted = Recipe.model_validate(given["recipe"])
    model, tokenizer = bases.load(base, wanted.precision, for_training=True)
    losses: dict[int, float] = {}
    fit.fit(snapshot, (model, tokenizer), folder, wanted, report=keeper(losses))
    told = {"losses": losses, "held": process_group.held_bytes(model)}
    spec.with_suffix(f".{rank}").write_text(json.dumps(told))


def keeper(losses: dict[int, float]) -> Callable[[Progress], None]:
    """Give a listener that keeps each step's loss; a validation comes after the last step."""

    def keep(progress: Progress) -> None:
        if "loss" in progress.figures:
            losses[progress.done] = progress.figures["loss"]

    return keep


def join(rank: int, port: int) -> None:
    """Set what one of two processes needs to know to find the other."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}


def both(work: Callable[..., None], *given: object) -> None:
    """Do the same in two processes; each is told its number and where they meet besides."""
    forking = multiprocessing.get_context("fork")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    processes = [forking.Process(target=work, args=(*given, rank, port)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]


if __name__ == "__main__":
    for spec in sys.argv[1:]:
        both(train, Path(spec))
