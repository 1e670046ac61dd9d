"""Hold the trigger to its rates in simulated months; ``python -m tests.benchmarks.trigger``.

Each month has 300 requests, or 60 votes, of before and as many new ones as the line says, and is
looked at after each of them. Where nothing changes, a turn may start with a chance of alpha at
most; where something does, the share that is missed and the median number until the start are
printed.
"""

import statistics
import sys
from collections.abc import Callable
from typing import Annotated, TypeAlias

import typer
from rich.progress import track

from components.monitor import signs
from components.monitor.settings import Trigger
from components.monitor.signs import Sign
from tests.support import streams

SETTINGS = Trigger()
REQUESTS, VOTES = 300, 60

Month: TypeAlias = Callable[[int, int], Sign | None]
"""Judges the first so many observations of the month of a seed."""


def requests_of(share: float) -> Month:
    """Make months in which a share of the new requests is about other things."""

    def judge(seed: int, count: int) -> Sign | None:
        before = streams.requests(seed, REQUESTS)
        new = streams.requests(seed, count, share=share, is_new=True)
        return signs.input_drift(before, new, SETTINGS)

    return judge


def votes_of(down: float) -> Month:
    """Make months in which a share of the new votes is a thumb down; before, it was 2 in 10."""

    def judge(seed: int, count: int) -> Sign | None:
        before = streams.votes(2 * seed, VOTES, 0.2)
        new = streams.votes(2 * seed + 1, count, down, is_new=True)
        return signs.falling_votes(before, new, SETTINGS)

    return judge


def started_at(month: Month, seed: int, count: int) -> int | None:
    """Find after how many observations a turn starts; the highest capital so far never falls."""
    if not _is_given(month(seed, count)):
        return None
    low, high = 0, count
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _is_given(month(seed, middle)) else (middle, high)
    return high


def _is_given(sign: Sign | None) -> bool:
    return sign is not None and sign.is_reached


def main(
    months: Annotated[int, typer.Option(min=20, help="Months where nothing changes.")] = 1000,
) -> None:
    """Print false starts, missed starts and how soon; exit code 1 if too many start for nothing."""
    broken = False
    for told, null, count in (
        ("requests", requests_of(0.0), 600),
        ("votes", votes_of(0.2), 200),
    ):
        seeds = track(range(months), told, disable=not sys.stderr.isatty())
        false = sum(_is_given(null(seed, count)) for seed in seeds) / months
        allowed = SETTINGS.alpha + 3 * (SETTINGS.alpha / months) ** 0.5
        broken |= false > allowed
        typer.echo(
            f"{told}: nothing changes, {count} looks: {false:.3f} start, at most {SETTINGS.alpha}"
        )
    for told, month, count in (
        ("requests, 2 in 10 about other things", requests_of(0.2), 600),
        ("requests, 4 in 10 about other things", requests_of(0.4), 600),
        ("requests, 7 in 10 about other things", requests_of(0.7), 600),
        ("votes, thumbs down from 2 to 3 in 10", votes_of(0.3), 200),
        ("votes, thumbs down from 2 to 4 in 10", votes_of(0.4), 200),
        ("votes, thumbs down from 2 to 6 in 10", votes_of(0.6), 200),
    ):
        ends = [started_at(month, seed, count) for seed in range(max(20, months // 10))]
        starts = [end for end in ends if end is not None]
        missed = 1 - len(starts) / len(ends)
        soon = f"{statistics.median(starts):.0f}" if starts else "none"
        typer.echo(f"{told}: {missed:.3f} missed of {count}; median until the start {soon}")
    sys.exit(broken)


if __name__ == "__main__":
    typer.run(main)
