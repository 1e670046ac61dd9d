"""Read which sides snapshots have settled."""

from components.curate.placing import Settled
from components.curate.split import SplitBy, SplitChangedError
from components.warehouse import Connection


def read(con: Connection, workload_id: str, split_by: SplitBy) -> Settled:
    """Read a workload's settled sides, and how many knots of each stratum were drawn.

    Raises:
        SplitChangedError: They were drawn in another way than ``split_by``.
    """
    named = {"workload_id": workload_id}
    found = con.execute(
        "select group_id, side, split_by, settled_at from curated.sides"
        " where workload_id = $workload_id",
        named,
    ).fetchall()
    if others := {drawn_by for _, _, drawn_by, _ in found} - {split_by}:
        raise SplitChangedError(
            f"curating {workload_id}: its snapshots were split by {', '.join(others)}, the config "
            f"says {split_by}. That would test on rows that were trained on: set split_by "
            "back, or start a workload of another name"
        )
    drawn = con.execute(
        "select stratum, count(distinct draw_id) from curated.sides"
        " where workload_id = $workload_id and stratum is not null group by stratum",
        named,
    ).fetchall()
    return Settled(
        {group_id: side for group_id, side, _, _ in found},
        dict(drawn),
        {group_id: since for group_id, _, _, since in found},
    )
