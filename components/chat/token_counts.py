"""Count tokens with a base's own tokenizer, without loading torch, and those of production.

Counts are cached by text.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tokenizers import Tokenizer

from components.chat import prompt
from components.costs import Usage
from components.schema import Answer, Json, Message
from components.store import manifest, warehouse
from components.store.warehouse import Connection, Location

FILE = "tokenizer.json"

MAX_COUNTED = 50_000
"""Texts counted since the cache was read; after more it is read again, to take less memory."""

KEY = np.dtype("S32")  # the hex digits of a text's MD5


def counter(con: Connection, base: Path | None) -> "Counter | None":
    """Return a counter for a base; ``None`` if it has no fast tokenizer (``tokenizer.json``)."""
    if base is None or not (base / FILE).is_file():
        return None
    return Counter(con, base / FILE)


class Counter:
    """Counts tokens for one base; the counts are cached in ``curated.token_counts``."""

    def __init__(self, con: Connection, path: Path) -> None:
        self._con, self._path = con, path
        self.tokenizer = manifest.file_digest(path)[:16]
        """The digest of the tokenizer, part of the cache's key."""
        self._counted: dict[str, int] = {}  # since the cache was read

    @cached_property
    def _encoder(self) -> Tokenizer:
        encoder = Tokenizer.from_file(str(self._path))
        encoder.no_truncation()
        encoder.no_padding()
        return encoder

    def count(self, conversations: Sequence[Sequence[Message]]) -> list[int]:
        """Count the tokens of each conversation; pass some thousands at a time.

        Messages are counted separately, since a chat template separates them. So a repeated
        system prompt or earlier turn is counted once.
        """
        contents = [[message["content"] for message in messages] for messages in conversations]
        tokens = self._count(dict.fromkeys(text for texts in contents for text in texts))
        return [sum(tokens[text] for text in texts) for texts in contents]

    def _count(self, texts: Iterable[str]) -> dict[str, int]:
        keys = {
            hashlib.md5(text.encode("utf-8", "surrogatepass")).hexdigest(): text for text in texts
        }
        known = self._known([*keys])
        missing = {key: text for key, text in keys.items() if key not in known}
        if missing:
            # The tokenizer expects UTF-8, which has no lone surrogates: replace each by a "?".
            clean = [text.encode("utf-8", "replace").decode() for text in missing.values()]
            encodings = self._encoder.encode_batch_fast(clean, add_special_tokens=False)
            counted = dict(zip(missing, (len(encoding.ids) for encoding in encodings), strict=True))
            self._store(counted)
            known |= counted
        return {text: known[key] for key, text in keys.items()}

    @cached_property
    def _cached(self) -> tuple[NDArray[np.bytes_], NDArray[np.int32]]:
        # Read once: a query for each batch would look through all of it again. Not a dictionary,
        # which takes 150 MB a million texts.
        rows = self._con.sql(_CACHED, params={"tokenizer": self.tokenizer})
        contents, tokens = [np.empty(0, KEY)], [np.empty(0, np.int32)]
        for batch in rows.to_arrow_reader(warehouse.BATCH_ROWS):
            contents.append(batch["content"].to_numpy(zero_copy_only=False).astype(KEY))
            tokens.append(batch["tokens"].to_numpy())
        return np.concatenate(contents), np.concatenate(tokens)

    def _known(self, keys: list[str]) -> dict[str, int]:
        cached, tokens = self._cached
        sought = np.array(keys, KEY)
        places = np.searchsorted(cached, sought)
        matches = np.flatnonzero(places < len(cached))
        matches = matches[cached[places[matches]] == sought[matches]]
        texts = [keys[number] for number in matches.tolist()]
        known = dict(zip(texts, tokens[places[matches]].tolist(), strict=True))
        known |= {key: self._counted[key] for key in keys if key in self._counted}
        return known

    def _store(self, counted: dict[str, int]) -> None:
        columns = {
            "tokenizer": [self.tokenizer] * len(counted),
            "content": list(counted),
            "tokens": list(counted.values()),
        }
        with warehouse.present(self._con, "counted", columns):
            self._con.execute("insert into curated.token_counts by name select * from counted")
        self._counted |= counted
        if len(self._counted) > MAX_COUNTED:
            del self._cached
            self._counted.clear()


_CACHED = """
    select content, tokens
    from curated.token_counts
    where tokenizer = $tokenizer
    order by content
"""


LOGGED = "as the logs say"

MESSAGE_TOKENS = 4
"""What an API adds for each message, and once for the reply, as OpenAI counts its own models
("How to count tokens with Tiktoken", OpenAI Cookbook)."""


@dataclass(frozen=True, slots=True)
class _LoggedUsage:
    requests: int
    models: int
    input_tokens: float
    cached_tokens: float
    written_tokens: float
    output_tokens: float


def production_usage(
    path: Location, scratch: Path, snapshot: Path, base: Path | None, ratio: float = 1.0
) -> Usage | None:
    """Return production's mean tokens per request: as logged, else counted from the texts.

    The input is the text of each message and the JSON of the tools with their schemas; the output
    is the logged answer, calls as JSON, or the reference if it was not logged. Images are not
    counted. ``None`` if neither the logs nor a tokenizer has counts.

    Args:
        path: The warehouse; locked only while logged usage is read, not while tokens are counted.
        scratch: DuckDB's folder for spilled data.
        snapshot: A finished snapshot.
        base: The base's folder, whose tokenizer counts if the logs have no ``usage``.
        ratio: The tokens that production bills per token of the base.
    """
    names = pq.read_schema(snapshot / "holdout.parquet").names
    columns = ["interaction_ids", "messages", "tools", "answer", "logged_answer"]
    rows = pq.read_table(
        snapshot / "holdout.parquet", columns=[name for name in columns if name in names]
    ).to_pylist()
    ids = sorted({key for row in rows for key in row["interaction_ids"]})
    with warehouse.connect(path) as con:
        (logged,) = warehouse.records(
            con, "marts/production_usage", _LoggedUsage, interaction_ids=ids
        )
    if logged.requests:
        means = logged.input_tokens, logged.output_tokens
        several = f", of {logged.models} models that are priced as one"
        source = LOGGED + several * (logged.models > 1)
        cached = logged.cached_tokens, logged.written_tokens
        return Usage(*means, logged.requests, source, *cached)
    with warehouse.in_memory(scratch) as con:
        counts = counter(con, base)
        if counts is None or not rows:
            return None
        input_tokens = sum(counts.count([_sent(row) for row in rows]))
        output_tokens = sum(counts.count([_came_back(row) for row in rows]))
    input_tokens += sum(MESSAGE_TOKENS * (1 + len(json.loads(row["messages"]))) for row in rows)
    return Usage(
        ratio * input_tokens / len(rows),
        ratio * output_tokens / len(rows),
        len(rows),
        describe_count(ratio),
    )


def describe_count(ratio: float) -> str:
    """Return the sentence on how tokens are counted if the logs have no usage."""
    return (
        "texts and the JSON of tools and calls, counted by the base's tokenizer, with "
        f"{MESSAGE_TOKENS} tokens for each message, x {ratio:g} (cost.production_token_ratio), "
        "since the logs have no usage"
    )


def _sent(row: dict[str, str]) -> list[Message]:
    """Return the request's texts: messages, the calls in them, and tools."""
    messages = cast("list[dict[str, Json]]", json.loads(row["messages"]))
    calls = [message["tool_calls"] for message in messages if message.get("tool_calls")]
    tools: list[Json] = json.loads(row["tools"])
    return _texts([*map(prompt.text_of, messages), *map(_as_sent, [*calls, *tools])])


def _came_back(row: dict[str, str]) -> list[Message]:
    answer = Answer.from_json(row.get("logged_answer") or row["answer"])
    calls = [_as_sent({"name": call.name, "arguments": call.arguments}) for call in answer.calls]
    return _texts([answer.text, *calls])


def _as_sent(value: Json) -> str:
    """Dump JSON as clients send it: compact and not ASCII-escaped."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _texts(texts: Iterable[str]) -> list[Message]:
    return [{"role": "user", "content": text} for text in texts if text]
