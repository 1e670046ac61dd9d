"""What a test has done inside a cluster's namespace: a name and arguments; prints JSON a line."""

import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from components.curate import curate_workload, ray_pool, worker_pool
from components.curate.ray_pool import RayPool, RayPoolError
from components.curate.row_judgement import environment
from components.curate.settings import Rules
from components.curate.worker_pool import limited
from components.dataset import freeze_snapshot
from components.store import warehouse
from flows.doctor import diagnosis
from tests.support import logs
from tests.support.ray_cluster import ADDRESS

RULES = Rules(holdout_share=0.4, split_by="conversation")


def same() -> dict[str, str | None]:
    """Return an environment that is equal everywhere."""
    return {"ours": "1"}


POOL = RayPool(ADDRESS, same)


def say(**values: Any) -> None:
    """Print a line for the test."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def doubled(numbers: list[int]) -> list[int]:
    """Return twice the numbers."""
    return [2 * number for number in numbers]


def slow(numbers: list[int]) -> list[int]:
    """Return the numbers, while others may take a batch, too."""
    time.sleep(0.5)
    return numbers


def quotients(numbers: list[int]) -> list[int]:
    """Fail at 0."""
    return [1 // number for number in numbers]


def endless(numbers: list[int]) -> list[int]:
    """Never return."""
    time.sleep(10_000)
    return numbers


def interrupted(numbers: list[int]) -> list[bool]:
    """Return whether an endless loop was ended by its limit of CPU time."""
    try:
        with limited(0.2):
            while True:
                pass
    except worker_pool.RowTimeoutError:
        return [True for _ in numbers]


def mapped(work: str, count: int) -> Iterator[Any]:
    """Map a function of this module over numbers."""
    return worker_pool.map_in_processes(globals()[work], range(count), min_items=1, ray=POOL)


def total(work: str, count: str) -> None:
    """Print the results, or their cluster's error."""
    try:
        say(results=[*mapped(work, int(count))])
    except (RayPoolError, ZeroDivisionError) as error:
        say(error=str(error), kind=type(error).__name__)


def lazy() -> None:
    """Print how many items were read when the first result came."""
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100_000):
            taken.append(number)
            yield number

    results = worker_pool.map_in_processes(doubled, items(), min_items=1, ray=POOL)
    next(results)
    say(taken=len(taken))


def curate(home: str, name: str, address: str) -> None:
    """Curate and freeze a home; print the snapshot and how many rows were judged.

    Judgements and snapshots are those of ``name``, the values that stand for personal data the
    home's.
    """
    place = Path(home)
    with warehouse.connect(place / "warehouse.duckdb") as con:
        try:
            tally = curate_workload.curate(
                con,
                "weather",
                RULES,
                now=logs.NOW,
                judgements_folder=place / name / "judgements",
                ray_address=address or None,
            )
        except RayPoolError as error:
            say(error=str(error))
            return
        frozen = freeze_snapshot.freeze(con, place / name, "weather", rules=RULES, now=logs.NOW)
    say(judged=tally.judged, snapshot=str(frozen.path))


def unlike(address: str) -> None:
    """Print the error of a node that has other code, once it has taken a batch.

    A node that has a process already can take all batches of a work while another one starts one.
    """
    pool = RayPool(address, partial(environment, RULES))
    try:
        while True:
            list(worker_pool.map_in_processes(slow, range(1000), min_items=1, ray=pool))
    except RayPoolError as error:
        say(error=str(error))


def probe() -> None:
    """Print what the doctor says of the cluster, and the nodes."""
    say(results=[[each.level, each.state] for each in diagnosis.check_ray(ADDRESS)])


def stranger() -> None:
    """Print whether the head answers who has no token."""
    say(is_open=ray_pool.takes_strangers(ADDRESS))


if __name__ == "__main__":
    # A suite that a shell runs in the background hands down that it is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    say(begins=os.getpid())
    # Not of __main__, which the nodes don't have.
    getattr(importlib.import_module("tests.support.ray_driver"), sys.argv[1])(*sys.argv[2:])
