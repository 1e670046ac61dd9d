"""Decide whether a turn starts now, and say why or why not."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from components.trigger.settings import Trigger
from components.trigger.signs import Sign

MONTH = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Choice:
    """Whether a turn starts, and the reason in words."""

    starts: bool
    reason: str


def choose(
    signs: Sequence[Sign],
    earlier: Sequence[datetime],
    settings: Trigger,
    *,
    under_way: bool,
    now: datetime,
) -> Choice:
    """Start a turn if any sign asks for one and nothing holds it back.

    Args:
        signs: What the looks found.
        earlier: When turns of the workload started, however they were.
        settings: Cool-down and budget.
        under_way: Whether a turn of the workload runs.
        now: The time of this look.
    """
    given = [sign for sign in signs if sign.is_given]
    if not given:
        return Choice(False, "; ".join(sign.told for sign in signs) or "nothing to go by yet")
    told = "; ".join(sign.told for sign in given)
    held = _held_back(earlier, settings, under_way=under_way, now=now)
    return Choice(False, f"{held}; else: {told}") if held else Choice(True, told)


def _held_back(
    earlier: Sequence[datetime], settings: Trigger, *, under_way: bool, now: datetime
) -> str | None:
    if under_way:
        return "a turn is under way"
    earlier = [one for one in earlier if one <= now]  # else the clock was set back since
    rested = timedelta(hours=settings.cooldown_hours)
    if earlier and now - max(earlier) < rested:
        return f"the last turn started {max(earlier):%Y-%m-%d %H:%M}, cooldown_hours is not over"
    spent = sum(now - one < MONTH for one in earlier)
    if spent >= settings.turns_a_month:
        return f"{spent} turns in 30 days, turns_a_month is {settings.turns_a_month}"
    return None
