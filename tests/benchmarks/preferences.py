"""Take real pairwise judgements through collecting and curation, and count what becomes of them.

``python -m tests.benchmarks.preferences FOLDER``, where FOLDER holds
``prefs_human_openinstruct.jsonl.gz``. Each prompt with one model's answer becomes an interaction of
the five-key log, and each judgement a choice between two response ids by its annotator. The
annotators were hired to judge, so they are trusted; the second count shows them under the cap.
"""

import argparse
import gzip
import hashlib
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from components.curate import curate_workload
from components.curate.settings import Preferences, Rules
from components.schema import Json
from components.store import warehouse
from components.store.warehouse import Connection
from tests.support import logs

NAME = "prefs_human_openinstruct.jsonl.gz"
CLIENT = "evaluation"
Judgement = dict[str, str]
Lines = list[dict[str, Json]]


def main() -> None:
    """Convert, collect, curate, count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    path: Path = parser.parse_args().folder / NAME
    with gzip.open(path, "rt") as file:
        judgements: list[Judgement] = [json.loads(line) for line in file]
    with tempfile.TemporaryDirectory() as folder:
        count(judgements, Path(folder))


def count(judgements: Sequence[Judgement], folder: Path) -> None:
    """Print the counts of all workloads of the file together."""
    log = logs.write(folder / "log.jsonl", answers(judgements))
    given = logs.write(folder / "feedback.jsonl", [choice(one) for one in judgements])
    workloads = sorted({one["workload_id"] for one in judgements})
    annotators = tuple(sorted({one["annotator"] for one in judgements}))
    with warehouse.connect(folder / "warehouse.duckdb") as con:
        logs.load(con, log, now=logs.NOW)
        logs.load_feedback(con, given, now=logs.NOW)
        staged(con, workloads)
        for trusted in (annotators, ()):
            curated(con, workloads, trusted)


def answers(judgements: Sequence[Judgement]) -> Lines:
    """Log each model's answer to each prompt once."""
    found: dict[str, dict[str, Json]] = {}
    for one in judgements:
        for side in "12":
            name = response(one, side)
            found[name] = logs.interaction(
                one["prompt"],
                message=logs.say(one[f"output_{side}"]),
                response_id=name,
                workload_id=one["workload_id"],
                client_id=CLIENT,
            )
    return list(found.values())


def choice(one: Judgement) -> dict[str, Json]:
    """Write a judgement as feedback on the first of the two responses, whichever stood first."""
    first, second = response(one, "1"), response(one, "2")
    chosen, rejected = (second, first) if one["choice"] == "output_2" else (first, second)
    value: dict[str, Json] = {"chosen": chosen, "rejected": rejected}
    return logs.feedback(
        "choice",
        value | ({"tie": True} if one["choice"] == "tie" else {}),
        timestamp=int(one["timestamp"]),
        workload_id=one["workload_id"],
        client_id=CLIENT,
        actor_id=one["annotator"],
        response_id=min(first, second),
    )


def response(one: Judgement, side: str) -> str:
    """Name a model's answer to a prompt."""
    text = "\n".join([one["workload_id"], one[f"model_{side}"], one["prompt"]])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def staged(con: Connection, workloads: Sequence[str]) -> None:
    """Count what was collected, before anything is decided."""
    total: Counter[str] = Counter()
    for workload in workloads:
        for model in ("interactions", "given", "feedback", "signals"):
            warehouse.build(con, f"staging/{model}", workload_id=workload)
        (found,) = warehouse.rows(con, STAGED)
        total.update({name: int(str(value)) for name, value in found.items()})
    show("collected", total)


def curated(con: Connection, workloads: Sequence[str], trusted: tuple[str, ...]) -> None:
    """Count what curation made of it."""
    rules = Rules(preferences=Preferences(trusted=trusted))
    total: Counter[str] = Counter()
    for workload in workloads:
        curate_workload.curate(con, workload, rules, now=logs.NOW)
        for query in (FATES, CONFLICTS, PAIRS):
            for row in warehouse.rows(con, query, workload_id=workload):
                total[str(row["name"])] += int(str(row["found"]))
    title = "curated, annotators trusted" if trusted else "curated, annotators capped"
    show(title, Counter(dict(sorted(total.items()))))


def show(title: str, counts: Counter[str]) -> None:
    """Print counts, in the order in which they came."""
    sys.stdout.write(f"{title}\n")
    for name, found in counts.items():
        sys.stdout.write(f"  {found:6}  {name}\n")


STAGED = """
    with

    judged as (
        select
            signals.*,
            list_sort([chosen_id, rejected_id]) as pair,
            coalesce((value ->> '$.tie') = 'true', false) as is_tie,
            chosen.message = rejected.message as is_identical
        from staging.signals as signals
        inner join staging.texts as chosen on chosen_id = chosen.interaction_id
        inner join staging.texts as rejected on rejected_id = rejected.interaction_id
    ),

    pairs as (
        select
            count(distinct actor_id) as judges,
            count(distinct chosen_id) filter (where not is_tie) as winners
        from judged
        group by pair
    )

    select
        (select count(*) from staging.given) as judgements,
        (
            select count(*) from staging.given where (value ->> '$.tie') = 'true'
        ) as "of them ties",
        (select count(*) from judged) as "newest word of each annotator on each two responses",
        (select count(*) from judged where is_identical) as "of them on identical answers",
        (select count(*) from pairs) as "pairs of responses",
        (select count(*) from pairs where judges > 1) as "judged twice or more",
        (
            select count(*) from pairs where judges > 1 and winners > 1
        ) as "with opposite winners"
"""
FATES = """
    select 'fate ' || fate as name, count(*) as found
    from curated.fates
    where workload_id = $workload_id
    group by fate
    order by fate
"""
CONFLICTS = """
    select
        if(weight_for > 0 and weight_against > 0, 'opposite winners: ', 'choices and ties: ')
        || if(resolution = 'undecided', 'undecided', 'resolved') || ' by ' || method as name,
        count(*) as found
    from curated.conflicts
    where workload_id = $workload_id
    group by all
    order by all
"""
PAIRS = """
    select
        unnest(['pairs to train on', 'won by the longer answer', 'won by the shorter']) as name,
        unnest([
            count(*),
            count(*) filter (where chosen_length > rejected_length),
            count(*) filter (where chosen_length < rejected_length)
        ]) as found
    from curated.preferences
    where workload_id = $workload_id and side = 'train'
"""


if __name__ == "__main__":
    main()
