"""Find versions and scorecards by the names people type; trace a version's lineage."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from components.gate.comparability import Measured, incomparable
from components.register import ancestry, registry, version_tags
from components.register.ancestry import Ancestry, OutputRoots
from components.register.registry import Version
from components.scorecard import HOLDOUT, VALIDATION
from components.scorecard import read as read_scorecard
from components.store import manifest, warehouse
from components.store.manifest import ScorecardManifest
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


SHORTEST = 4  # minimum length of a key prefix; it must also be unique

Records = Mapping[Path, ScorecardManifest]


class IncomparableError(ValueError):
    """The two were measured on different requests, or under different conditions."""


@dataclass(frozen=True, slots=True)
class ScorecardPair:
    """Two models' scorecards by task; only tasks that both were measured on alike."""

    first: Measured
    second: Measured


def find_scorecards(home: Settings, workload: str, first: str, second: str) -> ScorecardPair:
    """Find the newest comparable scorecards of two models.

    A model is ``base``, ``champion``, ``previous``, a version's number, or the beginning of an
    adapter's or a scorecard's key. ``LookupError``: there is no such model, or it has no scorecard.
    """
    records = _records(home.scorecards / workload)
    ours, theirs = (_records_of_model(workload, records, model, home) for model in (first, second))
    tasks = {mine.task for mine in ours.values()} & {its.task for its in theirs.values()}
    pairs = {task: _alike(ours, theirs, task) for task in sorted(tasks)}
    comparable = {task: pair for task, pair in pairs.items() if pair is not None}
    mine, its = comparable.get(HOLDOUT) or (_newest(ours), _newest(theirs))
    if mine == its:
        raise IncomparableError(f"comparing {first} with {second}: both are scorecard {mine.name}")
    if reasons := incomparable(read_scorecard(mine), read_scorecard(its)):
        differences = "; ".join(_reason_with_names(reason, first, second) for reason in reasons)
        raise IncomparableError(f"comparing {first} with {second} of {workload}: {differences}")
    return ScorecardPair(
        {task: read_scorecard(pair[0]) for task, pair in comparable.items()},
        {task: read_scorecard(pair[1]) for task, pair in comparable.items()},
    )


def _records(root: Path) -> Records:
    """Read the manifests of a workload's scorecards, newest first."""
    folders = manifest.finished_folders(root)
    records = [(folder, ScorecardManifest.read(folder)) for folder in folders]
    records.sort(key=lambda pair: pair[1].age, reverse=True)
    # Without a task it is too old; scores on the validation side, which models are tuned on, don't
    # hold for other requests.
    return {folder: record for folder, record in records if record.task not in ("", VALIDATION)}


def _records_of_model(workload: str, records: Records, model: str, home: Settings) -> Records:
    if model == "base":
        matching = {folder: record for folder, record in records.items() if record.adapter is None}
    elif model in version_tags.ALIASES or (model.isdigit() and len(model) < SHORTEST):
        require_mlflow(home, f"looking up {model} of {workload}", "an adapter's key needs none")
        key = find_version(workload, model).adapter
        matching = {folder: record for folder, record in records.items() if record.adapter == key}
    else:
        matching = _keyed(records, model)
    if not matching:
        raise LookupError(
            f"comparing {model} of {workload}: it has no scorecard; expected base, champion, "
            "previous, a version's number, or the beginning of an adapter's or a scorecard's key"
        )
    return matching


def _keyed(records: Records, prefix: str) -> Records:
    """Return the scorecards whose adapter key, or else own key, has a prefix."""
    adapters = {record.adapter for record in records.values() if record.adapter}
    matching = [key for key in sorted(adapters) if key.startswith(prefix)]
    matching += [folder.name for folder in records if folder.name.startswith(prefix)]
    if len(prefix) < SHORTEST or len(matching) > 1:
        raise LookupError(
            f"comparing {prefix}: expected a unique key prefix of {SHORTEST} characters or more, "
            f"found {', '.join(matching) or 'none'}"
        )
    return {
        folder: record
        for folder, record in records.items()
        if matching and matching[0] in (folder.name, record.adapter)
    }


def _alike(ours: Records, theirs: Records, task: str) -> tuple[Path, Path] | None:
    """Return the newest two distinct scorecards of a task with equal conditions."""
    for first, mine in ours.items():
        for second, its in theirs.items():
            of_task = mine.task == its.task == task
            if of_task and first != second and mine.conditions == its.conditions:
                return first, second
    return None


def _newest(records: Records) -> Path:
    of_holdout = [folder for folder, record in records.items() if record.task == HOLDOUT]
    return [*of_holdout, *records][0]


def _reason_with_names(reason: str, first: str, second: str) -> str:
    for role, name in (("challenger", first), ("opponent", second)):
        reason = reason.replace(f"the {role}", name)
    return reason


def trace_version(home: Settings, workload: str, name: str) -> Ancestry:
    """Trace the lineage of a version, named by its number or an alias."""
    require_mlflow(home, f"looking up {name} of {workload}")
    version = find_version(workload, name)
    kinds = (home.evidence, home.scorecards, home.adapters, home.snapshots)
    with warehouse.connect(home.tables) as con:
        roots = OutputRoots(*(root / workload for root in kinds))
        return ancestry.trace_ancestry(con, version, registry.read_aliases(workload), roots)
