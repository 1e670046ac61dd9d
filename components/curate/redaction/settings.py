"""What of a workload is redacted."""

import re

from pydantic import Field, field_validator

from components.curate.redaction.kinds import Kind
from components.curate.redaction.presidio import Presidio
from components.schema import Config


class Redaction(Config):
    """What may stay as it was logged; the rest of what is found becomes a placeholder."""

    off: tuple[Kind, ...] = ()
    """Kinds that stay, such as ``ip`` where the workload is about addresses of machines."""

    allow: tuple[str, ...] = ()
    """Values that stay: ``support@acme.com``, or all of a domain with ``@acme.com``."""

    allow_patterns: tuple[str, ...] = Field(default=())
    """Regular expressions of values that stay; they must match the whole value."""

    presidio: Presidio | None = None
    """Ask Presidio, too: a hundred times slower, but with a language model it finds who and what is
    only mentioned."""

    @field_validator("allow_patterns")
    @classmethod
    def _compile(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"is no regular expression: {pattern!r} ({error})") from error
        return patterns
