"""Freeze a workload's examples into ``<root>/<workload>/<key>``: Parquet, a card, a manifest."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from components.chat import chat_templates, prompt, token_counts
from components.chat.token_counts import Counter
from components.dataset import example_rows, preference_files, snapshot_figures
from components.dataset.example_rows import Lengths, Staying
from components.dataset.snapshot_figures import SIDES, Snapshot
from components.schema import Config, Json, Paraphrases
from components.store import manifest, output_folders, warehouse
from components.store.arrow import ArrowBatch
from components.store.manifest import SnapshotManifest
from components.store.warehouse import Connection


def assign_holdout_version(con: Connection, workload_id: str, digest: str, *, now: datetime) -> str:
    """Return the holdout's version, ``v<number>-<digest>``, and record it if it is new.

    Idempotent: a holdout that returns to an earlier state gets that state's number. ``digest`` is
    that of the held-out requests and their references.
    """
    named = {"workload_id": workload_id, "digest": digest}
    if not warehouse.rows(con, _KNOWN, **named):
        warehouse.append(con, "curated/holdout_versions", frozen_at=now, **named)
        warehouse.append(con, "curated/holdout_rows", **named)
    ((known),) = warehouse.rows(con, _KNOWN, **named)
    return f"v{known['version']}-{digest}"


_KNOWN = """
    select version
    from curated.holdout_versions
    where workload_id = $workload_id and digest = $digest
"""


PART_BYTES = 1 << 26
"""Texts of examples that are sorted at a time."""

FEWEST_OF_A_SCHEMA = 5
"""Requests that share the JSON Schema of their answers; one of fewer may hold what they say."""

NOT_SAMPLED = "not_sampled"
"""The verdict, in counts only, on interactions that a sample left out."""

FIXED_PREFERENCES: dict[str, Json] = {
    "bad_outcomes": ["escalated", "abandoned", "error", "timeout", "refunded"],
    "burst_minutes": 10,
    "match_length": False,
    "rating_gap": 0.25,
}
"""What keys have of the settings that can't be changed any more."""


class EmptySideError(ValueError):
    """There are no examples to train on, or none to test on."""


@dataclass(frozen=True, slots=True)
class _Digests:
    rows_digest: str
    holdout_digest: str
    train_rows: int
    validation_rows: int
    holdout_rows: int
    train_clusters: int
    validation_clusters: int
    holdout_clusters: int
    largest_cluster: int


def freeze(
    con: Connection,
    folder_root: Path,
    workload_id: str,
    *,
    rules: Config,
    now: datetime,
    base: Path | None = None,
    commit: str | None = None,
    staying: Staying | None = None,
    clean_schema: Callable[[str], str] | None = None,
    not_sampled: int = 0,
    paraphrases: Paraphrases | None = None,
    settle: Callable[[], None] = lambda: None,
) -> Snapshot:
    """Write the snapshot of a curated workload unless an equal one is finished.

    The key is a digest of the rows, the config, the tokenizer and the prompt format. Freezing also
    settles the sides: no row changes side after it.

    Args:
        con: The warehouse, after ``curate``.
        folder_root: The folder of all snapshots.
        workload_id: The workload's id.
        rules: The config that curated it, for the manifest and the key.
        now: When it is frozen (UTC).
        base: The base whose tokenizer counts the rows' tokens; without it, or if it has no
            ``tokenizer.json``, they are not counted. The hash of its chat template is recorded.
        commit: The commit of the code, for the manifest.
        staying: Finds the values in answers that redaction is configured to keep, if any.
        clean_schema: Redacts the JSON Schema that a request wants its answer in; without it none is
            written.
        not_sampled: Interactions that were not curated, for the counts.
        paraphrases: Held-out requests that training rows paraphrase, for the card and manifest.
        settle: Called before a new snapshot is written, so that whoever finds it finished finds its
            sides settled; of a copy it writes them to the warehouse.

    Raises:
        EmptySideError: One of the sides has no example.
    """
    warehouse.build(con, "temp/frozen", workload_id=workload_id)
    (totals,) = warehouse.records(con, "marts/snapshot_digests", _Digests, workload_id=workload_id)
    counts = _counts(con, workload_id)
    if not_sampled:
        counts[NOT_SAMPLED] = not_sampled
    _require_both_sides(workload_id, totals, counts)
    config = rules.model_dump(mode="json")
    config["preferences"] |= FIXED_PREFERENCES
    preferences = preference_files.digests(con, workload_id)
    counter = token_counts.counter(con, base)
    schemas = (example_rows.SCHEMA, preference_files.HELD_OUT, preference_files.LABELS)
    names = [name for schema in schemas for name in schema.names]
    digests = [totals.rows_digest, preferences.pairs_digest, preferences.labels_digest]
    tokenizer = counter and counter.tokenizer
    template = chat_templates.template_hash(base) if base else None
    schemas = _response_schemas(con, workload_id, clean_schema) if clean_schema else {}
    if schemas:
        digests.append(manifest.digest(sorted(schemas.items())))
    key = manifest.digest([*digests, config, prompt.FORMAT, names, tokenizer, template])
    with warehouse.transaction(con):
        warehouse.append(con, "curated/sides", workload_id=workload_id, settled_at=now)
        warehouse.refresh(con, "curated/example_digests", workload_id=workload_id)
        measured = manifest.digest(totals.holdout_digest)
        holdout_version = assign_holdout_version(con, workload_id, measured, now=now)
    snapshot = Snapshot(
        path=folder_root / output_folders.folder_name(workload_id) / key,
        key=key,
        holdout_version=holdout_version,
        train_rows=totals.train_rows,
        validation_rows=totals.validation_rows,
        holdout_rows=totals.holdout_rows,
        counts=counts,
        clusters={
            "train": totals.train_clusters,
            "validation": totals.validation_clusters,
            "holdout": totals.holdout_clusters,
        },
        largest_cluster=totals.largest_cluster,
        paraphrases=paraphrases,
    )
    if not output_folders.fetch(snapshot.path):
        settle()
        lineage = {
            "prompt_format": prompt.FORMAT,
            chat_templates.TEMPLATE: template,
            "tokenizer": tokenizer,
        }
        body = _write(
            con, snapshot, workload_id, preferences, counter, config, lineage, staying, schemas
        )
        manifest.write(snapshot.path, kind="snapshot", now=now, body={**body, "commit": commit})
    con.execute("drop table temp.frozen")
    return snapshot


def _write(
    con: Connection,
    snapshot: Snapshot,
    workload_id: str,
    preferences: preference_files.Digests,
    counter: Counter | None,
    config: dict[str, Json],
    lineage: dict[str, str | None],
    staying: Staying | None,
    schemas: Mapping[str, str],
) -> dict[str, object]:
    """Write rows, preferences and the card; return the manifest's body."""
    from components.dataset import dataset_card  # noqa: PLC0415 - loads matplotlib

    snapshot.path.mkdir(parents=True, exist_ok=True)
    lengths: dict[str, Lengths] = {}
    for side in SIDES:
        with warehouse.second_connection(con) as reading:
            order = warehouse.table(con, "marts/snapshot_order", side=side)
            examples = _in_order(reading, order, workload_id=workload_id, side=side)
            path = snapshot.path / f"{side}.parquet"
            lengths[side] = example_rows.write(
                path, examples, counter, staying, {} if side == "train" else schemas
            )
    preference_files.write(con, snapshot.path, workload_id)
    figures = snapshot_figures.read_figures(con, workload_id, snapshot, preferences, lengths)
    known = {name: value for name, value in lineage.items() if value is not None}
    dataset_card.write(figures, workload_id=workload_id, config=config, lineage=known)
    return {
        "workload": workload_id,
        "rows": {
            **snapshot.sides,
            "preferences": preferences.pairs,
            "labels": preferences.labels,
            "holdout_preferences": preferences.held_pairs,
        },
        "tokens": {
            side: sum(counted.prompts) + sum(counted.answers) for side, counted in lengths.items()
        },
        "pairs_won_by": {"longer": preferences.longer_won, "shorter": preferences.shorter_won},
        "clusters": snapshot.clusters,
        "largest_cluster": snapshot.largest_cluster,
        "paraphrases": snapshot.paraphrases and asdict(snapshot.paraphrases),
        "holdout_version": snapshot.holdout_version,
        **lineage,
        "config": config,
        "counts": snapshot.counts,
    }


def _response_schemas(
    con: Connection, workload_id: str, clean: Callable[[str], str]
) -> dict[str, str]:
    """Return the JSON Schemas of tested and validated answers by ``example_id``, redacted."""
    values = {"workload_id": workload_id, "fewest": FEWEST_OF_A_SCHEMA}
    rows = warehouse.select(con, "marts/response_schemas", **values)
    schemas = {str(row["example_id"]): str(row["response_schema"]) for row in rows}
    cleaned = {schema: clean(schema) for schema in set(schemas.values())}
    return {name: cleaned[schema] for name, schema in schemas.items()}


def _in_order(
    con: Connection,
    order: Any,  # noqa: ANN401 - pyarrow has no types
    **values: str,
) -> Iterator[ArrowBatch]:
    """Yield a side's examples by id, in parts: DuckDB would sort all texts at once, on disk."""
    ids, clusters = (order[name].combine_chunks() for name in ("example_id", "cluster_id"))
    parts = np.cumsum(order["bytes"].to_numpy()) // PART_BYTES
    begins = np.unique(parts, return_index=True)[1].tolist()
    for begin, end in pairwise([*begins, len(order)]):
        bounds = {"first": ids[begin].as_py(), "last": ids[end - 1].as_py()}
        done = begin
        for batch in warehouse.batches(con, "marts/snapshot", **values, **bounds):
            named: Any = batch
            yield named.append_column("cluster_id", clusters.slice(done, len(batch)))
            done += len(batch)


def find_snapshot(root: Path, name: str) -> Path:
    """Find a snapshot by its folder or a key prefix; ``LookupError`` unless it is the only one."""
    if output_folders.fetch(Path(name)):
        return Path(name)
    snapshots = [
        path
        for workload in output_folders.names(root)
        for path in output_folders.find(root / workload, name)
    ]
    if len(snapshots) != 1:
        names = ", ".join(str(path) for path in snapshots) or "none"
        raise LookupError(f"looking up snapshot {name}: expected one, found {names} in {root}")
    return snapshots[0]


def newest_snapshot(root: Path, workload_id: str) -> Path:
    """Find the snapshot of a workload that was frozen last; ``LookupError`` if it has none."""
    snapshots = output_folders.find(root / output_folders.folder_name(workload_id))
    if not snapshots:
        raise LookupError(
            f"workload {workload_id} has no snapshot in {root} yet; `flywheel curate FILE` or a "
            "turn makes one"
        )
    return max(snapshots, key=lambda path: SnapshotManifest.read(path).age)


def _counts(con: Connection, workload_id: str) -> dict[str, int]:
    rows = con.execute(
        "select verdict, interactions from marts.verdicts where workload_id = $workload_id"
        " order by verdict",
        {"workload_id": workload_id},
    ).fetchall()
    return dict(rows)


def _require_both_sides(workload_id: str, digests: _Digests, counts: dict[str, int]) -> None:
    if digests.train_rows and digests.holdout_rows:
        return
    if not counts:
        raise EmptySideError(
            f"freezing {workload_id}: no interaction of {workload_id} was collected; `flywheel "
            "collect FILE` loads its workload file's sources, `flywheel status` lists the "
            "workloads that were collected"
        )
    raise EmptySideError(
        f"freezing {workload_id}: {digests.train_rows} examples to train on and "
        f"{digests.holdout_rows} held out, expected some of both; verdicts: {counts}. If every "
        "request offers the same tools, set split_by: conversation"
    )
