"""Report how often the longer answer won, and weigh it away where that is wanted."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LengthBias:
    """How many pairs were won by the longer answer, the shorter, and one as long as the other."""

    longer: int
    shorter: int
    equal: int

    @property
    def share(self) -> float | None:
        """Give the share of the longer among pairs of different lengths; ``None`` without any."""
        decided = self.longer + self.shorter
        return self.longer / decided if decided else None


def bias(lengths: Sequence[tuple[int, int]]) -> LengthBias:
    """Count pairs by which answer was longer; lengths are (chosen, rejected), in characters."""
    longer = sum(chosen > rejected for chosen, rejected in lengths)
    shorter = sum(chosen < rejected for chosen, rejected in lengths)
    return LengthBias(longer, shorter, len(lengths) - longer - shorter)


def match(weights: Sequence[float], lengths: Sequence[tuple[int, int]]) -> list[float]:
    """Scale the heavier of the two kinds down, so that both weigh the same in all.

    No pair is dropped and none becomes heavier. With one kind only there is nothing to match.
    """
    longer = sum(
        w for w, (chosen, rejected) in zip(weights, lengths, strict=True) if chosen > rejected
    )
    shorter = sum(
        w for w, (chosen, rejected) in zip(weights, lengths, strict=True) if chosen < rejected
    )
    if not longer or not shorter:
        return list(weights)
    lighter = min(longer, shorter)
    return [
        w
        * (lighter / longer if chosen > rejected else lighter / shorter if chosen < rejected else 1)
        for w, (chosen, rejected) in zip(weights, lengths, strict=True)
    ]
