"""The `search:` section of a workload file."""

from pydantic import Field, model_validator

from components.schema import Config


class SearchBudget(Config):
    """What all candidates may use together; one of the two."""

    tokens: int | None = Field(default=None, ge=1)
    """Tokens to train on, prompts and answers, each time they are seen: the same on any machine."""

    minutes: float | None = Field(default=None, gt=0)
    """Minutes that the trainings take, added up, whether beside each other or one by one."""

    @model_validator(mode="after")
    def _is_one(self) -> "SearchBudget":
        if (self.tokens is None) == (self.minutes is None):
            raise ValueError("wants either tokens or minutes")
        return self


class SearchSettings(Config):
    """Which candidates a turn trains, and what they may cost together."""

    over: dict[str, list[object]] = Field(min_length=1)
    """Values to try of each setting of ``train``, and of ``base``: every combination of them is a
    candidate, and what isn't named is as the rest of the file says."""

    budget: SearchBudget
    """What the search may use: with less, every candidate's training is shorter, schedule and all.
    No candidate sees an example more often than its ``num_train_epochs`` says."""

    eta: int = Field(default=3, ge=2)
    """At each rung one in ``eta`` candidates goes on, ``eta`` times as far: higher compares sooner
    and so tries more for the same budget, lower is less rash."""
