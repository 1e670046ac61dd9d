"""The `search:` section of a workload file."""

from pydantic import Field, model_validator

from components.schema import Config


class SearchBudget(Config):
    """What all candidates may use together, in tokens or in minutes."""

    tokens: int | None = Field(default=None, ge=1)
    """Tokens to train on, prompts and answers, each time they are seen: the same on any machine."""

    minutes: float | None = Field(default=None, gt=0)
    """Minutes of training, summed over all candidates, whether they run in parallel or not."""

    @model_validator(mode="after")
    def _is_one(self) -> "SearchBudget":
        if (self.tokens is None) == (self.minutes is None):
            raise ValueError("expected either tokens or minutes")
        return self


class SearchSettings(Config):
    """Which candidates a turn trains, and what they may cost together."""

    over: dict[str, list[object]] = Field(min_length=1)
    """Values to try of settings of ``train``, and of ``base``: every combination is a candidate;
    other settings are as in the rest of the file."""

    budget: SearchBudget
    """The search's limit: with less, every candidate's training is shorter, schedule and all.
    No candidate sees an example more often than its ``num_train_epochs``."""

    eta: int = Field(default=3, ge=2)
    """Each rung promotes one in ``eta`` candidates, which train ``eta`` times as far: higher prunes
    earlier and so tries more for the same budget, lower is less rash."""
