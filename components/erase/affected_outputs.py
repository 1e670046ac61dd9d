"""Find what was made from rows: snapshots, adapters, scorecards and evidence."""

import json
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import pyarrow.parquet as pq

from components.schema import Json
from components.store import manifest
from components.store.warehouse import Connection

Kind: TypeAlias = Literal["snapshot", "adapter", "scorecard", "evidence"]

TESTED_ON = "holdout"
"""Files of a snapshot that begin so are measured on and never trained on."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where outputs lie, ``<root>/<workload>/<key>``, and the jobs that made them."""

    snapshots: Path
    adapters: Path
    scorecards: Path
    evidence: Path
    jobs: Path

    def root(self, kind: Kind) -> Path:
        """Give the root of a kind."""
        return {
            "snapshot": self.snapshots,
            "adapter": self.adapters,
            "scorecard": self.scorecards,
            "evidence": self.evidence,
        }[kind]


@dataclass(frozen=True, slots=True, order=True)
class Output:
    """One output by kind, folder of its workload, and key."""

    kind: Kind
    workload: str
    key: str


@dataclass(frozen=True, slots=True)
class Lineage:
    """What was made from erased rows.

    ``requests`` are the ids of examples that only erased rows stand behind.
    """

    tainted: frozenset[Output]
    requests: frozenset[str] = field(default_factory=frozenset[str])


def trace(outputs: Outputs, ids: AbstractSet[str]) -> Lineage:
    """Follow the ids of interactions and feedback to all that was made from them."""
    snapshots: set[Output] = set()
    learned: set[str] = set()
    asked: set[str] = set()
    only_erased: set[str] = set()
    for output, folder in _folders("snapshot", outputs):
        for path in sorted(folder.glob("*.parquet")):
            found = _named_in(path, ids)
            if not found.is_named:
                continue
            snapshots.add(output)
            asked |= found.requests
            only_erased |= found.only_erased
            if not path.name.startswith(TESTED_ON):
                learned.add(output.key)
    scorecards = {
        output
        for output, folder in _folders("scorecard", outputs)
        if asked.intersection(_requests(folder / "samples.parquet"))
        or learned.intersection(_shown(folder))
    }
    keys = {one.key for one in snapshots | scorecards}
    evidence = {
        output
        for output, folder in _folders("evidence", outputs)
        if keys.intersection(_subject(folder / "verdict.json"))
    }
    trained = _trained_on(outputs, learned)
    tainted = snapshots | scorecards | evidence | trained
    return Lineage(frozenset(tainted), frozenset(only_erased))


def untraceable(outputs: Outputs, tainted: Iterable[Output]) -> list[Output]:
    """List the adapters whose snapshot is gone, so that nobody can tell what they learned from.

    Those on a snapshot of ``tainted`` were traced before it was deleted.
    """
    known = {output.key for output, _ in _folders("snapshot", outputs)}
    known |= {one.key for one in tainted if one.kind == "snapshot"}
    return [output for output, made_from in _adapters(outputs) if made_from.snapshot not in known]


def record(con: Connection, certificate_id: str, tainted: Iterable[Output]) -> None:
    """Note what is tainted; what names it can't be approved from now on."""
    for one in sorted(tainted):
        con.execute(
            "insert or ignore into raw.tainted values ($kind, $workload, $key, $id)",
            {"kind": one.kind, "workload": one.workload, "key": one.key, "id": certificate_id},
        )


def recorded(con: Connection, certificate_id: str) -> list[Output]:
    """Give what an erasure tainted, also if its files are gone by now."""
    rows = con.execute(
        "select kind, workload_id, key from raw.tainted where certificate_id = $id order by all",
        {"id": certificate_id},
    ).fetchall()
    return [Output(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class _MadeFrom:
    """The keys of an adapter's snapshot and of the adapters that it owes something to."""

    snapshot: str
    earlier: frozenset[str]


def _trained_on(outputs: Outputs, snapshots: AbstractSet[str]) -> set[Output]:
    """Find the adapters that learned from snapshots, and those that learned from such adapters."""
    left = dict(_adapters(outputs))
    trained: set[Output] = set()
    while True:
        keys = {one.key for one in trained}
        more = {
            output
            for output, made_from in left.items()
            if made_from.snapshot in snapshots or made_from.earlier & keys
        }
        if not more:
            return trained
        trained |= more
        left = {output: made_from for output, made_from in left.items() if output not in more}


@dataclass(frozen=True, slots=True)
class _Found:
    is_named: bool
    requests: frozenset[str] = frozenset()
    only_erased: frozenset[str] = frozenset()


def _named_in(path: Path, ids: AbstractSet[str]) -> _Found:
    """Look which rows of a snapshot's file name one of the ids, and which name no others."""
    names = [name for name in pq.read_schema(path).names if name.endswith(("_id", "_ids"))]
    if not names:
        return _Found(is_named=False)
    requests: set[str] = set()
    only_erased: set[str] = set()
    is_named = False
    for row in _rows(path, names):
        named = {id for name in names for id in _list(row[name])}
        if named.isdisjoint(ids):
            continue
        is_named = True
        request = str(row.get("example_id") or row.get("preference_id", ""))
        requests.add(request)
        if set(_list(row.get("interaction_ids"))) <= ids:
            only_erased.add(request)
    return _Found(is_named, frozenset(requests - {""}), frozenset(only_erased - {""}))


def _rows(path: Path, columns: list[str]) -> Iterator[dict[str, object]]:
    for batch in pq.ParquetFile(path).iter_batches(columns=columns):
        yield from batch.to_pylist()


def _list(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]


def _requests(path: Path) -> set[str]:
    if not path.exists():
        return set()
    column = pq.read_table(path, columns=["example_id"])["example_id"]
    return {str(one) for one in column.to_pylist()}


def _shown(folder: Path) -> set[str]:
    """Give the snapshot whose rows stand in a scorecard's prompts as solved examples."""
    if not manifest.is_finished(folder):
        return set()
    match manifest.read(folder).get("conditions"):
        case {"examples": str(snapshot)}:
            return {snapshot}
        case _:
            return set()


def _subject(path: Path) -> set[str]:
    if not path.exists():
        return set()
    subject: dict[str, Json] = json.loads(path.read_text())["subject"]
    return {id for value in subject.values() for id in _list(value)}


def _adapters(outputs: Outputs) -> Iterator[tuple[Output, _MadeFrom]]:
    """Pair each adapter with what it was made from; an unfinished one's job says that."""
    for output, folder in _folders("adapter", outputs):
        job = outputs.jobs / f"train-{output.key}" / "spec.json"
        if manifest.is_finished(folder):
            yield output, _made_from(manifest.read(folder))
        elif job.exists():
            yield output, _made_from(json.loads(job.read_text()))


def _made_from(told: Mapping[str, Json]) -> _MadeFrom:
    """Read a manifest, or a job's specification, which names the same things by their folders."""
    earlier = [told.get("warm_start")]
    match told.get("recipe"):
        case {"objective": {"teacher_model_name_or_path": teacher}}:
            earlier.append(teacher)
        case _:
            pass
    names = frozenset(Path(one).name for one in earlier if isinstance(one, str))
    return _MadeFrom(Path(str(told["snapshot"])).name, names)


def _folders(kind: Kind, outputs: Outputs) -> Iterator[tuple[Output, Path]]:
    for folder in sorted(outputs.root(kind).glob("*/*")):
        if folder.is_dir():
            yield Output(kind, folder.parent.name, folder.name), folder
