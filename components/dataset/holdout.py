"""Number the states of a workload's holdout: one that grew, or was corrected, is a new version."""

from datetime import datetime

from components import warehouse
from components.warehouse import Connection


def version(con: Connection, workload_id: str, digest: str, *, now: datetime) -> str:
    """Give the name of the holdout as it stands, ``v<number>-<digest>``, noting it if it is new.

    A holdout that comes back to a state that it was in gets that state's number again.

    Args:
        con: The warehouse, after ``curate``.
        workload_id: The workload.
        digest: Of all that is measured: the requests and their references.
        now: When it is frozen (UTC).
    """
    named = {"workload_id": workload_id, "digest": digest}
    if not warehouse.rows(con, _KNOWN, **named):
        warehouse.append(con, "curated/holdout_versions", frozen_at=now, **named)
        warehouse.append(con, "curated/holdout_rows", **named)
    ((found),) = warehouse.rows(con, _KNOWN, **named)
    return f"v{found['version']}-{digest}"


_KNOWN = """
    select version
    from curated.holdout_versions
    where workload_id = $workload_id and digest = $digest
"""
