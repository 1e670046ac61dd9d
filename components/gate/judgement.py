"""The gate's judgement: outcome with reasons, all comparisons, all slices."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from components.scorecard import HOLDOUT

Outcome: TypeAlias = Literal["pass", "fail", "inconclusive"]
Role: TypeAlias = Literal["target", "guard"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric of one task, challenger against opponent, on the requests that measured it.

    Attributes:
        task: The task.
        metric: The metric.
        role: Target or guard.
        outcome: The outcome of this comparison alone.
        n: Requests.
        clusters: Clusters of the requests.
        challenger: The challenger's mean score.
        opponent: The opponent's, or the anchor's if there is an ``anchor``.
        difference: The challenger's lead; positive is better, also if a lower score is better.
        low: Lower end of the lead's interval.
        high: Upper end.
        tail: The chance that the interval is wrong on either side.
        wins: Requests on which the challenger did better.
        losses: Requests on which it did worse.
        margin: The loss that a guard may have; 0 for a target.
        test: The test's name.
        p_value: One-sided, against "not ahead" (target) or "behind by ``margin``" (guard).
        p_worse: One-sided, against the contrary, corrected for the other comparisons.
        detectable: The lead that this many requests show with a chance of 80 %; ``None`` if not
            even a lead of 1.
        needed: The further requests that would decide with that chance; ``None`` if decided, or if
            no realistic number would.
        anchor: The name of the fixed model that a guard is compared with; empty for the opponent.
        begun: The earlier look whose bets, continued on what was added since, decided; 0 if this
            look's own test did.
        begun_alpha: The level of that look.
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
        """The metric's displayed name."""
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
    """The sealed policy that applies to a look, and what changed since.

    ``decision`` is the seal's index in the chain of decisions; it was sealed for ``workload`` and
    its ``holdout_version``, with ``alpha`` for all looks. The ``looks`` before this one, those of
    the workloads ``others`` included, left ``left`` of it. ``changes`` is empty while the policy is
    the sealed one; ``changed_at`` is when the first look under the changed one was taken.
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
    """The gate's judgement of a challenger.

    ``look`` is the 1-based index of this look at the holdout, ``alpha`` the level of that look
    under ``terms``. ``comparisons`` begin with the target; if the models can't be compared they are
    empty and the look is 0.
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
        """The comparison of the target metric; ``None`` if the models can't be compared."""
        return self.comparisons[0] if self.comparisons else None

    @property
    def more_needed(self) -> int | None:
        """The further requests of the target's task that would decide all open comparisons.

        ``None`` if the judgement isn't open, or no realistic number would decide.
        """
        if self.outcome != "inconclusive" or self.target is None:
            return None
        share = {comparison: comparison.n / self.target.n for comparison in self._open()}
        needed = [
            None if comparison.needed is None else comparison.needed / share[comparison]
            for comparison in self._open()
        ]
        known = [number for number in needed if number is not None]
        return None if len(known) < len(needed) or not known else round(max(known))

    def _open(self) -> list[Comparison]:
        return [
            comparison
            for comparison in self.comparisons
            if comparison.task == self.comparisons[0].task and comparison.outcome == "inconclusive"
        ]


def from_json(value: Mapping[str, Any]) -> Judgement:
    """Parse a judgement written by ``dataclasses.asdict`` as JSON."""
    nested: dict[str, Any] = {
        "reasons": tuple(value["reasons"]),
        "comparisons": tuple(Comparison(**fields) for fields in value["comparisons"]),
        "slices": tuple(Slice(**fields) for fields in value["slices"]),
        "terms": _terms(value.get("terms")),
    }
    return Judgement(**{**value, **nested})


def _terms(value: Mapping[str, Any] | None) -> Terms | None:
    if value is None:
        return None
    fields: dict[str, Any] = {
        **value,
        "others": tuple(value["others"]),
        "changes": tuple(value["changes"]),
    }
    return Terms(**fields)
