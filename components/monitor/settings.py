"""The ``trigger`` section of a workload's file: when a turn starts by itself."""

from typing import Literal

from pydantic import Field

from components.schema import Config


class Trigger(Config):
    """Which signs start a turn, and what prevents a start."""

    schedule: str = "37 * * * *"
    """Cron line (UTC) of the runs that look for signs."""

    min_feedback: int | None = Field(default=50, ge=1)
    """The new feedback signals since the last turn that start one, of each person the newest of a
    kind on an answer; ``null``: no number does."""

    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """The chance of a false start for drift between two turns, over all looks; the same again for
    votes. Lower means later starts."""

    cooldown_hours: float = Field(default=24, ge=0)
    """No turn starts automatically this soon after the last start of any cause."""

    turns_a_month: int = Field(default=10, ge=1)
    """The budget: the most turns in any 30 days, including those of the schedule."""

    on_regression: Literal["propose", "rollback"] = "propose"
    """What `monitor` does if votes have fallen since the champion's promotion: notify people, or
    also roll back to the version before it."""
