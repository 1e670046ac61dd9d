"""What a workload file says under ``curate.near``; what it is used for is slow to import."""

from pydantic import Field

from components.schema import Config

THRESHOLD = 0.8


class NearDuplicates(Config):
    """When two requests count as one."""

    jaccard: float = Field(default=THRESHOLD, gt=0, le=1)
    """Share of the word triples of two conversations that both have; a lower one merges more rows,
    and keeps more of them from standing on both sides."""
