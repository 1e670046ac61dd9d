"""The gate's judgement: outcome with reasons, every comparison, every slice."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from components.scorecard import HOLDOUT

Outcome: TypeAlias = Literal["pass", "fail", "inconclusive"]
Role: TypeAlias = Literal["target", "guard"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric of one task, challenger against opponent, on the requests that measured it.

    ``difference`` is the challenger's lead: positive is better, also where a lower score is. It has
    the interval from ``low`` to ``high``, wrong with a chance of ``tail`` on either side. ``wins``
    and ``losses`` count the requests where one did better than the other. ``p_value`` is against
    "not ahead" of a target and "behind by ``margin``" of a guard, ``p_worse`` against the contrary,
    corrected for the other comparisons; both are one-sided. ``detectable`` is the lead that this
    many requests show with a chance of 80 % (``None``: not even the largest), ``needed`` the
    further requests that would decide with that chance (``None``: no number is in sight, or it is
    decided). ``anchor`` names what a guard is held against where that is not the opponent; then
    ``opponent`` is the anchor's score. ``begun`` is the earlier look at the same challenger whose
    bets, carried on over what was added since, decided at the level ``begun_alpha`` of that look; 0
    where this look's own test did.
    """

    task: str
    metric: str
    role: Role
    outcome: Outcome
    n: int
    clusters: int
    challenger: float
    opponent: float
    difference: float
    low: float
    high: float
    tail: float
    wins: int
    losses: int
    margin: float
    test: str
    p_value: float
    p_worse: float
    detectable: float | None
    needed: int | None
    anchor: str = ""
    begun: int = 0
    begun_alpha: float = 0.0

    @property
    def name(self) -> str:
        """What it is about, in a reader's words."""
        figure = self.metric if self.task == HOLDOUT else f"{self.metric} on {self.task}"
        return f"{figure} since the {self.anchor}" if self.anchor else figure


@dataclass(frozen=True, slots=True)
class Slice:
    """The target metric on one part of the traffic, such as the client ``app``.

    ``p_worse`` is against "not behind" there, one-sided, corrected for all slices (Holm).
    """

    name: str
    value: str
    n: int
    wins: int
    losses: int
    difference: float
    low: float
    high: float
    p_worse: float
    is_worse: bool
    clusters: int | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """What a look was taken under: the policy that was sealed, and what was changed since.

    ``decision`` is where the seal stands in the chain of decisions, made for ``workload`` and its
    ``holdout_version``, with ``alpha`` for all looks; ``looks`` before this one have ``left`` that
    much of it, those of the workloads ``others`` among them. ``changes`` is empty while the policy
    is the sealed one; ``changed_at`` is when the first look under the changed one was taken.
    """

    decision: int
    sealed_at: str
    workload: str
    holdout_version: str
    alpha: float
    looks: int
    left: float
    others: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    changed_at: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the gate made of a challenger.

    ``look`` is the how-manieth challenger this holdout judged, and ``alpha`` what that look may
    spend, under which ``terms``. ``comparisons`` begin with the target. Where nothing could be
    compared there are none, and the look is 0.
    """

    outcome: Outcome
    reasons: tuple[str, ...]
    metric: str
    look: int = 0
    alpha: float = 0.0
    comparisons: tuple[Comparison, ...] = ()
    slices: tuple[Slice, ...] = ()
    terms: Terms | None = None

    @property
    def target(self) -> Comparison | None:
        """The comparison of what was to get better; ``None`` where nothing could be compared."""
        return self.comparisons[0] if self.comparisons else None

    @property
    def more_needed(self) -> int | None:
        """The further requests of the target's task that would decide what is still open.

        ``None`` where it isn't open, or no number is in sight.
        """
        if self.outcome != "inconclusive" or self.target is None:
            return None
        share = {one: one.n / self.target.n for one in self._open()}
        needed = [None if one.needed is None else one.needed / share[one] for one in self._open()]
        known = [number for number in needed if number is not None]
        return None if len(known) < len(needed) or not known else round(max(known))

    def _open(self) -> list[Comparison]:
        return [
            one
            for one in self.comparisons
            if one.task == self.comparisons[0].task and one.outcome == "inconclusive"
        ]


def from_json(value: Mapping[str, Any]) -> Judgement:
    """Read back what ``dataclasses.asdict`` made of a judgement and JSON kept."""
    nested: dict[str, Any] = {
        "reasons": tuple(value["reasons"]),
        "comparisons": tuple(Comparison(**one) for one in value["comparisons"]),
        "slices": tuple(Slice(**one) for one in value["slices"]),
        "terms": _terms(value.get("terms")),
    }
    return Judgement(**{**value, **nested})


def _terms(value: Mapping[str, Any] | None) -> Terms | None:
    if value is None:
        return None
    told: dict[str, Any] = {
        **value,
        "others": tuple(value["others"]),
        "changes": tuple(value["changes"]),
    }
    return Terms(**told)
