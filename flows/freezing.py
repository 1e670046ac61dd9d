"""Curate a workload and freeze what came of it; for the flow, and for the terminal."""

import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from components import ledger, manifest, tokens, working_copy
from components.curate import losses, pipeline
from components.curate.losses import Example, Loss
from components.curate.pipeline import Tally
from components.curate.redaction import staying
from components.dataset import snapshot
from components.dataset.snapshot import Snapshot
from components.gate import power, spending
from components.scorecard import HOLDOUT
from components.working_copy import StaleCopyError, WorkingCopy
from flows.revision import revision
from flows.settings import Settings
from flows.workload import Workload

LEAD = 0.1
"""A holdout that can't show so large a lead is too small to judge most challengers."""

ATTEMPTS = 3
"""Erasures and retention are rare; three of them during one workload's curations are a mistake."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A rule that left out more than may pass unasked, and some of what it left out."""

    loss: Loss
    examples: list[Example]


@dataclass(frozen=True, slots=True)
class Curated:
    """What came of a workload's interactions.

    ``snapshot`` is ``None`` where a person is asked first whether what was ``lost`` is right.
    """

    tally: Tally
    snapshot: Snapshot | None
    lost: list[Lost]


def shortage(workload: Workload, frozen: Snapshot) -> str | None:
    """Say that one large cluster makes the gate need more requests than the holdout has.

    ``None`` where it has them, or no cluster can have more than one.
    """
    policy, cap = workload.gate, workload.curate.holdout_per_cluster
    bound = min(frozen.largest_cluster, cap or frozen.largest_cluster)
    alpha = spending.allowance(policy.alpha, 1, policy.looks)
    wanted = power.fewest(bound, LEAD, alpha)
    if policy.task != HOLDOUT or bound == 1 or frozen.holdout_rows >= wanted:
        return None
    return (
        f"the holdout is too small to show a lead of {100 * LEAD:g} points: one cluster can have "
        f"{bound:,} requests, so the gate needs at least {wanted:,} and there are "
        f"{frozen.holdout_rows:,}; with `holdout_per_cluster: 1` under curate it needs at least "
        f"{power.fewest(1, LEAD, alpha):,}, of the {frozen.clusters['holdout']:,} that it would "
        "have: one of each cluster"
    )


def freeze(workload: Workload, home: Settings, *, now: datetime, ask: bool = True) -> Curated:
    """Judge every interaction, then write the snapshot unless an equal one exists.

    Args:
        workload: The workload.
        home: Where the warehouse and the snapshots are.
        now: When it is done (UTC).
        ask: Freeze nothing while a person is asked about a rule that left out very much.

    Raises:
        SplitChangedError: A snapshot was frozen with another ``split_by``.
        NoTokenizerError: A budget of tokens is set, and the base has no ``tokenizer.json``.
        ReplayError: Rows are to be replayed from what is no set of them.
        CheckFailedError: A check found rows that must not be.
        EmptySideError: There is nothing to train on, or nothing to test on.
        StaleCopyError: Rows were erased or archived during each of several attempts.
    """
    for _ in range(ATTEMPTS - 1):
        with suppress(StaleCopyError):
            return _freeze(workload, home, now, ask=ask)
    return _freeze(workload, home, now, ask=ask)


@contextmanager
def curated(
    workload: Workload, home: Settings, *, now: datetime
) -> Generator[tuple[WorkingCopy, Tally]]:
    """Judge every interaction in a copy of the workload's rows, and write the verdicts down.

    Nobody else curates the workload within the block. Raises as ``freeze`` does.
    """
    with (
        working_copy.reserved(home.locks, workload.workload),
        working_copy.opened(home.warehouse, workload.workload, home.scratch) as copy,
    ):
        counter = tokens.counter(copy.con, workload.base)
        tally = pipeline.curate(
            copy.con, workload.workload, workload.curate, now=now, counter=counter
        )
        copy.merge()
        yield copy, tally


def _freeze(workload: Workload, home: Settings, now: datetime, *, ask: bool) -> Curated:
    with curated(workload, home, now=now) as (copy, tally):
        waiting = losses.waiting(copy.con, workload.workload)
        if ask and waiting:
            lost = [Lost(one, losses.examples(copy.con, one)) for one in waiting]
            return Curated(tally, None, lost)
        frozen = snapshot.freeze(
            copy.con,
            home.snapshots,
            workload.workload,
            rules=workload.curate,
            now=now,
            base=workload.base,
            commit=revision(),
            staying=staying.finder(workload.curate.redaction),
        )
        _record(copy, frozen, now)
    return Curated(tally, frozen, [])


def _record(copy: WorkingCopy, frozen: Snapshot, now: datetime) -> None:
    """Write down what was frozen; where rows of it were erased meanwhile, it is thrown away."""
    record = partial(ledger.record_output, workload=copy.workload_id, folder=frozen.path, now=now)
    is_new = manifest.read(frozen.path)["created_at"] == now.isoformat(timespec="seconds")
    try:
        copy.merge(record)
    except StaleCopyError:
        if is_new:
            shutil.rmtree(frozen.path)
        raise
