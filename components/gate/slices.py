"""Look at the parts of the traffic: one that got worse must not hide behind the others.

All parts are one family of claims, corrected by Holm, so that of many slices none is called worse
by chance more often than the policy's alpha.
"""

from components.gate import holm, inference
from components.gate.compare import Compared
from components.gate.judgement import Slice

SMALLEST = 8
"""Smaller parts are left out: even one that loses every request could hardly be called worse."""


def compare(target: Compared, *, alpha: float, tail: float) -> tuple[Slice, ...]:
    """Compare the two models on each slice of the target's requests, ordered by name and value.

    Args:
        target: The paired scores.
        alpha: The chance that any slice is called worse which is not.
        tail: The chance that a slice's interval is wrong on either side.
    """
    parts = {place: target.pairs.of(rows) for place, rows in _places(target).items()}
    corrected = holm.adjusted([inference.inferiority(part, alpha) for part in parts.values()])
    return tuple(
        Slice(
            name,
            value,
            part.n,
            part.wins,
            part.losses,
            part.difference,
            *inference.interval(part, tail),
            p_worse,
            is_worse=p_worse <= alpha,
            clusters=len(part.sizes),
        )
        for ((name, value), part), p_worse in zip(parts.items(), corrected, strict=True)
    )


def _places(target: Compared) -> dict[tuple[str, str], list[int]]:
    """Give the rows of each slice; a name that has the same value everywhere is none."""
    rows: dict[tuple[str, str], list[int]] = {}
    for row, sample in enumerate(target.samples):
        for name, value in sample.slices.items():
            rows.setdefault((name, value), []).append(row)
    return {
        place: found
        for place, found in sorted(rows.items())
        if SMALLEST <= len(found) < target.pairs.n
    }
