"""Curate a workload and freeze what came of it; for the flow, and for the terminal."""

from dataclasses import dataclass
from datetime import datetime

from components import ledger, tokens, warehouse
from components.curate import losses, pipeline
from components.curate.losses import Example, Loss
from components.curate.pipeline import Tally
from components.curate.redaction import staying
from components.dataset import snapshot
from components.dataset.snapshot import Snapshot
from components.gate import power, spending
from components.scorecard import HOLDOUT
from flows.revision import revision
from flows.settings import Settings
from flows.workload import Workload

LEAD = 0.1
"""A holdout that can't show so large a lead is too small to judge most challengers."""


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
    """
    with warehouse.connect(home.warehouse) as con:
        tally = pipeline.curate(
            con,
            workload.workload,
            workload.curate,
            now=now,
            counter=tokens.counter(con, workload.base),
        )
        waiting = losses.waiting(con, workload.workload)
        if ask and waiting:
            lost = [Lost(one, losses.examples(con, one)) for one in waiting]
            return Curated(tally, None, lost)
        frozen = snapshot.freeze(
            con,
            home.snapshots,
            workload.workload,
            rules=workload.curate,
            now=now,
            base=workload.base,
            commit=revision(),
            staying=staying.finder(workload.curate.redaction),
        )
        ledger.record_output(con, workload.workload, frozen.path, now=now)
    return Curated(tally, frozen, [])
