"""Compare two outputs; numbers that are not whole may differ by a machine's rounding."""

import math
from typing import Any

ROUNDING = 1e-3
"""fp32 sums of a few dozen terms, added in another order on another processor."""


def first_difference(before: Any, now: Any, place: str = "") -> str | None:
    """Say where two outputs differ first; ``None`` if nowhere."""
    if isinstance(before, dict) and isinstance(now, dict):
        if before.keys() != now.keys():
            return f"{place or 'it'} has other keys: {sorted(before.keys() ^ now.keys())}"
        pairs = [(f"{place}/{key}", before[key], now[key]) for key in before]
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = [(f"{place}/{at}", *both) for at, both in enumerate(zip(before, now, strict=True))]
    elif isinstance(before, float) and isinstance(now, float):
        is_same = math.isclose(before, now, rel_tol=ROUNDING, abs_tol=ROUNDING)
        return None if is_same else f"{place} was {before!r} and is {now!r}"
    else:
        return None if before == now else f"{place} was {before!r} and is {now!r}"
    differences = (first_difference(one, other, where) for where, one, other in pairs)
    return next((one for one in differences if one is not None), None)
