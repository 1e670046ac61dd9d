"""Curate and freeze on an open warehouse: a file in place, a lake in a working copy, as flows do.

So one test says what it says about both (``tests.support.warehouses``).
"""

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from components.curate import curate_workload
from components.curate.curate_workload import CurationTally
from components.curate.settings import Rules
from components.dataset import freeze_snapshot
from components.dataset.snapshot_figures import Snapshot
from components.store import warehouse, warehouse_port, working_copy
from components.store.warehouse import Connection
from tests.support import warehouses


def curate(
    con: Connection, workload_id: str, rules: Rules, *, now: datetime, **more: Any
) -> CurationTally:
    """Curate a workload; ``con`` has its rows and its staging tables afterwards."""
    with _writable(con, workload_id) as writable:
        return curate_workload.curate(writable, workload_id, rules, now=now, **more)


def freeze(
    con: Connection, root: Path, workload_id: str, *, rules: Rules, now: datetime, **more: Any
) -> Snapshot:
    """Freeze a curated workload: from a lake what was merged into it, so that nothing was lost."""
    with _writable(con, workload_id) as writable:
        return freeze_snapshot.freeze(writable, root, workload_id, rules=rules, now=now, **more)


@contextmanager
def _writable(con: Connection, workload_id: str) -> Generator[Connection]:
    if warehouse_port.shared(con) is None:
        yield con
        return
    place = warehouses.lake_of(con)
    with (
        tempfile.TemporaryDirectory() as scratch,
        working_copy.open_copy(place, workload_id, Path(scratch)) as copy,
    ):
        for name in sorted(working_copy.REBUILT):
            table = f"curated.{name}"
            rows = con.sql(f"from {table} where workload_id = '{workload_id}'").to_arrow_table()
            _show(copy.con, f"insert into {table} by name from shown", rows)
        yield copy.con
        copy.merge()
        copy.merge_settled()  # which also keeps the digests of what was frozen
        staged = warehouse.texts(
            copy.con,
            "select table_name from information_schema.tables where table_schema = 'staging'",
        )
        for name in staged:
            rows = copy.con.sql(f"from staging.{name}").to_arrow_table()
            _show(con, f"create or replace table memory.staging.{name} as from shown", rows)


def _show(con: Connection, sql: str, rows: Any) -> None:
    with warehouse.present(con, "shown", rows):
        con.execute(sql)
