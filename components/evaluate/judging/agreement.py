"""Hold a judge against people: of the pairs that they compared, which answer does it choose?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, cast

import pyarrow.parquet as pq
from scipy import stats

from components import manifest
from components.evaluate.judging.comparing import Comparison
from components.schema import Message

FILES = ("holdout_preferences.parquet", "preferences.parquet")
"""A judge learned from neither, so the pairs that are trained on tell as much."""

MOST = 200
"""Pairs that are asked about: beyond them the interval hardly narrows."""

Row: TypeAlias = dict[str, object]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often a judge chose what people chose.

    Of ``pairs`` it ``decided`` some, in both orders alike, and ``agreed`` on so many of them;
    ``low`` and ``high`` are Wilson's (1927) 95 % interval of that share.
    """

    pairs: int
    unjudged: int
    decided: int
    agreed: int
    low: float | None
    high: float | None

    def sentence(self) -> str:
        """Say it in words."""
        if self.low is None or self.high is None:
            return f"of {self.pairs} pairs that people compared it decided none"
        return (
            f"it agreed with people on {self.agreed} of the {self.decided} pairs that it decided "
            f"({self.agreed / self.decided:.0%}, 95 % interval {self.low:.0%} to {self.high:.0%}), "
            f"of {self.pairs} that they compared"
        )

    def doubt(self, least: float) -> str | None:
        """Say why the judge is no evidence; ``None`` if it is."""
        if self.low is None:
            return (
                "is no evidence: whether the judge agrees with people here is not known, "
                f"{self.sentence()}"
            )
        if not self.low >= least:  # what is no number is no agreement
            return (
                f"is no evidence: {self.sentence()}; the interval has to begin at {least:.0%} "
                "(evaluate.judge.min_agreement)"
            )
        return None


def measure(scores: Sequence[float | None]) -> Agreement:
    """Count the pairs of which the judge chose people's choice (1), the other (0), or neither."""
    decided = [one for one in scores if one in (0.0, 1.0)]
    agreed, unjudged = decided.count(1.0), [*scores].count(None)
    if not decided:
        return Agreement(len(scores), unjudged, 0, 0, None, None)
    ends = stats.binomtest(agreed, len(decided)).proportion_ci(method="wilson")
    return Agreement(len(scores), unjudged, len(decided), agreed, float(ends.low), float(ends.high))


def pairs(snapshot: Path) -> list[Comparison]:
    """Read the pairs that people compared, what they chose first: one a request, drawn by hash."""
    found: dict[str, Row] = {}
    for row in sorted(_rows(snapshot), key=_drawn):
        found.setdefault(conversation(row["prompt"]), row)
    return [
        Comparison(request, _said(row["chosen"]), _said(row["rejected"]))
        for request, row in [*found.items()][:MOST]
    ]


def conversation(prompt: object) -> str:
    """Write a request as a judge reads it, all of the conversation."""
    return "\n\n".join(f"{one['role']}: {one['content']}" for one in cast("list[Message]", prompt))


def _rows(snapshot: Path) -> list[Row]:
    columns = ["preference_id", "prompt", "chosen", "rejected"]
    paths = [snapshot / name for name in FILES if (snapshot / name).exists()]
    return [row for path in paths for row in pq.read_table(path, columns=columns).to_pylist()]


def _drawn(row: Row) -> str:
    return manifest.digest(["pair", row["preference_id"]])


def _said(answer: object) -> str:
    return cast("list[Message]", answer)[0]["content"].strip()
