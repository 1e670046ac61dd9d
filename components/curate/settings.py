"""What a workload file says under ``curate``."""

from pydantic import Field

from components.curate.split import SplitBy
from components.schema import Config


class Rules(Config):
    """What a workload's examples must be, and how many are held out."""

    max_prompt_chars: int = Field(default=16_000, ge=100)
    """Longer prompts (as rendered, tools included) are left out: they cost memory and time."""

    holdout_share: float = Field(default=0.2, gt=0, lt=1)
    """Share of the groups that are tested on; raising it draws only groups that are new."""

    split_by: SplitBy = "tools"
    """What the holdout shows: ``tools`` never seen in training (requests without tools go by
    conversation), or ``conversation`` for an agent whose tools are always the same."""
