"""Judge a challenger against an opponent: pass, fail or inconclusive, with its reasons.

It fails closed: what is not comparable, not measured or not a score never passes. A fault outweighs
a doubt, and a doubt outweighs a pass.

To pass, the target must be shown to be better *and* every guard to be within its margin. Where all
must hold, each may be tested at the full level, and the whole still is at that level (the
intersection-union test: Berger 1982, Technometrics 24:295). To fail for having got worse, *one* is
enough; so these claims are corrected for each other (Holm 1979).
"""

from components.gate import compare, holm, slices, spending, wording
from components.gate.comparable import Measured, objections
from components.gate.compare import Compared
from components.gate.judgement import Comparison, Judgement, Outcome, Slice
from components.gate.policy import Policy


def refuse(challenger: Measured, opponent: Measured, policy: Policy) -> Judgement | None:
    """Fail what can't be compared or was not measured; nothing is looked at, and no look spent."""
    refusals = objections(challenger, opponent, policy)
    return Judgement("fail", tuple(refusals), policy.metric) if refusals else None


def judge(challenger: Measured, opponent: Measured, policy: Policy, look: int = 1) -> Judgement:
    """Compare two models' scorecards request by request and hold them to the policy.

    Args:
        challenger: The challenger's scorecards by task.
        opponent: The opponent's.
        policy: What must be shown.
        look: The how-manieth challenger it is that this holdout judges (``ledger.number_look``).
    """
    alpha = spending.allowance(policy.alpha, look, policy.looks)
    if refused := refuse(challenger, opponent, policy):
        return refused
    if alpha == 0:
        return Judgement("fail", (wording.no_look_left(look, policy),), policy.metric, look)
    asked = _asked(challenger, opponent, policy)
    comparisons = _compared(asked, policy, look, alpha)
    parts = slices.compare(asked[0], alpha=policy.alpha, tail=alpha)
    faults = [
        *wording.below_floor(comparisons[0], policy),
        *[wording.failed(one, policy) for one in comparisons if one.outcome == "fail"],
        *[wording.vetoed(part) for part in parts if part.is_worse and _vetoes(part, policy)],
    ]
    doubts = [
        *_too_few(challenger, policy),
        *[wording.open_still(one, look) for one in comparisons if one.outcome == "inconclusive"],
    ]
    outcome: Outcome = "fail" if faults else "inconclusive" if doubts else "pass"
    shown = [
        *[wording.passed(one, look) for one in comparisons],
        *[wording.warned(part) for part in parts if part.is_worse],
    ]
    return Judgement(
        outcome=outcome,
        reasons=(*faults, *doubts) or tuple(shown),
        metric=policy.metric,
        look=look,
        alpha=alpha,
        comparisons=comparisons,
        slices=parts,
    )


def _asked(challenger: Measured, opponent: Measured, policy: Policy) -> list[Compared]:
    """Pair the scores of the target, and then of every guard."""
    figures = [
        (policy.task, policy.metric, None),
        *[(guard.task, guard.metric, guard.margin) for guard in policy.guarding()],
    ]
    return [
        compare.pair(challenger[task], opponent[task], metric, margin)
        for task, metric, margin in figures
    ]


def _compared(
    asked: list[Compared], policy: Policy, look: int, alpha: float
) -> tuple[Comparison, ...]:
    later = spending.allowance(policy.alpha, look + 1, policy.looks) or alpha
    corrected = holm.adjusted([compare.worse(one) for one in asked])
    return tuple(
        compare.compare(one, p_worse, alpha=alpha, later=later, worst=policy.alpha)
        for one, p_worse in zip(asked, corrected, strict=True)
    )


def _too_few(challenger: Measured, policy: Policy) -> list[str]:
    tasks = dict.fromkeys([policy.task, *(guard.task for guard in policy.guarding())])
    sizes = {task: len(challenger[task].samples) for task in tasks}
    return [
        wording.too_few(task, n, policy) for task, n in sizes.items() if n < policy.min_documents
    ]


def _vetoes(part: Slice, policy: Policy) -> bool:
    return part.name in policy.veto_slices
