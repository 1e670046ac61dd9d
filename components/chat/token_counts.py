"""Count tokens with a base's own tokenizer, without loading torch; counts are cached by text."""

import hashlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from components.schema import Message
from components.store import manifest, warehouse
from components.store.warehouse import Connection

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
