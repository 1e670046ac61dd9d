"""What of a workload is redacted."""

import re
from typing import Literal

from pydantic import Field, field_validator

from components.curate.redaction.kinds import Kind
from components.curate.redaction.presidio import Presidio
from components.schema import Config


class Redaction(Config):
    """What may stay as it was logged, and what takes the place of the rest of what is found."""

    replace: Literal["surrogates", "placeholders"] = "surrogates"
    """What stands in rows to train and test on: made-up values of the same form, such as other card
    numbers, as a served model reads real ones; or ``<CARD_1>``, which is easier to copy."""

    seed: int | None = Field(default=None, ge=0)
    """Draws surrogates from this number instead of random keys. Who knows it and guesses a value
    can confirm it: for public logs only, where two homes should have the same rows."""

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
