"""Tell whether people like the champion's answers less than those of before it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from components import warehouse
from components.trigger import martingale
from components.trigger.settings import Trigger
from components.trigger.signs import Sign
from components.warehouse import Connection

MOST = 500
"""So many votes on answers of before are compared with, the newest."""

FEWEST = 20
"""With fewer votes of before nobody knows what was usual."""


@dataclass(frozen=True, slots=True)
class Vote:
    """A thumb on an answer."""

    feedback_id: str
    is_down: bool
    is_new: bool


def look(con: Connection, workload_id: str, since: datetime, settings: Trigger) -> Sign | None:
    """Compare votes on answers from ``since`` on, when the champion came, with those of before.

    ``None`` if these are too few.
    """
    values = {"workload_id": workload_id, "since": since, "most": MOST}
    found = [*warehouse.read(con, "marts/votes_in_order", Vote, **values)]
    return falling(
        [one for one in found if not one.is_new], [v for v in found if v.is_new], settings
    )


def falling(before: Sequence[Vote], new: Sequence[Vote], settings: Trigger) -> Sign | None:
    """Bet on more thumbs down, vote by vote; see ``components.trigger.martingale`` for the bound.

    Returns:
        The highest capital so far beside 1 / alpha, and both shares of thumbs down.
    """
    if len(before) < FEWEST:
        return None
    ranks = martingale.p_values(
        [float(one.is_down) for one in before],
        [float(one.is_down) for one in new],
        [martingale.tie(one.feedback_id) for one in new],
    )
    highest = max(martingale.capital(ranks, "up"), default=1.0)
    told = (
        f"thumbs down {_share(before)} before the champion, {_share(new)} since: capital "
        f"{highest:.3g} of {1 / settings.alpha:.3g}"
    )
    return Sign("votes", highest, 1 / settings.alpha, told)


def _share(votes: Sequence[Vote]) -> str:
    down = sum(one.is_down for one in votes)
    return f"{down} of {len(votes)}"
