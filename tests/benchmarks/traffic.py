"""A log to measure with: seed rows written again and again with other ids, times and texts."""

import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path

from components.schema import Json
from tests.support import logs

WORDS_CHANGED = 6
WORDS = 400
"""Of a made row's question, so that it has about 2 KB."""


def seeds(folder: Path | None) -> list[dict[str, Json]]:
    """Read a folder's five-key logs, ``telemetry*.jsonl.gz``; without one, make some."""
    if folder is None:
        return made(1000)
    files = sorted(folder.glob("telemetry*.jsonl.gz"))
    rows = [
        json.loads(line)
        for file in files
        for line in gzip.decompress(file.read_bytes()).splitlines()
    ]
    if not rows:
        raise FileNotFoundError(f"{folder} holds no telemetry*.jsonl.gz to take seed rows from")
    return rows


def write(path: Path, rows: list[dict[str, Json]], count: int, seed: int = 0) -> None:
    """Write ``count`` distinct interactions, each a seed row in other words."""
    chance = random.Random(seed)
    order = list(range(len(rows)))
    with path.open("w") as file:
        for number in range(count):
            if number % len(rows) == 0:
                chance.shuffle(order)
            row = rows[order[number % len(rows)]]
            file.write(json.dumps(varied(row, number, chance)) + "\n")


def varied(row: dict[str, Json], number: int, chance: random.Random) -> dict[str, Json]:
    """Give a row another id and time, and some words of its conversation other neighbours."""
    request, response = row["request"], row["response"]
    assert isinstance(request, dict) and isinstance(response, dict)
    messages = request["messages"]
    assert isinstance(messages, list)
    said = [_reworded(one, chance) for one in messages]
    varied: dict[str, Json] = {
        "timestamp": 1_700_000_000 + number,
        "request": {**request, "messages": said},
        "response": {**response, "id": f"chatcmpl-{chance.getrandbits(96):024x}"},
    }
    return row | varied


def _reworded(message: Json, chance: random.Random) -> Json:
    if not isinstance(message, dict) or not isinstance(text := message.get("content"), str):
        return message
    words = text.split(" ")
    for _ in range(WORDS_CHANGED):
        words[chance.randrange(len(words))] = f"{chance.getrandbits(40):x}"
    return message | {"content": " ".join(words)}


def made(count: int) -> list[dict[str, Json]]:
    """Make so many rows of random words."""
    chance = random.Random(0)
    vocabulary = ["".join(chance.choices("etaoinshrdlu", k=5)) for _ in range(2000)]
    return list(_conversations(count, chance, vocabulary))


def _conversations(
    count: int, chance: random.Random, vocabulary: list[str]
) -> Iterator[dict[str, Json]]:
    for number in range(count):
        question = " ".join(chance.choices(vocabulary, k=chance.randrange(WORDS)))
        yield logs.interaction(
            question, tools=[logs.WEATHER], workload_id=f"made-{number % 3}", client_id="bench"
        )
