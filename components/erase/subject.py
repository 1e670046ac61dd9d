"""Who is erased: an id, and what it is narrowed to where ids are unique only within that."""

import hashlib
import json
import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Subject:
    """The id of a user or a conversation.

    ``workload_id`` and ``client_id`` narrow it; ``mentions`` also takes the rows of others whose
    text holds the id.
    """

    id: str
    workload_id: str | None = None
    client_id: str | None = None
    mentions: bool = False

    @property
    def is_narrowed(self) -> bool:
        """Whether the same id may lawfully stand elsewhere."""
        return bool(self.within)

    @property
    def within(self) -> dict[str, str]:
        """The values that columns of its rows have."""
        narrowed = {"workload_id": self.workload_id, "client_id": self.client_id}
        return {name: value for name, value in narrowed.items() if value is not None}

    @property
    def scope(self) -> str:
        """What it is narrowed to, as JSON text that names nobody."""
        return json.dumps(
            {
                "workload_id": self.workload_id,
                "client_id": self.client_id,
                "mentions": self.mentions,
            }
        )

    @property
    def spellings(self) -> tuple[str, ...]:
        """The id, also as JSON may escape it."""
        escaped = (json.dumps(self.id, ensure_ascii=ascii)[1:-1] for ascii in (True, False))
        return tuple(sorted({self.id, *escaped}))

    @property
    def pattern(self) -> str:
        """The id as a word of its own, as RE2 and Python read it."""
        spellings = "|".join(re.escape(one) for one in self.spellings)
        return rf"(?:^|[^\w-])(?:{spellings})(?:$|[^\w-])"


def digest(key: str, value: str | bytes) -> str:
    """Hash a value under the warehouse's key (SHA-256 of both, hexadecimal, as DuckDB does it)."""
    content = value.encode(errors="surrogatepass") if isinstance(value, str) else value
    return hashlib.sha256(key.encode() + content).hexdigest()
