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

from components.schema import Json
from components.store import manifest, warehouse
from components.store.warehouse import Connection


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided on an evidence; where several had to approve, by all of them.

    ``link`` is the place of the last word in the chain of decisions, with its digest.
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
    """Note a finished output folder; noting it twice changes nothing."""
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
    """Give the certificate of an erasure that tainted one of the outputs; ``None`` if none did."""
    found = con.execute(
        "select min(certificate_id) from raw.tainted where list_contains($keys, key)",
        {"keys": list(keys)},
    ).fetchall()
    return found[0][0]


Kind: TypeAlias = Literal["sealed", "looked"]
"""What links of the chain of decisions are about a seal or a look."""

MAX_SKETCH = 16_384
"""Digests of rows that are kept of a holdout; of a larger one the smallest, which are a sample."""

UNKNOWN = ""
"""The policy of looks that an older version took, which kept none."""

_ENDLESS = 1 << 63


@dataclass(frozen=True, slots=True)
class HoldoutRows:
    """What a holdout holds, as digests: all of its ``count`` rows, or the ``MOST`` smallest."""

    count: int
    sketch: tuple[int, ...] = ()

    @property
    def reach(self) -> int:
        """Give the largest digest up to which every row's is kept."""
        return self.sketch[-1] if self.count > len(self.sketch) > 0 else _ENDLESS


@dataclass(frozen=True, slots=True)
class Holdout:
    """A workload's holdout as it is looked at."""

    workload: str
    version: str
    rows: HoldoutRows


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

    ``requests`` are those of the target's task, ``held`` all of the holdout. What is ``None`` is
    not known of a look that an older version took.
    """

    workload_id: str
    challenger_scorecard: str
    opponent_scorecard: str
    task: str
    metric: str
    policy_digest: str
    policy: str | None
    adapter: str | None
    holdout_version: str
    requests: int
    held: int
    sketch: tuple[int, ...]
    looked_at: datetime
    number: int = 0
    alpha: float | None = None
    alpha_left: float | None = None
    seal: int | None = None
    decision: int | None = None
    test: str | None = None
    outcome: str | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """What makes two looks one and the same."""
        return (
            self.workload_id,
            self.challenger_scorecard,
            self.opponent_scorecard,
            self.metric,
            self.policy_digest,
        )

    @property
    def body(self) -> str:
        """What the chain of decisions commits to: all but how it came out."""
        told = asdict(replace(self, sketch=()))
        for name in ("decision", "looked_at", "outcome", "policy", "sketch", "test", "workload_id"):
            del told[name]
        return canonical_json({**told, "rows_digest": manifest.digest(list(self.sketch))})


@dataclass(frozen=True, slots=True)
class HoldoutLog:
    """All seals and looks of a home, each in the order in which they came."""

    seals: Sequence[SealedPolicy] = ()
    looks: Sequence[HoldoutUse] = field(default_factory=list[HoldoutUse])

    def before(self, look: HoldoutUse) -> "HoldoutLog":
        """Give the book as it was when a look that stands in it was taken."""
        end = look.decision or 0
        return HoldoutLog(self.seals, [one for one in self.looks if (one.decision or 0) < end])

    def find(self, look: HoldoutUse) -> HoldoutUse | None:
        """Find the same look, if it was taken before."""
        return next((one for one in self.looks if one.key == look.key), None)

    def sealed(self, holdout: Holdout) -> SealedPolicy | None:
        """Give the seal that holds for a holdout; of several that with the least alpha."""
        holding = [one for one in self.seals if _shares_most_rows(holdout, one, 0)]
        return min(holding, key=lambda one: (one.alpha, one.decision), default=None)

    def counting(
        self, seal: SealedPolicy | None, holdout: Holdout, requests: int
    ) -> list[HoldoutUse]:
        """Give the looks that have spent of a holdout's alpha.

        They are those under its seal, and older ones at more than half of its rows.
        """
        return [
            one
            for one in self.looks
            if (seal is not None and one.seal == seal.decision)
            or _shares_most_rows(holdout, one, requests)
        ]


def holdout_rows(texts: Iterable[str]) -> HoldoutRows:
    """Digest the rows of a holdout; equal ones are told apart by their number."""
    seen: Counter[str] = Counter()
    found: list[int] = []
    for text in texts:
        numbered = hashlib.sha256(f"{seen[text]} {text}".encode()).digest()
        found.append(int.from_bytes(numbered[:8]) >> 1)  # DuckDB's bigint has a sign
        seen[text] += 1
    return HoldoutRows(len(found), tuple(sorted(found)[:MAX_SKETCH]))


def shared_rows(before: HoldoutRows, now: HoldoutRows) -> float:
    """Give the share of the rows of ``now`` that ``before`` had: exact, or by a sample of them."""
    reach = min(before.reach, now.reach)
    asked = now.sketch[: bisect.bisect_right(now.sketch, reach)]
    known = set(before.sketch)
    return sum(one in known for one in asked) / len(asked) if asked else 0.0


def _shares_most_rows(holdout: Holdout, before: SealedPolicy | HoldoutUse, requests: int) -> bool:
    """Tell whether more than half of a holdout was there before, by its name or by its rows.

    Under one name a holdout grows, or becomes a part of what it was, so that its size tells. Of
    looks that an older version took only the number of requests of the task is known, which is held
    against ``requests``.
    """
    held = before.held if isinstance(before, HoldoutUse) else before.requests
    is_older = isinstance(before, HoldoutUse) and not before.sketch
    was, size = (before.requests, requests) if is_older else (held, holdout.rows.count)
    if before.workload_id == holdout.workload and 2 * was > size:
        return True
    return 2 * shared_rows(HoldoutRows(held, before.sketch), holdout.rows) > 1


def read_holdout_log(con: Connection) -> HoldoutLog:
    """Read all seals and looks."""
    seals = warehouse.rows(con, "select * from raw.seals order by decision")
    taken = warehouse.rows(con, "select * from raw.looks order by decision nulls first, looked_at")
    return HoldoutLog(
        [SealedPolicy(**_log_record(one)) for one in seals],
        [HoldoutUse(**_log_record(one)) for one in taken],
    )


def _log_record(row: warehouse.Row) -> dict[str, Any]:
    return {**row, "sketch": tuple(cast("list[int]", row["sketch"]))}


def record_seal(con: Connection, seal: SealedPolicy) -> None:
    """Keep a seal, whose link is in the chain of decisions already."""
    warehouse.insert(con, "raw.seals", [{**asdict(seal), "sketch": list(seal.sketch)}])


def record_holdout_use(con: Connection, look: HoldoutUse) -> None:
    """Keep a look, whose link is in the chain of decisions already."""
    warehouse.insert(con, "raw.looks", [{**asdict(look), "sketch": list(look.sketch)}])


def record_result(con: Connection, look: HoldoutUse, *, test: str, outcome: str) -> None:
    """Keep by what test a look was judged, and how it came out."""
    con.execute(
        """
        update raw.looks
        set test = $test, outcome = $outcome
        where decision = $decision
        """,
        {"decision": look.decision, "test": test, "outcome": outcome},
    )


def parse_policy(policy: str) -> Mapping[str, Json]:
    """Read a policy back from its text."""
    told: Mapping[str, Json] = json.loads(policy)
    return told


def canonical_json(told: Mapping[str, object]) -> str:
    """Write a policy, or what is committed to, as one line of JSON with its keys in order."""
    return json.dumps(told, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
