"""Curate a workload and freeze what came of it; for the flow, and for the terminal."""

from datetime import datetime

from components import ledger, tokens, warehouse
from components.curate import pipeline
from components.curate.pipeline import Tally
from components.curate.redaction import staying
from components.dataset import snapshot
from components.dataset.snapshot import Snapshot
from flows.revision import revision
from flows.settings import Settings
from flows.workload import Workload


def freeze(workload: Workload, home: Settings, *, now: datetime) -> tuple[Tally, Snapshot]:
    """Judge every interaction, then write the snapshot unless an equal one exists.

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
    return tally, frozen
