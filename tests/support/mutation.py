"""Damage records as careless exporters and changed formats do, reproducibly."""

import json
import random
from collections.abc import Iterator, Sequence
from copy import deepcopy

from components.schema import Json

DEEP: Json = json.loads("[" * 150 + "]" * 150)

ODD: tuple[Json, ...] = (
    None,
    True,
    0,
    -1,
    7,
    10**30,
    1e308,
    "",
    " ",
    "x",
    "0",
    "null",
    '{"a": [1, 2}',
    "[" * 300,
    '{"role": "user"}',
    "\N{LEFT-TO-RIGHT OVERRIDE}\x00",
    "\ud800",
    float("inf"),
    [],
    {},
    [None],
    [[]],
    [{}],
    {"": {}},
    DEEP,
)
"""Values that have no business where they are put."""


def mutants(samples: Sequence[dict[str, Json]], count: int, seed: int) -> Iterator[dict[str, Json]]:
    """Give ``count`` records, each one of ``samples`` damaged in one to four places."""
    chance = random.Random(seed)
    for _ in range(count):
        record = deepcopy(chance.choice(samples))
        for _ in range(chance.randint(1, 4)):
            _damage(record, samples, chance)
        yield record


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Change, drop or add a few bytes."""
    broken = bytearray(content)
    for _ in range(chance.randint(1, 6)):
        place = chance.randrange(len(broken))
        match chance.randrange(3):
            case 0:
                broken[place] = chance.randrange(256)
            case 1:
                del broken[place : place + chance.randint(1, 20)]
            case _:
                broken[place:place] = chance.randbytes(chance.randint(1, 5))
        if not broken:
            return b"\0"
    return bytes(broken)


def _damage(
    record: dict[str, Json], samples: Sequence[dict[str, Json]], chance: random.Random
) -> None:
    holders = list(_holders(record))
    holder = chance.choice(holders)
    if not holder:
        return
    key = chance.choice(list(holder)) if isinstance(holder, dict) else chance.randrange(len(holder))
    value = holder[key]  # pyright: ignore[reportArgumentType, reportCallIssue]
    match chance.randrange(6):
        case 0:
            del holder[key]  # pyright: ignore[reportArgumentType, reportCallIssue]
            return
        case 1 if isinstance(holder, dict):
            holder[f"{key}_"] = holder.pop(str(key))
            return
        case 2 if isinstance(value, str):
            new = _inside(value, samples, chance)
        case 3:
            new = [value, deepcopy(value)]
        case 4:
            other = chance.choice(list(_holders(chance.choice(samples))))
            new = deepcopy(other)
        case _:
            new = deepcopy(chance.choice(ODD))
    holder[key] = new  # pyright: ignore[reportArgumentType, reportCallIssue]


def _inside(text: str, samples: Sequence[dict[str, Json]], chance: random.Random) -> Json:
    """Damage what a text holds as JSON; cut other text off."""
    try:
        held = json.loads(text)
    except (ValueError, RecursionError):
        held = None
    if isinstance(held, dict | list) and held:
        around: dict[str, Json] = {"held": held}
        _damage(around, samples, chance)
        return json.dumps(around.get("held"))
    return text[: chance.randint(0, len(text))]


def _holders(value: Json) -> Iterator[dict[str, Json] | list[Json]]:
    """Go through all objects and arrays that a value holds."""
    waiting = [value]
    while waiting:
        match waiting.pop():
            case dict(held):
                yield held
                waiting += held.values()
            case list(held):
                yield held
                waiting += held
            case _:
                pass
