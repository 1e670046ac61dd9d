"""Finished outputs, erasures, sealed policies and uses of holdouts, recorded in the warehouse."""

import bisect
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from components.store import manifest, warehouse
from components.store.warehouse import Connection


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision on evidence; ``approver`` lists all where several had to approve.

    ``link`` is the sequence number and the digest of its last link in the chain of decisions.
    """

    workload: str
    evidence: str
    decision: Literal["approve", "reject"]
    approver: str
    comment: str
    flow_run_id: str
    decided_at: datetime
    link: str = ""


def record_output(con: Connection, workload: str, folder: Path, *, now: datetime) -> None:
    """Record a finished output folder; idempotent."""
    body = manifest.read(folder)
    con.execute(
        """
        insert into raw.manifests by name
        select
            $key as key, $kind as kind, $workload as workload_id, $path as path,
            $manifest::json as manifest, $now as recorded_at
        where not exists (
            select 1
            from raw.manifests
            where workload_id = $workload and kind = $kind and key = $key
        )
        """,
        {
            "key": body["key"],
            "kind": body["kind"],
            "workload": workload,
            "path": str(folder),
            "manifest": json.dumps(body),
            "now": now,
        },
    )


def erasure_of(con: Connection, keys: Sequence[str]) -> str | None:
    """Return the certificate of an erasure that tainted an output; ``None`` without one."""
    ids = con.execute(
        "select min(certificate_id) from raw.tainted where list_contains($keys, key)",
        {"keys": list(keys)},
    ).fetchall()
    return ids[0][0]


Kind: TypeAlias = Literal["sealed", "looked"]
"""The kinds of links of the chain of decisions that commit to a seal or a look."""

MAX_SKETCH = 16_384
"""Row digests kept of a holdout; a larger one keeps the smallest digests, which are a sample."""

_ENDLESS = 1 << 63


@dataclass(frozen=True, slots=True)
class HoldoutRows:
    """Digests of a holdout's ``count`` rows: all of them, or the ``MAX_SKETCH`` smallest.

    ``clusters`` are the numbers of rows of each cluster; empty where they are not known.
    """

    count: int
    sketch: tuple[int, ...] = ()
    clusters: tuple[int, ...] = ()

    @property
    def reach(self) -> int:
        """The largest digest up to which the sketch is complete."""
        return self.sketch[-1] if self.count > len(self.sketch) > 0 else _ENDLESS

    def capped(self, cap: int | None) -> int:
        """Return the number of rows with at most ``cap`` of each cluster."""
        if cap is None or not self.clusters:
            return self.count
        return sum(min(rows, cap) for rows in self.clusters)


@dataclass(frozen=True, slots=True)
class Holdout:
    """A workload's holdout at the time of a look; ``cap`` is its most rows of a cluster, if any."""

    workload: str
    version: str
    rows: HoldoutRows
    cap: int | None = None


@dataclass(frozen=True, slots=True)
class SealedPolicy:
    """A policy that was sealed before the first look at a holdout; see ``raw.seals``."""

    decision: int
    workload_id: str
    holdout_version: str
    requests: int
    sketch: tuple[int, ...]
    policy_digest: str
    policy: str
    alpha: float
    sealed_at: datetime

    @property
    def body(self) -> str:
        """What the chain of decisions commits to."""
        return canonical_json(
            {
                "alpha": self.alpha,
                "holdout_version": self.holdout_version,
                "policy": json.loads(self.policy),
                "policy_digest": self.policy_digest,
                "requests": self.requests,
                "rows_digest": manifest.digest(list(self.sketch)),
            }
        )


@dataclass(frozen=True, slots=True)
class HoldoutUse:
    """One comparison on a holdout; see ``raw.looks``.

    ``requests`` counts those of the target's task, ``held`` all of the holdout. ``policy_digest``
    covers the policy, the guards' scorecards on other tasks than the target's and all judged
    scores. ``test`` and ``outcome`` are ``None`` until it was judged.
    """

    workload_id: str
    challenger_scorecard: str
    opponent_scorecard: str
    task: str
    metric: str
    policy_digest: str
    policy: str
    adapter: str
    holdout_version: str
    requests: int
    held: int
    sketch: tuple[int, ...]
    looked_at: datetime
    number: int = 0
    alpha: float = 0.0
    alpha_left: float = 0.0
    seal: int = 0
    decision: int = 0
    test: str | None = None
    outcome: str | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """The identity of a look: two looks with equal keys are the same."""
        return (
            self.workload_id,
            self.challenger_scorecard,
            self.opponent_scorecard,
            self.metric,
            self.policy_digest,
        )

    @property
    def body(self) -> str:
        """What the chain of decisions commits to: all but the outcome."""
        committed = asdict(replace(self, sketch=()))
        for name in ("decision", "looked_at", "outcome", "policy", "sketch", "test", "workload_id"):
            del committed[name]
        return canonical_json({**committed, "rows_digest": manifest.digest(list(self.sketch))})


@dataclass(frozen=True, slots=True)
class HoldoutLog:
    """All seals and looks of a home, each in chronological order."""

    seals: Sequence[SealedPolicy] = ()
    looks: Sequence[HoldoutUse] = field(default_factory=list[HoldoutUse])

    def before(self, look: HoldoutUse) -> "HoldoutLog":
        """Return the log as it was before one of its looks."""
        before = [past for past in self.looks if past.decision < look.decision]
        return HoldoutLog(self.seals, before)

    def find(self, look: HoldoutUse) -> HoldoutUse | None:
        """Return the recorded look with the same key, if any."""
        return next((past for past in self.looks if past.key == look.key), None)

    def sealed(self, holdout: Holdout) -> SealedPolicy | None:
        """Return the seal that applies to a holdout; of several the one with the least alpha."""
        applying = [seal for seal in self.seals if _shares_rows(holdout, seal, MOST)]
        return min(applying, key=lambda seal: (seal.alpha, seal.decision), default=None)

    def counting(self, seal: SealedPolicy | None, holdout: Holdout) -> list[HoldoutUse]:
        """Return the looks that have spent alpha of a holdout.

        These are the looks under its seal, and older ones at more than half of its rows.
        """
        return [
            look
            for look in self.looks
            if (seal is not None and look.seal == seal.decision)
            or _shares_rows(holdout, look, MOST)
        ]

    def informing(self, holdout: Holdout) -> list[HoldoutUse]:
        """Return the looks by which a challenger of this holdout may have been chosen.

        They saw more than ``NOTABLE`` of its rows.
        """
        return [look for look in self.looks if _shares_rows(holdout, look, NOTABLE)]


def holdout_rows(texts: Iterable[str]) -> HoldoutRows:
    """Digest the rows of a holdout; equal rows are numbered, so that their digests differ."""
    seen: Counter[str] = Counter()
    digests: list[int] = []
    for text in texts:
        numbered = hashlib.sha256(f"{seen[text]} {text}".encode()).digest()
        digests.append(int.from_bytes(numbered[:8]) >> 1)  # DuckDB's bigint has a sign
        seen[text] += 1
    return HoldoutRows(len(digests), tuple(sorted(digests)[:MAX_SKETCH]))


def shared_rows(before: HoldoutRows, now: HoldoutRows) -> float:
    """Return the share of the rows of ``now`` that ``before`` had: exact, or of a sample."""
    reach = min(before.reach, now.reach)
    compared = now.sketch[: bisect.bisect_right(now.sketch, reach)]
    known = set(before.sketch)
    return sum(digest in known for digest in compared) / len(compared) if compared else 0.0


MOST = 1 / 2
"""Looks at more than this share of a holdout's rows spend its alpha, and a seal applies to it."""

NOTABLE = 1 / 32
"""What was seen of fewer of a holdout's rows hardly chooses who is ahead on it."""


def _shares_rows(holdout: Holdout, before: SealedPolicy | HoldoutUse, above: float) -> bool:
    """Return whether more than ``above`` of a holdout was there before, by its name or its rows.

    Under one name a holdout only grows or shrinks, so its size is enough.
    """
    held = before.held if isinstance(before, HoldoutUse) else before.requests
    # A lifted cap adds rows of clusters that were looked at before, which make no other holdout.
    alike = holdout.rows.capped(_cap(before.policy))
    if before.workload_id == holdout.workload and held > above * alike:
        return True
    share = shared_rows(HoldoutRows(held, before.sketch), holdout.rows)
    return holdout.rows.count > 0 and share > above * alike / holdout.rows.count


CAP = "holdout_per_cluster"
"""In a recorded policy: the most rows of a cluster in the holdout; absent without a cap."""


def _cap(policy: str) -> int | None:
    cap: int | None = json.loads(policy).get(CAP)
    return cap


def read_holdout_log(con: Connection) -> HoldoutLog:
    """Read all seals and looks."""
    seals = warehouse.rows(con, "select * from raw.seals order by decision")
    looks = warehouse.rows(con, "select * from raw.looks order by decision")
    return HoldoutLog(
        [SealedPolicy(**_log_record(row)) for row in seals],
        [HoldoutUse(**_log_record(row)) for row in looks],
    )


def _log_record(row: warehouse.Row) -> dict[str, Any]:
    return {**row, "sketch": tuple(cast("list[int]", row["sketch"]))}


def record_seal(con: Connection, seal: SealedPolicy) -> None:
    """Insert a seal whose link is in the chain of decisions already."""
    warehouse.insert(con, "raw.seals", [{**asdict(seal), "sketch": list(seal.sketch)}])


def record_holdout_use(con: Connection, look: HoldoutUse) -> None:
    """Insert a look whose link is in the chain of decisions already."""
    warehouse.insert(con, "raw.looks", [{**asdict(look), "sketch": list(look.sketch)}])


def record_result(con: Connection, look: HoldoutUse, *, test: str, outcome: str) -> None:
    """Record the test and the outcome of a look."""
    con.execute(
        """
        update raw.looks
        set test = $test, outcome = $outcome
        where decision = $decision
        """,
        {"decision": look.decision, "test": test, "outcome": outcome},
    )


def canonical_json(value: Mapping[str, object]) -> str:
    """Write a policy or a commitment as one line of JSON with sorted keys."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
