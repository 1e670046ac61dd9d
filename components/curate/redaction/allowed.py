"""Which values a workload lets stay."""

import re
from dataclasses import dataclass

from components.curate.redaction.kinds import Kind
from components.curate.redaction.settings import Redaction


@dataclass(frozen=True, slots=True)
class Allowed:
    """What ``Redaction`` says, compiled."""

    kinds: frozenset[Kind]
    values: frozenset[str]
    patterns: tuple[re.Pattern[str], ...]

    @classmethod
    def by(cls, settings: Redaction) -> "Allowed":
        """Compile a workload's settings."""
        return cls(
            frozenset(settings.off),
            frozenset(one.lower() for one in settings.allow),
            tuple(re.compile(one) for one in settings.allow_patterns),
        )

    def value(self, text: str) -> bool:
        """Say if a value stays: by itself, by its domain, or by a pattern."""
        lowered = text.lower()
        domain = "@" + lowered.rpartition("@")[2] if "@" in lowered else lowered
        return (
            lowered in self.values
            or domain in self.values
            or any(pattern.fullmatch(text) for pattern in self.patterns)
        )
