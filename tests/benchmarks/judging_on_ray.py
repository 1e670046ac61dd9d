"""Measure what Ray costs the curating process; ``python -m tests.benchmarks.judging_on_ray``.

Two nodes of one core each start in a network namespace, and judge made rows; so does this process
alone. Both must give equal judgements. The driver's CPU seconds are those of its process after it
has connected: it sends the rows and reads the judgements. What it takes while it waits for nodes,
which on a busy machine is most of it, is measured by a node that sleeps. Runs in the environment
of `make test-lake`.
"""

import argparse
import hashlib
import importlib
import json
import pickle
import resource
import sys
import time
from functools import partial
from itertools import chain
from typing import Any

from components.curate import ray_pool, row_judgement
from components.curate.interaction import CandidateRow
from components.curate.ray_pool import RayPool
from components.curate.settings import Rules
from components.schema import Json
from tests.benchmarks import traffic
from tests.support import logs, ray_cluster

RULES = Rules(split_by="conversation")
SLEEP = 10.0


def cpu_seconds() -> float:
    """Return the CPU time of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def row(number: int, line: dict[str, Json]) -> CandidateRow:
    """Read a log line as ``staging.candidates`` does, feedback apart."""
    match line:
        case {"request": dict(request), "response": {"choices": [dict(choice), *_]}}:
            message, reason = choice.get("message"), choice.get("finish_reason")
        case _:
            raise ValueError(f"line {number} is no five-key line")
    return CandidateRow(
        interaction_id=f"{number:08}",
        workload_id=str(line["workload_id"]),
        example_id=f"{number:08}",
        logged_at=logs.NOW,
        conversation_id=None,
        user_id=None,
        messages=json.dumps(request.get("messages")),
        tools=json.dumps(request.get("tools") or []),
        message=json.dumps(message),
        finish_reason=reason if isinstance(reason, str) else None,
        is_corrected=False,
        acceptable=None,
    )


def drive(count: int) -> None:
    """Judge the rows here and on the cluster, and print what each took and whether they agree."""
    lines = traffic.made(count)
    rows = [row(number, line) for number, line in enumerate(lines)]
    begun = cpu_seconds()
    serial = [row_judgement.judge(row, RULES) for row in rows]
    alone = cpu_seconds() - begun
    pool = RayPool(ray_cluster.ADDRESS, partial(row_judgement.environment, RULES))
    batches = (rows[start : start + 250] for start in range(0, count, 250))
    judge = partial(row_judgement.judge_batch, rules=RULES)
    judged = ray_pool.map_on_ray(judge, ([(row, None) for row in batch] for batch in batches), pool)
    first = next(judged)
    begun, began = cpu_seconds(), time.monotonic()
    on_ray = [*chain([first], judged)]
    driver, lasted = cpu_seconds() - begun, time.monotonic() - began
    waited = waiting_share(pool) * lasted
    equal = digest(serial) == digest(on_ray)
    sys.stdout.write(
        f"{count:,} rows: {1000 * alone / count:.3f} ms of CPU a row here; on Ray "
        f"{1000 * driver / count:.3f} ms of the driver in {lasted:.0f} s, "
        f"{1000 * (driver - waited) / count:.3f} without waiting (wanted: 0.1); judgements "
        f"{'equal' if equal else 'DIFFERENT'}\n"
    )


def sleep(rows: list[int]) -> list[int]:
    """Do nothing for a while."""
    time.sleep(SLEEP)
    return rows


def waiting_share(pool: RayPool) -> float:
    """Return the CPU seconds that the driver takes in a second of waiting."""
    results = ray_pool.map_on_ray(_module().sleep, iter([[1], [2], [3]]), pool)
    next(results)
    begun, began = cpu_seconds(), time.monotonic()
    list(results)
    return (cpu_seconds() - begun) / (time.monotonic() - began)


def _module() -> Any:
    return importlib.import_module("tests.benchmarks.judging_on_ray")


def digest(judgements: list[row_judgement.RowJudgement]) -> str:
    """Return the digest of judgements, one by one, as equal texts may be shared between them."""
    whole = hashlib.sha256()
    for judgement in judgements:
        whole.update(pickle.dumps(repr(judgement)))
    return whole.hexdigest()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--drive", action="store_true", help="be the process that is measured")
    arguments = parser.parse_args()
    if arguments.drive:
        drive(arguments.rows)
    else:
        with ray_cluster.started("127.0.0.3") as cluster:
            command = ["-m", "tests.benchmarks.judging_on_ray", "--drive"]
            driver = cluster.start(*command, "--rows", str(arguments.rows))
            assert driver.stdout is not None
            sys.stdout.writelines(line.decode() for line in driver.stdout)
