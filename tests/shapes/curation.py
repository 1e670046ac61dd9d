"""Send a shape's log through collect, curate and freeze, and list what does not hold."""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from components.curate import curate_workload, held_rows
from components.curate.curate_workload import CurationTally
from components.curate.held_rows import Loss
from components.curate.settings import Rules
from components.dataset import freeze_snapshot
from components.dataset.snapshot_figures import Snapshot
from components.store import manifest, warehouse
from components.store.warehouse import Connection
from tests.shapes.log_shapes import BY_CONVERSATION, Author, Logged, Shape
from tests.support import logs

SIDES = ("train", "validation", "holdout")
NEAR = 0.8
"""The Jaccard of word triples from which two requests are near, as workload files have it."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One example with the lines that it was made of, by their places in the log."""

    side: str
    group: str
    cluster: str
    lines: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Curated:
    """What became of a shape's log."""

    shape: Shape
    rules: Rules
    log: Sequence[Logged]
    tally: CurationTally
    objections: dict[str, set[int]]
    kept: Sequence[Kept]
    frozen: Snapshot
    losses: Sequence[Loss]
    seconds: float


def rules_of(shape: Shape) -> Rules:
    """Return the rules of a shape."""
    return Rules.model_validate(shape.rules or BY_CONVERSATION)


def curate(con: Connection, folder: Path, shape: Shape, seed: int = 0) -> Curated:
    """Write a shape's log, load it, and curate and freeze its workload."""
    log = shape.write(Author(shape.name, seed), shape.lines)
    rules = rules_of(shape)
    path = logs.write(folder / f"{shape.name}.jsonl", [one.line for one in log])
    began = time.process_time()
    loaded = logs.load(con, path, now=logs.NOW)
    assert (loaded.new, loaded.quarantined) == (len(log), 0), loaded
    said = [line for one in log for line in one.feedback]
    logs.load_feedback(con, logs.write(folder / f"{shape.name}-said.jsonl", said), now=logs.NOW)
    tally = curate_workload.curate(con, shape.name, rules, now=logs.NOW)
    frozen = freeze_snapshot.freeze(con, folder, shape.name, rules=rules, now=logs.NOW)
    seconds = time.process_time() - began
    places = {
        str(row["interaction_id"]): int(str(row["line"])) - 1
        for row in warehouse.rows(
            con,
            "select interaction_id, line from raw.interactions where workload_id = $workload_id",
            workload_id=shape.name,
        )
    }
    objections: dict[str, set[int]] = defaultdict(set)
    for row in warehouse.rows(
        con,
        "select interaction_id, objection from curated.verdicts where workload_id = $workload_id",
        workload_id=shape.name,
    ):
        objections[str(row["objection"] or "kept")].add(places[str(row["interaction_id"])])
    kept = [_kept(row, places) for row in warehouse.rows(con, EXAMPLES, workload_id=shape.name)]
    lost = held_rows.open_losses(con, shape.name)
    return Curated(shape, rules, log, tally, dict(objections), kept, frozen, lost, seconds)


EXAMPLES = """
    select side, group_id, cluster_id, interaction_ids
    from curated.examples
    where workload_id = $workload_id
"""


def _kept(row: warehouse.Row, places: dict[str, int]) -> Kept:
    ids = row["interaction_ids"]
    assert isinstance(ids, list)
    lines = tuple(sorted(places[str(one)] for one in ids))
    return Kept(str(row["side"]), str(row["group_id"]), str(row["cluster_id"]), lines)


def problems(found: Curated) -> list[str]:
    """List all that does not hold; empty is right."""
    checks = (_verdicts, _share_kept, _shares, _sides, _near, _clusters, _manifest, _losses)
    return [one for check in checks for one in check(found)]


def wanted(found: Curated) -> int:
    """Count the different requests that an example can be made of."""
    return len({one.request for one in found.log if one.is_learnable})


def _verdicts(found: Curated) -> Iterator[str]:
    judged = [place for places in found.objections.values() for place in places]
    if sorted(judged) != [*range(len(found.log))]:
        yield f"{len(judged)} verdicts on {len(found.log)} interactions"
    if sum(found.tally.counts.values()) != len(found.log):
        yield f"the verdicts {found.tally.counts} don't add up to {len(found.log)}"
    unexpected = found.tally.counts.keys() - {"kept"} - found.shape.objections
    if unexpected:
        yield f"left out for {sorted(unexpected)}: {found.tally.counts}"
    learned = {place for one in found.kept for place in one.lines}
    if wrong := [n for n, one in enumerate(found.log) if n in learned and not one.is_learnable]:
        yield f"{len(wrong)} rows were kept that nothing can be learned from"


def _share_kept(found: Curated) -> Iterator[str]:
    kept, requests = len(found.kept), wanted(found)
    if not found.shape.floor * requests <= kept <= requests:
        yield (
            f"{kept} examples of {requests} different requests, wants at least "
            f"{found.shape.floor:.0%} of them: {found.tally.counts}"
        )


def _shares(found: Curated) -> Iterator[str]:
    """The holdout is near its share of all that was placed, what overlaps with it included."""
    overlapping = [n for rule, n in found.tally.counts.items() if rule.startswith("overlaps_")]
    placed = len(found.kept) + sum(overlapping)
    share = sum(one.side == "holdout" for one in found.kept) / placed
    aim, largest = found.rules.holdout_share, found.frozen.largest_cluster / len(found.kept)
    if abs(share - aim) > found.shape.slack * aim:
        yield f"a holdout of {share:.3f}, wants {aim} (largest cluster {largest:.3f})"
    if not any(one.side == "validation" for one in found.kept):
        yield "nothing on the validation side"


def _sides(found: Curated) -> Iterator[str]:
    """Nothing is on two sides: no request, no group, no conversation."""
    log = found.log
    names: dict[str, list[tuple[Hashable, str]]] = {
        "groups": [(one.group, one.side) for one in found.kept],
        "requests": [(log[n].request, one.side) for one in found.kept for n in one.lines],
        "conversations": [(log[n].conversation, one.side) for one in found.kept for n in one.lines],
    }
    for kind, pairs in names.items():
        if parted := _parted(pairs):
            yield f"{len(parted)} {kind} on two sides, such as {parted[0]!s:.60}"


def _parted(pairs: Iterable[tuple[Hashable, str]]) -> list[Hashable]:
    sides: dict[Hashable, set[str]] = defaultdict(set)
    for name, side in pairs:
        sides[name].add(side)
    return [name for name, of in sides.items() if len(of) > 1]


def _near(found: Curated) -> Iterator[str]:
    """No request to train or to validate on is near to one of another side, by plain sets."""
    triples = [(one.side, _triples(found.log[one.lines[0]].asked)) for one in found.kept]
    having: dict[Hashable, list[int]] = defaultdict(list)
    for place, (_, own) in enumerate(triples):
        for one in own:
            having[one].append(place)
    near: set[tuple[int, int]] = set()
    for place, (side, own) in enumerate(triples):
        common = Counter(other for one in own for other in having[one] if other < place)
        near |= {
            (other, place)
            for other, both in common.items()
            if triples[other][0] != side
            and both >= NEAR * (len(own) + len(triples[other][1]) - both)
        }
    if near and found.shape.clusters_are_known:
        yield f"{len(near)} pairs of near requests on two sides"


def _triples(text: str) -> set[Hashable]:
    words = text.split()
    return {tuple(words[n : n + 3]) for n in range(max(1, len(words) - 2))}


def _clusters(found: Curated) -> Iterator[str]:
    """Clusters are those of the generator, in the warehouse and as the manifest counts them.

    A request that was sent several times is of the cluster of the newest.
    """
    if not found.shape.clusters_are_known:
        return
    true = {one: found.log[one.lines[-1]].cluster for one in found.kept}
    pairs = {(true[one], one.cluster) for one in found.kept}
    if len(pairs) != len(set(true.values())) or len(pairs) != len({one for _, one in pairs}):
        made = len({one for _, one in pairs})
        yield f"{made} clusters that are not the {len(set(true.values()))} which were written"
    counted = {side: len({true[one] for one in found.kept if one.side == side}) for side in SIDES}
    if counted != found.frozen.clusters:
        yield f"the snapshot counts {found.frozen.clusters} clusters, {counted} were written"
    largest = max(Counter(true.values()).values())
    if largest != found.frozen.largest_cluster:
        yield f"the largest cluster has {largest} rows, counted {found.frozen.largest_cluster}"


def _manifest(found: Curated) -> Iterator[str]:
    record = manifest.read(found.frozen.path)
    rows, counts = record["rows"], record["counts"]
    assert isinstance(rows, dict)
    assert isinstance(counts, dict)
    written = {
        side: pq.read_metadata(found.frozen.path / f"{side}.parquet").num_rows for side in SIDES
    }
    sides = Counter(one.side for one in found.kept)
    for name, other in (("files", written), ("examples", dict(sides))):
        if {side: rows[side] for side in SIDES} != other:
            yield f"the manifest counts {json.dumps(rows)}, the {name} {other}"
    if sum(int(str(one)) for one in counts.values()) != len(found.log):
        yield f"the manifest's counts {json.dumps(counts)} don't add up to {len(found.log)}"
    if counts.get("kept") != sum(written.values()):
        yield f"the manifest keeps {counts.get('kept')}, and has {sum(written.values())} rows"


def _losses(found: Curated) -> Iterator[str]:
    """A person is asked about what a rule left out where that is much, and about nothing else."""
    if sorted(loss.rule for loss in found.losses) != sorted(found.shape.asked):
        yield f"a person is asked about {[*map(str, found.losses)]}, not {[*found.shape.asked]}"
