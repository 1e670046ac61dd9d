"""Judge a challenger against an opponent: pass, fail or inconclusive, with its reasons.

It fails closed: what is not comparable, not measured or not a score never passes. A fault outweighs
a doubt, and a doubt outweighs a pass.

To pass, the target must be shown to be better *and* every guard to be within its margin. Where all
must hold, each may be tested at the full level, and the whole still is at that level (the
intersection-union test: Berger 1982, Technometrics 24:295). Each guard is held against the opponent
and against an anchor, or small losses would add up from champion to champion. To fail for having
got worse, *one* is enough; so these claims are corrected for each other (Holm 1979).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from components.gate import compare, holm, power, slices, spending, wording
from components.gate.comparable import Anchor, Measured, objections
from components.gate.compare import Compared, Earlier
from components.gate.judgement import Comparison, Judgement, Outcome, Slice
from components.gate.policy import Policy
from components.scorecard import CLUSTER_CAP, HOLDOUT, Scorecard


@dataclass(frozen=True, slots=True)
class _Asked:
    """One figure, compared with the model named ``anchor``, or with the opponent if it is empty."""

    figure: Compared
    anchor: str = ""


def refuse(
    challenger: Measured, opponent: Measured, policy: Policy, anchor: Anchor | None = None
) -> Judgement | None:
    """Fail what can't be compared or was not measured; nothing is looked at, and no look spent."""
    refusals = objections(challenger, opponent, policy, anchor)
    return Judgement("fail", tuple(refusals), policy.metric) if refusals else None


def judge(
    challenger: Measured,
    opponent: Measured,
    policy: Policy,
    look: int = 1,
    *,
    left: float | None = None,
    anchor: Anchor | None = None,
    earlier: Sequence[Earlier] = (),
) -> Judgement:
    """Compare two models' scorecards request by request and hold them to the policy.

    Args:
        challenger: The challenger's scorecards by task.
        opponent: The opponent's.
        policy: What must be shown.
        look: The how-manieth look it is at this holdout (``looks``).
        left: What the looks before it have left of alpha; ``None`` where all of them were under
            this very policy.
        anchor: What guards are held against besides the opponent; ``None`` where that is the
            opponent itself.
        earlier: All earlier looks at this challenger and opponent on this holdout under this
            policy, whose bets are carried on over the requests that were added since.
    """
    alpha, later = _shares(policy, look, left)
    if refused := refuse(challenger, opponent, policy, anchor):
        return refused
    if alpha == 0:
        return Judgement("fail", (wording.no_look_left(look, policy),), policy.metric, look)
    asked = _asked(challenger, opponent, policy, anchor)
    comparisons = _compared(asked, policy, alpha, later, _alike(earlier, challenger[policy.task]))
    parts = slices.compare(asked[0].figure, alpha=policy.alpha, tail=alpha)
    faults = [
        *wording.below_floor(comparisons[0], policy),
        *[wording.failed(one, policy) for one in comparisons if one.outcome == "fail"],
        *[wording.vetoed(part) for part in parts if part.is_worse and _vetoes(part, policy)],
    ]
    doubts = [
        *_too_few(challenger, policy),
        *[wording.open_still(one, look) for one in comparisons if one.outcome == "inconclusive"],
    ]
    doubts += [] if faults else _capping(asked, comparisons, policy, later)
    outcome: Outcome = "fail" if faults else "inconclusive" if doubts else "pass"
    shown = [
        *[wording.passed(one, look) for one in comparisons],
        *[wording.warned(part) for part in parts if part.is_worse],
    ]
    return Judgement(
        outcome=outcome,
        reasons=(*((*faults, *doubts) or shown), *_truncated(challenger[policy.task])),
        metric=policy.metric,
        look=look,
        alpha=alpha,
        comparisons=comparisons,
        slices=parts,
    )


def _truncated(card: Scorecard) -> list[str]:
    return card.window.sentences if card.window else []


def _alike(earlier: Sequence[Earlier], challenger: Scorecard) -> Sequence[Earlier]:
    """Return the earlier looks if all were under today's cap: with another the mean is another."""
    cap = challenger.conditions.get(CLUSTER_CAP)
    alike = all(one.challenger.conditions.get(CLUSTER_CAP) == cap for one in earlier)
    return earlier if alike else ()


def _capping(
    asked: Sequence[_Asked], comparisons: Sequence[Comparison], policy: Policy, alpha: float
) -> list[str]:
    """Name a cap on clusters that would decide what the holdout leaves open."""
    held = [
        (one.figure, found)
        for one, found in zip(asked, comparisons, strict=True)
        if one.figure.task == HOLDOUT
    ]
    if all(found.outcome != "inconclusive" for _, found in held):
        return []
    figures = [(figure.pairs, figure.margin) for figure, _ in held]
    cap = power.deciding_cap(figures, alpha, policy.min_documents)
    if cap is None:
        return []
    clusters = max(len(pairs.sizes) for pairs, _ in figures)
    largest = max(pairs.largest for pairs, _ in figures)
    return [wording.capping(*cap, clusters, largest)]


def _asked(
    challenger: Measured, opponent: Measured, policy: Policy, anchor: Anchor | None
) -> list[_Asked]:
    """Pair the scores of the target, of every guard, and of every guard with the anchor's.

    Where the opponent is the anchor, the smaller one of a guard's two margins holds.
    """

    def paired(other: Measured, task: str, metric: str, margin: float | None) -> Compared:
        return compare.pair(challenger[task], other[task], metric, margin)

    asked = [_Asked(paired(opponent, policy.task, policy.metric, None))]
    for guard in policy.guarding():
        margin = guard.margin if anchor else min(guard.margin, guard.total_margin)
        asked.append(_Asked(paired(opponent, guard.task, guard.metric, margin)))
    if anchor:
        asked += [
            _Asked(paired(anchor.cards, one.task, one.metric, one.total_margin), anchor.name)
            for one in policy.guarding()
        ]
    return asked


def _compared(
    asked: list[_Asked],
    policy: Policy,
    alpha: float,
    later: float,
    earlier: Sequence[Earlier],
) -> tuple[Comparison, ...]:
    corrected = holm.adjusted([compare.worse(one.figure, policy.alpha) for one in asked])
    return tuple(
        replace(
            compare.compare(
                one.figure,
                p_worse,
                alpha=alpha,
                later=later,
                worst=policy.alpha,
                earlier=earlier if one.figure.task == policy.task and not one.anchor else (),
            ),
            anchor=one.anchor,
        )
        for one, p_worse in zip(asked, corrected, strict=True)
    )


def _shares(policy: Policy, look: int, left: float | None) -> tuple[float, float]:
    """Give the alpha of a look, and that of the next one: its own again where none is left."""
    if left is None:
        shares = [spending.allowance(policy.alpha, one, policy.looks) for one in (look, look + 1)]
        return shares[0], shares[1] or shares[0]
    alpha = spending.share(left, look, policy.looks)
    return alpha, spending.share(left - alpha, look + 1, policy.looks) or alpha


def _too_few(challenger: Measured, policy: Policy) -> list[str]:
    tasks = dict.fromkeys([policy.task, *(guard.task for guard in policy.guarding())])
    sizes = {task: len(challenger[task].samples) for task in tasks}
    return [
        wording.too_few(task, n, policy) for task, n in sizes.items() if n < policy.min_documents
    ]


def _vetoes(part: Slice, policy: Policy) -> bool:
    return part.name in policy.veto_slices
