"""Freeze a workload's examples into ``<root>/<workload>/<key>``: Parquet files and a manifest.

The key is a digest of the rows, the config and the way prompts are written, so what is frozen
already is found again. Freezing also settles the sides: no row changes side after it.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from components import manifest, prompt, warehouse
from components.dataset import holdout, preferences, rows
from components.dataset.rows import Example
from components.schema import Config
from components.warehouse import Connection

SIDES = ("train", "validation", "holdout")


class EmptySideError(ValueError):
    """There is nothing to train on, or nothing to test on."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A frozen dataset: where it is, what is in it, and why the rest is not.

    ``counts`` is of the workload's interactions by verdict, ``kept`` among them; scores are
    comparable only within one ``holdout_version`` (``v<number>-<digest>``).
    """

    path: Path
    key: str
    holdout_version: str
    train_rows: int
    validation_rows: int
    holdout_rows: int
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Digests:
    rows_digest: str
    holdout_digest: str
    train_rows: int
    validation_rows: int
    holdout_rows: int


def freeze(
    con: Connection,
    folder_root: Path,
    workload_id: str,
    *,
    rules: Config,
    now: datetime,
    commit: str | None = None,
) -> Snapshot:
    """Write the snapshot of a curated workload unless an equal one is finished.

    Args:
        con: The warehouse, after ``curate``.
        folder_root: Where snapshots live.
        workload_id: The workload.
        rules: The config that curated it, for the manifest and the key.
        now: When it is frozen (UTC).
        commit: The commit of the code that made it, for the manifest.

    Raises:
        EmptySideError: One of the sides has no example.
    """
    (found,) = warehouse.read(con, "marts/snapshot_digests", _Digests, workload_id=workload_id)
    counts = _counts(con, workload_id)
    _require_both_sides(workload_id, found, counts)
    config = rules.model_dump(mode="json")
    wanted = preferences.digests(con, workload_id)
    names = [*rows.SCHEMA.names, *preferences.PAIRS.names, *preferences.LABELS.names]
    digests = [found.rows_digest, wanted.pairs_digest, wanted.labels_digest]
    key = manifest.digest([*digests, config, prompt.FORMAT, names])
    with warehouse.transaction(con):
        warehouse.append(con, "curated/sides", workload_id=workload_id, settled_at=now)
        measured = manifest.digest(found.holdout_digest)
        holdout_version = holdout.version(con, workload_id, measured, now=now)
    snapshot = Snapshot(
        path=folder_root / folder_name(workload_id) / key,
        key=key,
        holdout_version=holdout_version,
        train_rows=found.train_rows,
        validation_rows=found.validation_rows,
        holdout_rows=found.holdout_rows,
        counts=counts,
    )
    if not manifest.is_finished(snapshot.path):
        _write(con, snapshot, workload_id)
        body = {
            "workload": workload_id,
            "rows": {
                "train": snapshot.train_rows,
                "validation": snapshot.validation_rows,
                "holdout": snapshot.holdout_rows,
                "preferences": wanted.pairs,
                "labels": wanted.labels,
            },
            "pairs_won_by": {"longer": wanted.longer_won, "shorter": wanted.shorter_won},
            "holdout_version": snapshot.holdout_version,
            "prompt_format": prompt.FORMAT,
            "config": config,
            "counts": counts,
            "commit": commit,
        }
        manifest.write(snapshot.path, kind="snapshot", now=now, body=body)
    return snapshot


def folder_name(workload_id: str) -> str:
    """Name the folder of a workload, whatever its logs call it: no slash, no dot in front."""
    name = quote(workload_id, safe="")
    return "%2E" + name[1:] if name.startswith(".") else name


def _write(con: Connection, snapshot: Snapshot, workload_id: str) -> None:
    snapshot.path.mkdir(parents=True, exist_ok=True)
    for side in SIDES:
        values = {"workload_id": workload_id, "side": side}
        examples = warehouse.read(con, "marts/snapshot", Example, **values)
        rows.write(snapshot.path / f"{side}.parquet", examples)
    preferences.write(con, snapshot.path, workload_id)


def _counts(con: Connection, workload_id: str) -> dict[str, int]:
    found = con.execute(
        "select verdict, interactions from marts.verdicts where workload_id = $workload_id"
        " order by verdict",
        {"workload_id": workload_id},
    ).fetchall()
    return dict(found)


def _require_both_sides(workload_id: str, found: _Digests, counts: dict[str, int]) -> None:
    if found.train_rows and found.holdout_rows:
        return
    raise EmptySideError(
        f"freezing {workload_id}: {found.train_rows} examples to train on and "
        f"{found.holdout_rows} held out, wants some of both; verdicts: {counts}. Where every "
        "request offers the same tools, set split_by: conversation"
    )
