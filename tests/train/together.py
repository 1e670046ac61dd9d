"""Train in two processes for each specification: ``python -m tests.train.together SPEC...``.

They are forked once the libraries are loaded, which takes longer than a tiny training; see
``flows.launch`` for how a job's processes are started.
"""

import json
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from components.schema import Progress
from components.train import fit
from components.train.recipe import Recipe


def train(spec: Path, rank: int, port: int) -> None:
    """Be one of two processes; the losses that it reports go to a file of its own."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
    given = json.loads(spec.read_text())
    snapshot, base, folder = (Path(given[name]) for name in ("snapshot", "base", "folder"))
    wanted = Recipe.model_validate(given["recipe"])
    losses: dict[int, float] = {}
    fit.fit(snapshot, base, folder, wanted, report=keeper(losses))
    spec.with_suffix(f".{rank}").write_text(json.dumps(losses))


def keeper(losses: dict[int, float]) -> Callable[[Progress], None]:
    """Give a listener that keeps each step's loss; a validation comes after the last step."""

    def keep(progress: Progress) -> None:
        if "loss" in progress.figures:
            losses[progress.done] = progress.figures["loss"]

    return keep


def main(specs: list[Path]) -> None:
    """Train for one specification after the other."""
    forking = multiprocessing.get_context("fork")
    for spec in specs:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        both = [forking.Process(target=train, args=(spec, rank, port)) for rank in (0, 1)]
        for process in both:
            process.start()
        for process in both:
            process.join()
        assert [process.exitcode for process in both] == [0, 0]


if __name__ == "__main__":
    main([Path(spec) for spec in sys.argv[1:]])
