"""Find versions by the names people type; trace a version's lineage."""

from components.register import registry, version_tags
from components.register.registry import Version
from components.release import ancestry
from components.release.ancestry import Ancestry, OutputRoots
from components.store import warehouse
from flows.settings import Settings
from flows.stack import health


class NoMlflowError(LookupError):
    """MLflow does not answer."""


def require_mlflow(home: Settings, doing: str, otherwise: str = "") -> None:
    """Raise ``NoMlflowError`` unless MLflow answers; ``otherwise`` names a way without it."""
    if not health.mlflow_answers(home):
        hint = f", and {otherwise}" if otherwise else ""
        raise NoMlflowError(
            f"{doing} in MLflow: {home.mlflow_url} does not answer; {home.remedy}{hint}"
        )


def find_version(workload: str, name: str) -> Version:
    """Find a version by its number, or by its alias."""
    if name.isdigit():
        return registry.version_numbered(workload, name)
    version = registry.aliased_version(workload, name)
    if version is None:
        raise LookupError(
            f"looking up the {name} of {workload}: it has none; expected a number, or one of "
            f"{', '.join(version_tags.ALIASES)}"
        )
    return version


def trace_version(home: Settings, workload: str, name: str) -> Ancestry:
    """Trace the lineage of a version, named by its number or an alias."""
    require_mlflow(home, f"looking up {name} of {workload}")
    version = find_version(workload, name)
    kinds = (home.evidence, home.scorecards, home.adapters, home.snapshots)
    with warehouse.connect(home.tables) as con:
        roots = OutputRoots(*(root / workload for root in kinds))
        return ancestry.trace_ancestry(con, version, registry.read_aliases(workload), roots)
