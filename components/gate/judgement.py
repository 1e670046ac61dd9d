"""The gate's judgement: outcome with reasons, all comparisons, all slices."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from components.scorecard import HOLDOUT

Outcome: TypeAlias = Literal["pass", "fail", "inconclusive"]
Role: TypeAlias = Literal["target", "guard"]


@dataclass(frozen=True, slots=True)
class RoundingNoise:
    """What rounding in 16 bits may have decided: both models answered twice, in other batches.

    ``challenger_changed`` and ``opponent_changed`` count the requests whose score changed. The
    other figures are ``Comparison``'s with the worse of the challenger's two scores of each request
    and the better of the opponent's.
    """

    challenger_changed: int
    opponent_changed: int
    challenger: float
    difference: float
    wins: int
    losses: int
    p_value: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric of one task, challenger against opponent, on the requests that measured it.

    A positive ``difference`` is the challenger's lead, also if a lower score is better. Its
    interval from ``low`` to ``high`` is wrong on either side with the chance ``tail``.
    ``opponent`` is the mean of the fixed model ``anchor`` if there is one. ``margin`` is a
    guard's, 0 for a target.

    ``p_value`` is one-sided, against "not ahead" (target) or "behind by ``margin``" (guard);
    ``p_worse`` against the contrary, corrected for the other comparisons. ``detectable`` is the
    least lead that this many requests show with a chance of 80 %, ``None`` if not even 1 is.
    ``needed`` further requests would decide with that chance; ``None`` if decided, or if no
    realistic number would.

    ``begun`` is the number of the look that decided. If it is an earlier look, its bets went on
    with the requests added since, at that look's level ``begun_alpha``; 0 is this look's own test.

    With ``by_traffic`` each request counts as often as it was asked (``TrafficScores``); the
    scores are means by these weights.

    ``noise`` is ``None`` where answers don't depend on their batch. What is shown must be shown in
    spite of it, too.
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
    noise: RoundingNoise | None = None
    by_traffic: bool = False

    @property
    def deciding_p_value(self) -> float:
        """The p-value that decided: in spite of the noise, if there is any."""
        return self.p_value if self.noise is None else max(self.p_value, self.noise.p_value)

    @property
    def name(self) -> str:
        """The metric's displayed name."""
        figure = self.metric if self.task == HOLDOUT else f"{self.metric} on {self.task}"
        figure += " by traffic" if self.by_traffic else ""
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
        target = self.target
        if self.outcome != "inconclusive" or target is None:
            return None
        undecided = [
            comparison
            for comparison in self.comparisons
            if comparison.task == target.task
            and comparison.outcome == "inconclusive"
            and not comparison.by_traffic  # more requests differ in how often they are asked
        ]
        needed = [c.needed / (c.n / target.n) for c in undecided if c.needed is not None]
        return round(max(needed)) if needed and len(needed) == len(undecided) else None


def to_json(judgement: Judgement) -> dict[str, Any]:
    """Return a judgement as JSON, without ``noise`` and ``by_traffic`` where they say nothing."""
    value = asdict(judgement)
    for comparison in value["comparisons"]:
        for name in ("noise", "by_traffic"):
            if not comparison[name]:
                del comparison[name]
    return value


def from_json(value: Mapping[str, Any]) -> Judgement:
    """Parse a judgement written by ``to_json``."""
    terms: dict[str, Any] | None = value.get("terms")
    if terms is not None:
        terms = {**terms, "others": tuple(terms["others"]), "changes": tuple(terms["changes"])}
    nested: dict[str, Any] = {
        "reasons": tuple(value["reasons"]),
        "comparisons": tuple(map(_comparison, value["comparisons"])),
        "slices": tuple(Slice(**fields) for fields in value["slices"]),
        "terms": None if terms is None else Terms(**terms),
    }
    return Judgement(**{**value, **nested})


def _comparison(fields: Mapping[str, Any]) -> Comparison:
    noise: dict[str, Any] | None = fields.get("noise")
    nested: dict[str, Any] = {"noise": None if noise is None else RoundingNoise(**noise)}
    return Comparison(**{**fields, **nested})
