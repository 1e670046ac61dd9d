"""How a canary stands, or ended, with its evidence at each look, as page and commands show it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast

from components.schema import Json

EVIDENCE_HEAD = ("bad event", "canary", "champion", "ratio of risks", "worse", "within margin")


@dataclass(frozen=True, slots=True)
class KindPoint:
    """What the counts of one kind of bad event showed at a look."""

    canary: int
    champion: int
    worse: float
    within: float
    ratio_low: float
    ratio_high: float | None


@dataclass(frozen=True, slots=True)
class EvidencePoint:
    """All kinds at one look; ``at`` is ISO 8601, UTC."""

    at: str
    share: float
    kinds: Mapping[str, KindPoint]


@dataclass(frozen=True, slots=True)
class CanaryStatus:
    """One canary; times are ISO 8601, UTC."""

    id: str
    version: str
    champion: str
    started_at: str
    state: str
    """The gateway's word while it runs, else its end."""
    reason: str
    is_over: bool
    steps: Sequence[tuple[float, float]] = ()
    """Shares, and the seconds for which each holds."""
    deadline_seconds: float = 0.0
    margin: float = 0.0
    shadow: float = 0.0
    worse_bounds: Mapping[str, float] = field(default_factory=dict[str, float])
    """By kind: the evidence that rolls back."""
    within_bound: float = math.inf
    """The evidence that a kind is within the margin."""
    decisive: Sequence[str] = ()
    """The kinds that have to be within it."""
    requirement: str = ""
    """What makes the version champion."""
    history: Sequence[EvidencePoint] = field(default_factory=list[EvidencePoint])

    @property
    def sentence(self) -> str:
        """Which versions, and how it stands, in a line."""
        share = f" at a share of {self.history[-1].share:.3g}" if self.history else ""
        return (
            f"version {self.version} beside version {self.champion}{'' if self.is_over else share}"
            f": {self.state}: {self.reason}"
        )


def evidence_rows(status: CanaryStatus) -> list[list[str]]:
    """Return a formatted row for each kind at the last look."""
    if not status.history:
        return []
    return [
        [
            f"{kind}{' (decisive)' if kind in status.decisive else ''}",
            f"{point.canary:,}",
            f"{point.champion:,}",
            f"{point.ratio_low:.2f} to {_high(point.ratio_high)}",
            _of_bound(point.worse, status.worse_bounds.get(kind, math.inf)),
            _of_bound(point.within, status.within_bound) if kind in status.decisive else "",
        ]
        for kind, point in status.history[-1].kinds.items()
    ]


def _high(ratio: float | None) -> str:
    return "any" if ratio is None else f"{ratio:.2f}"


def _of_bound(evidence: float, bound: float) -> str:
    return f"{evidence:.3g} of {bound:,.0f}" if math.isfinite(bound) else f"{evidence:.3g}"


def read_history(looks: Iterable[object]) -> list[EvidencePoint]:
    """Return the looks that are in the gateway's form, in their order."""
    return [point for look in looks if (point := _point(look)) is not None]


def _point(raw: object) -> EvidencePoint | None:
    """Read one look; ``None`` if it is not in the gateway's form."""
    match raw:
        case {"at": str(at), "share": float() | int() as share, "kinds": dict(kinds)}:
            shown = cast("dict[str, Json]", kinds)
        case _:
            return None
    try:
        datetime.fromisoformat(at).astimezone(UTC)
        points = {kind: _kind_point(value) for kind, value in shown.items()}
    except (ValueError, TypeError, KeyError):
        return None
    return EvidencePoint(at, float(share), points)


def _kind_point(value: Json) -> KindPoint:
    if not isinstance(value, dict):
        raise TypeError("expected an object")
    high = value["ratio_high"]
    return KindPoint(
        canary=int(_number(value["canary"])),
        champion=int(_number(value["champion"])),
        worse=_number(value["worse"]),
        within=_number(value["within"]),
        ratio_low=_number(value["ratio_low"]),
        ratio_high=None if high is None else _number(high),
    )


def _number(value: Json) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"expected a number, found {value!r}")
    return float(value)
