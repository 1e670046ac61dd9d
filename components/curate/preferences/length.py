"""Weigh the preference for longer answers away, where that is wanted."""

from collections.abc import Sequence


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
