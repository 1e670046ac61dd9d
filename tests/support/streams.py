"""Simulated months of requests and votes, drawn from a seed."""

import random
from collections.abc import Iterator

from components.monitor.signs import FirstRequest, ThumbVote

OLD = ("invoice", "refund", "order", "parcel", "address", "delay", "receipt", "password")
NEW = ("warranty", "battery", "charger", "firmware", "pairing", "screen", "repair", "update")


def requests(
    seed: int, count: int, *, share: float = 0.0, is_new: bool = False
) -> list[FirstRequest]:
    """Draw requests of 4 to 12 words; ``share`` of them speak of other things than usual."""
    draw = random.Random(seed)
    return [
        FirstRequest(
            interaction_id=f"{seed}-{is_new}-{number}",
            client_id=draw.choice(["web", "app"]),
            question=" ".join(_words(draw, NEW if draw.random() < share else OLD)),
            tool_names=draw.choice(["", "track_order", "refund track_order"]),
            is_new=is_new,
        )
        for number in range(count)
    ]


def votes(seed: int, count: int, down: float, *, is_new: bool = False) -> list[ThumbVote]:
    """Draw votes of which a share is a thumb down."""
    draw = random.Random(seed)
    return [ThumbVote(f"{seed}-{is_new}-{n}", draw.random() < down, is_new) for n in range(count)]


def _words(draw: random.Random, topic: tuple[str, ...]) -> Iterator[str]:
    for _ in range(draw.randint(4, 12)):
        usual = f"w{int(draw.paretovariate(0.6)) % 500}"
        yield draw.choice(topic) if draw.random() < 0.5 else usual
