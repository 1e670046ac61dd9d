"""Gather what a version came from, out of MLflow, the warehouse and the folders of the home."""

from components import warehouse
from components.register import aliases, ancestry
from components.register.ancestry import Ancestry, Roots
from flows import versions
from flows.settings import Settings


def of(home: Settings, workload: str, said: str) -> Ancestry:
    """Follow a version back.

    Args:
        home: Where all lies.
        workload: Whose.
        said: A version's number, or an alias.

    Raises:
        LookupError: MLflow does not answer, or has no such version.
    """
    versions.require_mlflow(home, f"looking up {said} of {workload}")
    version = versions.find(workload, said)
    kinds = (home.evidence, home.scorecards, home.adapters, home.snapshots)
    with warehouse.connect(home.warehouse) as con:
        roots = Roots(*(root / workload for root in kinds))
        return ancestry.trace(con, version, aliases.read(workload), roots)
