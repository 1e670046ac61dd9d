"""How much is trained on, and of what."""

from pathlib import Path

from pydantic import Field, model_validator

from components.schema import Config


class Replay(Config):
    """Rows of other sets among those trained on, so that what they teach is not forgotten."""

    sources: list[Path] = Field(min_length=1)
    """Snapshot folders, whose training rows are taken; Parquet files with their columns; or JSONL
    files, ``.gz`` or not, of ``messages`` that end in the answer, and ``tools``."""

    share: float = Field(default=0.1, gt=0, lt=1)
    """Share of the rows trained on that are replayed, if the sources have so many."""


class Balance(Config):
    """What is left out of the training side; without any of it, nothing is."""

    per_label: int | None = Field(default=None, ge=1)
    """At most so many rows with equal labels: the tools they call, or a short answer's text."""

    per_client: int | None = Field(default=None, ge=1)
    """At most so many rows of one client."""

    max_rows: int | None = Field(default=None, ge=1)
    """At most so many rows in all, replayed ones among them."""

    max_tokens: int | None = Field(default=None, ge=1)
    """At most so many tokens in all, prompts and answers, by the base's tokenizer."""

    temperature: float = Field(default=1.0, ge=1)
    """How a budget is shared out between clients: 1 gives each a part as large as its rows, higher
    gives small clients more (n rows weigh n to the power of 1 / temperature), up to equal parts."""

    replay: Replay | None = None
    """Rows of other sets to train on besides."""

    @model_validator(mode="after")
    def _shares_out_a_budget(self) -> "Balance":
        if self.temperature > 1 and self.max_rows is None and self.max_tokens is None:
            raise ValueError("temperature shares out a budget: set max_rows or max_tokens")
        return self
