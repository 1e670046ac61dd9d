"""The ``trigger`` section of a workload's file: when a turn starts by itself."""

from typing import Literal

from pydantic import Field

from components.schema import Config


class Trigger(Config):
    """Which signs start a turn, and what holds one back."""

    schedule: str = "37 * * * *"
    """Cron line (UTC) of the runs that look for signs."""

    min_feedback: int | None = Field(default=50, ge=1)
    """So many new feedback signals since the last turn start one; ``null``: their number never."""

    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """Chance that nothing has changed and a turn still starts for drift, in all the looks from one
    turn to the next; the same again for votes. Lower means later starts."""

    cooldown_hours: float = Field(default=24, ge=0)
    """No turn starts by itself so soon after the last one, however that was started."""

    turns_a_month: int = Field(default=10, ge=1)
    """The budget: so many turns in any 30 days, those of the schedule included."""

    on_regression: Literal["propose", "rollback"] = "propose"
    """What `monitor` does when votes have fallen since the champion came: tell people, or also make
    the version before it the champion again."""
