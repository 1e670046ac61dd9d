"""Write figures as people read them: shares in percent, differences in points, money in full."""

import math


def share(value: float | None) -> str:
    """Write a score; what is no share of one is written as it is."""
    if value is None:
        return "not measured"
    return f"{value:.1%}" if 0 <= value <= 1 else f"{value:.4g}"


def percent(value: float) -> str:
    """Write a share of any size in percent, to three digits that count."""
    return f"{100 * value:.3g}%" if 100 * value < 1000 else f"{100 * value:,.0f}%"


def points(difference: float | None) -> str:
    """Write a difference of shares in points, with its sign."""
    return "" if difference is None else f"{100 * difference:+.1f}"


def between(low: float | None, high: float | None) -> str:
    """Write the interval of a difference in points."""
    return "" if low is None or high is None else f"{points(low)} to {points(high)}"


def counted(clusters: int | None) -> str:
    """Write a number of clusters; older scorecards and judgements don't have it."""
    return "unknown" if clusters is None else str(clusters)


def money(value: float | None, currency: str) -> str:
    """Write an amount with two digits after the point, or with three that count if it is small."""
    if value is None:
        return "unknown"
    digits = 2 if value >= 1 or value == 0 else 2 - math.floor(math.log10(value))
    return f"{value:.{digits}f} {currency}"
