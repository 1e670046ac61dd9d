"""From when on an answer is slow, frozen from the champion's answers before the canary starts.

A limit that followed the traffic would follow the canary, too. It is the same for both arms; which
one it is changes what can be found, not how often a canary is rolled back for nothing.
"""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

SIZES = (64, 256, 1024, 4096, 16384)  # prompt tokens: time to read a prompt grows with them
QUANTILE = 0.95
FEWEST = 100  # answers behind a limit


@dataclass(frozen=True, slots=True)
class LatencyLimits:
    """Limits by the size of the prompt."""

    sizes: tuple[int, ...]
    """The largest prompt of each class, in tokens; the last class has no largest."""

    milliseconds: tuple[float, ...]
    """The limit of each class, one more than ``sizes``."""

    def __post_init__(self) -> None:
        is_rising = list(self.sizes) == sorted(self.sizes)
        if len(self.milliseconds) != len(self.sizes) + 1 or not is_rising:
            raise ValueError(f"expected one limit more than sizes, which rise, found {self}")

    def is_slow(self, prompt_tokens: int | None, milliseconds: float) -> bool:
        """Return whether an answer took longer than its class's limit; if unknown, than all."""
        if prompt_tokens is None:
            return milliseconds > max(self.milliseconds)
        return milliseconds > self.milliseconds[bisect.bisect_left(self.sizes, prompt_tokens)]


def freeze(answers: Sequence[tuple[int, float]]) -> LatencyLimits:
    """Return the limits from the champion's answers: prompt tokens and milliseconds of each.

    A limit is the 95th percentile of its class; classes with few answers join the next one.

    Raises:
        ValueError: There are fewer than ``FEWEST`` answers.
    """
    if len(answers) < FEWEST:
        raise ValueError(
            f"freezing the limit of slow answers: the champion gave {len(answers)} answers, "
            f"expected at least {FEWEST}"
        )
    listed = sorted(answers)
    tokens = [size for size, _ in listed]
    sizes, milliseconds, begin = list[int](), list[float](), 0
    for size in SIZES:
        end = bisect.bisect_right(tokens, size)
        if min(end - begin, len(listed) - end) >= FEWEST:  # enough in it, and enough left
            sizes.append(size)
            milliseconds.append(_limit(listed[begin:end]))
            begin = end
    return LatencyLimits(tuple(sizes), (*milliseconds, _limit(listed[begin:])))


def _limit(answers: Sequence[tuple[int, float]]) -> float:
    # linear between two answers, as numpy's default; the gateway's process loads no numpy
    ordered = sorted(milliseconds for _, milliseconds in answers)
    whole, part = divmod(QUANTILE * (len(ordered) - 1), 1)
    low, high = ordered[int(whole)], ordered[min(int(whole) + 1, len(ordered) - 1)]
    return low + part * (high - low)
