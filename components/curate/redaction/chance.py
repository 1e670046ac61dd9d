"""Draw from a key: the same for the same key and subject, and nothing to tell without the key."""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")

DIGITS = "0123456789"
LOWER = "abcdefghijklmnopqrstuvwxyz"


class Chance:
    """A stream of draws by BLAKE2 under a key: no version of Python's ``random`` changes it."""

    def __init__(self, key: bytes, *about: str) -> None:
        self._key = key
        self._about = "\0".join(about).encode("utf-8", "surrogatepass")
        self._block = 0
        self._bytes = b""

    def below(self, limit: int) -> int:
        """Draw a number from 0 to ``limit - 1``; its bias is below 2 to the minus 32."""
        size = 8 if limit <= 1 << 32 else 16
        if len(self._bytes) < size:
            counted = self._about + self._block.to_bytes(4)
            self._bytes += hashlib.blake2b(counted, key=self._key).digest()
            self._block += 1
        drawn, self._bytes = self._bytes[:size], self._bytes[size:]
        return int.from_bytes(drawn) % limit

    def between(self, least: int, most: int) -> int:
        """Draw a number from ``least`` to ``most``."""
        return least + self.below(most - least + 1)

    def choice(self, items: Sequence[Item]) -> Item:
        """Draw one of the items."""
        return items[self.below(len(items))]

    def like(self, character: str) -> str:
        """Draw a character of the same sort: a digit, a capital or a small letter; else keep it."""
        if character.isdigit():
            return self.choice(DIGITS)
        if character.isupper():
            return self.choice(LOWER).upper()
        return self.choice(LOWER) if character.isalpha() else character
