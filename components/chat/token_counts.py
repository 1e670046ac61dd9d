"""Count tokens with a base's own tokenizer, without loading torch; counts are cached by text."""

import hashlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import pyarrow as pa
from tokenizers import Tokenizer

from components.schema import Message
from components.store import manifest, warehouse
from components.store.warehouse import Connection

FILE = "tokenizer.json"


def counter(con: Connection, base: Path | None) -> "Counter | None":
    """Give a counter for a base; ``None`` if it has no ``tokenizer.json``, as fast ones have."""
    if base is None or not (base / FILE).is_file():
        return None
    return Counter(con, base / FILE)


class Counter:
    """Counts for one base; what it counted is kept in ``curated.token_counts``."""

    def __init__(self, con: Connection, path: Path) -> None:
        self._con, self._path = con, path
        self.tokenizer = manifest.file_digest(path)[:16]
        """The digest of the tokenizer: another one counts anew."""

    @cached_property
    def _encoder(self) -> Tokenizer:
        encoder = Tokenizer.from_file(str(self._path))
        encoder.no_truncation()
        encoder.no_padding()
        return encoder

    def count(self, conversations: Sequence[Sequence[Message]]) -> list[int]:
        """Count the tokens of each conversation; some thousands at a time are best.

        A message is counted by itself, since a chat template parts it from the next. So a system
        prompt, or what was said in the turns before, is counted once however often it comes.
        """
        texts = [[message["content"] for message in one] for one in conversations]
        tokens = self._count(dict.fromkeys(text for one in texts for text in one))
        return [sum(tokens[text] for text in one) for one in texts]

    def _count(self, texts: Iterable[str]) -> dict[str, int]:
        keys = {
            hashlib.md5(text.encode("utf-8", "surrogatepass")).hexdigest(): text for text in texts
        }
        known = self._known([*keys])
        fresh = {key: text for key, text in keys.items() if key not in known}
        if fresh:
            # A lone surrogate is no UTF-8, which the tokenizer wants; one mark stands for it.
            clean = [text.encode("utf-8", "replace").decode() for text in fresh.values()]
            found = self._encoder.encode_batch_fast(clean, add_special_tokens=False)
            counted = dict(zip(fresh, (len(one.ids) for one in found), strict=True))
            self._keep(counted)
            known |= counted
        return {text: known[key] for key, text in keys.items()}

    def _known(self, keys: Sequence[str]) -> dict[str, int]:
        with warehouse.present(self._con, "asked", {"content": pa.array(keys, pa.string())}):
            rows = self._con.execute(_KNOWN, {"tokenizer": self.tokenizer}).fetchall()
        return dict(rows)

    def _keep(self, counted: dict[str, int]) -> None:
        columns = {
            "tokenizer": [self.tokenizer] * len(counted),
            "content": list(counted),
            "tokens": list(counted.values()),
        }
        with warehouse.present(self._con, "counted", columns):
            self._con.execute("insert into curated.token_counts by name select * from counted")


_KNOWN = """
    select content, tokens
    from curated.token_counts
    semi join asked using (content)
    where tokenizer = $tokenizer
"""
