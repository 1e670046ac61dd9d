"""Find the outputs made from rows: snapshots, adapters, scorecards and evidence."""

import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar, cast

import pyarrow.parquet as pq
from pydantic import JsonValue

from components.schema import Json
from components.store import manifest, output_folders, warehouse
from components.store.manifest import AdapterManifest, ScorecardManifest
from components.store.warehouse import Connection

Kind: TypeAlias = Literal["snapshot", "adapter", "scorecard", "evidence"]

Result = TypeVar("Result")

TESTED_ON = "holdout"  # prefix of a snapshot's files that are measured on and never trained on

VERDICT = "verdict.json"  # the file of evidence with its subject and its figures, which name nobody


class DamagedOutputError(ValueError):
    """A finished output can't be read, so it is unknown whether rows are in it."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """The roots of outputs, ``<root>/<workload>/<key>``, and of the jobs that made them."""

    snapshots: Path
    adapters: Path
    scorecards: Path
    evidence: Path
    jobs: Path

    def root(self, kind: Kind) -> Path:
        """Return the root of a kind."""
        return {
            "snapshot": self.snapshots,
            "adapter": self.adapters,
            "scorecard": self.scorecards,
            "evidence": self.evidence,
        }[kind]


@dataclass(frozen=True, slots=True, order=True)
class Output:
    """An output's kind, workload folder and key."""

    kind: Kind
    workload: str
    key: str


@dataclass(frozen=True, slots=True)
class Lineage:
    """The outputs made from erased rows, and the examples that come from such rows only."""

    tainted: frozenset[Output]
    requests: frozenset[str] = field(default_factory=frozenset[str])  # the examples' ids


IsErased: TypeAlias = Callable[[str], bool]
"""Whether an interaction or feedback with an id is erased."""


def trace(outputs: Outputs, is_erased: IsErased) -> Lineage:
    """Return the outputs made from erased interactions and feedback.

    What a killed process has left half written is none: it is deleted whatever it holds.

    Raises:
        DamagedOutputError: A finished output can't be read.
    """
    snapshots: set[Output] = set()
    trained_on: set[str] = set()
    requests: set[str] = set()
    only_erased: set[str] = set()
    for output, folder in _folders("snapshot", outputs):
        for path in sorted(folder.glob("*.parquet")):
            affected = _readable(folder, partial(_affected_requests, path, is_erased)) or {}
            requests |= affected.keys() - {""}
            only_erased |= {request for request, is_only in affected.items() if is_only} - {""}
            if affected:
                snapshots.add(output)
            if affected and not path.name.startswith(TESTED_ON):
                trained_on.add(output.key)

    def is_scored(folder: Path) -> bool:
        scored = _requests(folder / "samples.parquet")
        return not requests.isdisjoint(scored) or not trained_on.isdisjoint(
            _few_shot_snapshots(folder)
        )

    scorecards = {
        output
        for output, folder in _folders("scorecard", outputs)
        if _readable(folder, partial(is_scored, folder))
    }
    keys = {output.key for output in snapshots | scorecards}
    evidence = {
        output
        for output, folder in _folders("evidence", outputs)
        if not keys.isdisjoint(_readable(folder, partial(_subject, folder / VERDICT)) or ())
    }
    tainted = snapshots | scorecards | evidence | _trained_on(outputs, trained_on)
    return Lineage(frozenset(tainted), frozenset(only_erased))


def half_written(outputs: Outputs) -> list[Output]:
    """List the unfinished outputs with a file that can't be read, so that it may hold any row."""
    reads: dict[Kind, Callable[[Path], object]] = {
        "snapshot": lambda folder: [_columns(path) for path in folder.glob("*.parquet")],
        "scorecard": lambda folder: _requests(folder / "samples.parquet"),
        "evidence": lambda folder: _subject(folder / VERDICT),
    }
    return [
        output
        for kind, read in reads.items()
        for output, folder in _folders(kind, outputs)
        if not (folder / manifest.NAME).exists()
        and _readable(folder, partial(read, folder)) is None
    ]


def _readable(folder: Path, read: Callable[[], Result]) -> Result | None:
    """Return what is read of an output; ``None`` if it can't be, since it is unfinished."""
    try:
        return read()
    except (ValueError, KeyError, OSError) as error:  # as pyarrow and json raise
        if (folder / manifest.NAME).exists():
            raise DamagedOutputError(
                f"looking for the rows in {folder}: a file of it is damaged ({error}), so nobody "
                "knows whether they are there; put it back as it was, or delete the folder"
            ) from error
        return None


def untraceable(outputs: Outputs, tainted: Iterable[Output]) -> list[Output]:
    """List the adapters whose snapshot is gone, so that their rows are unknown.

    Adapters on a snapshot of ``tainted`` were traced before it was deleted.
    """
    known = {output.key for output, _ in _folders("snapshot", outputs)}
    known |= {output.key for output in tainted if output.kind == "snapshot"}
    return [output for output, made_from in _adapters(outputs) if made_from.snapshot not in known]


def record(con: Connection, certificate_id: str, tainted: Iterable[Output]) -> None:
    """Record tainted outputs; evidence that names them can't be approved from now on."""
    for output in sorted(tainted):
        con.execute(
            "insert or ignore into raw.tainted values ($kind, $workload, $key, $id)",
            {**asdict(output), "id": certificate_id},
        )


def recorded(con: Connection, certificate_id: str) -> list[Output]:
    """Return the outputs that an erasure tainted, even if their files are gone."""
    model = "marts/tainted_outputs"
    return warehouse.records(con, model, Output, certificate_id=certificate_id)


@dataclass(frozen=True, slots=True)
class _MadeFrom:
    snapshot: str
    earlier: frozenset[str]  # the keys of its warm start and teacher


def _trained_on(outputs: Outputs, snapshots: AbstractSet[str]) -> set[Output]:
    """Find the adapters trained on snapshots, or derived from such adapters."""
    adapters = dict(_adapters(outputs))
    trained: set[Output] = set()
    while True:
        keys = {output.key for output in trained}
        derived = {
            output
            for output, made_from in adapters.items()
            if made_from.snapshot in snapshots or made_from.earlier & keys
        }
        if derived <= trained:
            return trained
        trained |= derived


def _affected_requests(path: Path, is_erased: IsErased) -> dict[str, bool]:
    """Return the requests of a snapshot's file that name a row; true if they name no other."""
    names = [name for name in _columns(path) if name.endswith(("_id", "_ids"))]
    requests: dict[str, bool] = {}
    for row in _rows(path, names) if names else ():
        named = {row_id for name in names for row_id in _list(row[name])}
        if any(map(is_erased, named)):
            request = str(row.get("example_id") or row.get("preference_id", ""))
            is_only_erased = all(map(is_erased, _list(row.get("interaction_ids"))))
            requests[request] = requests.get(request, False) or is_only_erased
    return requests


def _columns(path: Path) -> list[str]:
    return pq.read_schema(path).names


def _rows(path: Path, columns: list[str]) -> Iterator[dict[str, object]]:
    for batch in pq.ParquetFile(path).iter_batches(columns=columns):
        yield from batch.to_pylist()


def _list(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _requests(path: Path) -> set[str]:
    if not path.exists():
        return set()
    column = pq.read_table(path, columns=["example_id"])["example_id"]
    return {str(example_id) for example_id in column.to_pylist()}


def _few_shot_snapshots(folder: Path) -> set[str]:
    """Return the key of the snapshot that a scorecard's few-shot examples come from, if any."""
    if not output_folders.fetch(folder):
        return set()
    snapshot = ScorecardManifest.read(folder).conditions.get("examples")
    return {snapshot} if isinstance(snapshot, str) else set()


def _subject(path: Path) -> frozenset[str]:
    return subject_keys(json.loads(path.read_text())) if path.exists() else frozenset()


def subject_keys(verdict: Mapping[str, Json]) -> frozenset[str]:
    """Return the keys of all outputs that evidence is about."""
    subject = cast("Mapping[str, Json]", verdict["subject"])
    return frozenset(key for value in subject.values() for key in _list(value))


def _adapters(outputs: Outputs) -> Iterator[tuple[Output, _MadeFrom]]:
    """Yield each adapter with its inputs; those of an unfinished one are in its job."""
    for output, folder in _folders("adapter", outputs):
        job = outputs.jobs / f"train-{output.key}" / "spec.json"
        if output_folders.fetch(folder):
            with _named(folder / manifest.NAME):
                record = AdapterManifest.read(folder)
            yield output, _made_from(record.snapshot, record.warm_start, record.recipe)
        elif job.exists():
            with _named(job):
                spec = json.loads(job.read_text())
                inputs = spec["snapshot"], spec.get("warm_start"), spec.get("recipe")
            yield output, _made_from(*inputs)


@contextmanager
def _named(record: Path) -> Generator[None]:
    """Name the file whose contents an error is about."""
    try:
        yield
    except (ValueError, KeyError) as error:
        raise DamagedOutputError(
            f"looking for the snapshot that {record.parent} is made from: {record} can't be read "
            f"({error}), so nobody knows which it is; put the file back as it was, or delete the "
            "folder"
        ) from error


def inputs_of(record: AdapterManifest) -> frozenset[str]:
    """Return the keys of the snapshot and of the adapters that an adapter is made from."""
    made = _made_from(record.snapshot, record.warm_start, record.recipe)
    return made.earlier | {made.snapshot}


def _made_from(
    snapshot: str, warm_start: str | None, recipe: Mapping[str, JsonValue] | None
) -> _MadeFrom:
    """Return the keys of an adapter's inputs, of which a job's specification has the paths."""
    earlier: list[JsonValue] = [warm_start]
    match recipe:
        case {"objective": {"teacher_model_name_or_path": teacher}}:
            earlier.append(teacher)
        case _:
            pass
    keys = frozenset(Path(path).name for path in earlier if isinstance(path, str))
    return _MadeFrom(Path(snapshot).name, keys)


def _folders(kind: Kind, outputs: Outputs) -> Iterator[tuple[Output, Path]]:
    root = outputs.root(kind)
    for workload in output_folders.names(root):
        for key in output_folders.names(root / workload):
            folder = root / workload / key
            if output_folders.fetch(folder) or folder.is_dir():
                yield Output(kind, workload, key), folder
