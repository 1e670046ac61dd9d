"""What a workload file says under ``curate: preferences``."""

from pydantic import Field

from components.schema import Config


class Preferences(Config):
    """How far people's feedback moves what is learned."""

    actor_cap: float = Field(default=0.1, gt=0, le=1)
    """Most of the weight of all signals that one actor may have; what is over it is held back.
    With few actors it is twice an even share, where that is more."""

    trusted: tuple[str, ...] = ()
    """Actors who are never held back, such as your labellers and automatic checks."""

    burst_minutes: int = Field(default=10, ge=1)
    """How long a window is in which more signals than usual, or more new actors, stand out."""

    rating_gap: float = Field(default=0.25, gt=0, le=1)
    """Two answers to one prompt are a pair if their ratings differ by this share of the scale."""

    bad_outcomes: tuple[str, ...] = ("escalated", "abandoned", "error", "timeout", "refunded")
    """Outcomes that mean failure when they are true; all others mean success."""

    lift: float = Field(default=1.5, ge=1, le=10)
    """How many times more the best liked examples weigh than unjudged ones, and the worst less."""

    match_length: bool = False
    """Weigh pairs so that those whose longer answer won count no more than those whose shorter
    one did: people tend to choose the longer answer for its length."""
