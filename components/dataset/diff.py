"""Tell what a snapshot has that an earlier one had not, and why rows of that one are gone."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from components import manifest, warehouse
from components.dataset.figures import SIDES
from components.schema import Json
from components.warehouse import Connection


@dataclass(frozen=True, slots=True)
class Change:
    """One example that two snapshots do not have alike.

    ``kind`` is ``in``, ``out`` or ``changed``; ``why`` is what the warehouse says of a row that
    is out, what changed of one that is in both. A side is ``None`` where it is not.
    """

    example_id: str
    kind: str
    why: str
    side_before: str | None
    side_after: str | None


@dataclass(frozen=True, slots=True)
class Diff:
    """What lies between two snapshots of a workload; ``config`` holds each setting's two values."""

    earlier: dict[str, Json]
    later: dict[str, Json]
    config: dict[str, tuple[Json, Json]]
    changes: list[Change]

    def facts(self) -> dict[str, tuple[Json, Json]]:
        """Give what each of the two says of itself: key, holdout version, rows of each kind."""
        one, other = _told(self.earlier), _told(self.later)
        return {name: (one.get(name), other.get(name)) for name in {**one, **other}}

    def counts(self) -> list[tuple[str, str, str, str, int]]:
        """Count by kind, reason, side before and side after, the most frequent first."""
        found = Counter(
            (one.kind, one.why, one.side_before or "", one.side_after or "") for one in self.changes
        )
        return [
            (*kind, count) for kind, count in sorted(found.items(), key=lambda x: (-x[1], x[0]))
        ]


def compare(con: Connection, earlier: Path, later: Path) -> Diff:
    """Compare two finished snapshots, wherever they lie.

    Args:
        con: The warehouse, which says why a row is out; an empty one knows nothing.
        earlier: A snapshot folder.
        later: Another one.

    Raises:
        FileNotFoundError: One of them is unfinished, or a file of it is gone.
    """
    before, after = manifest.read(earlier), manifest.read(later)
    values = {"earlier": _files(earlier, before), "later": _files(later, after)}
    changes = list(warehouse.read(con, "marts/diff", Change, **values))
    return Diff(before, after, _settings(before, after), changes)


def _told(body: dict[str, Json]) -> dict[str, Json]:
    rows = body.get("rows")
    counts = (
        {f"{name} rows": count for name, count in rows.items()} if isinstance(rows, dict) else {}
    )
    return {"snapshot": body.get("key"), "holdout": body.get("holdout_version"), **counts}


def _files(folder: Path, body: dict[str, Json]) -> Json:
    rows = body["rows"]
    assert isinstance(rows, dict)
    paths = [folder / f"{side}.parquet" for side in SIDES if side in rows]
    if gone := [path for path in paths if not path.exists()]:
        raise FileNotFoundError(f"comparing snapshots: {gone[0]} is gone")
    return [str(path) for path in paths]


def _settings(before: dict[str, Json], after: dict[str, Json]) -> dict[str, tuple[Json, Json]]:
    one, other = before.get("config"), after.get("config")
    assert isinstance(one, dict)
    assert isinstance(other, dict)
    names: Sequence[str] = sorted({*one, *other})
    return {
        name: (one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)
    }
