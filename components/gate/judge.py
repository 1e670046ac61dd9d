"""Judge a challenger against an opponent: pass, fail or inconclusive, with reasons."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from components.gate import comparison, power, significance
from components.gate.comparability import Anchor, Measured, objections
from components.gate.comparison import Compared, EarlierUse
from components.gate.judgement import Comparison, Judgement, Outcome, Slice
from components.gate.policy import Policy
from components.scorecard import CLUSTER_CAP, HOLDOUT, Scorecard


def no_look_left(look: int, policy: Policy) -> str:
    """Say that the holdout has judged as many challengers as were planned, or as alpha allows."""
    if policy.looks is None or look <= policy.looks:
        return (
            f"no look is left: this is the {_nth(look)} look at this holdout, and those before it "
            "were given all of the alpha that was sealed; let the holdout double"
        )
    return (
        f"no look is left: this is the {_nth(look)} challenger that this holdout judges and the "
        f"policy plans for {policy.looks}; let the holdout double, or plan for more from the start"
    )


def below_floor(target: Comparison, policy: Policy) -> list[str]:
    """Say that the challenger scores too little, whatever the opponent does."""
    if target.challenger >= policy.floor:
        return []
    return [
        f"below the floor: {target.name} is {target.challenger:.3f}, "
        f"the policy asks for {policy.floor:g}"
    ]


def failed(one: Comparison, policy: Policy) -> str:
    """Say that a target did not get better, or that a guard got worse by more than its margin."""
    if one.role == "guard":
        return (
            f"worse on {one.name}: {_lead(one)}, and the policy allows {_points(one.margin)} "
            f"(p = {one.p_worse:.3g}, corrected for the other comparisons)"
        )
    worse = "worse" if one.p_worse <= policy.alpha else "no better"
    return f"{worse}: {_flips(one)} ({one.test}, one-sided p = {one.p_value:.3g})"


def open_still(one: Comparison, look: int) -> str:
    """Say that a comparison can't be decided yet, and what would decide it."""
    if one.role == "guard":
        head = (
            f"not shown to be no worse on {one.name}: {_lead(one)}, and the policy allows "
            f"{_points(one.margin)}"
        )
    else:
        head = f"too close to tell: {_flips(one)} ({_against(one, look, 'above')})"
    return f"{head}; {_forecast(one)}"


def passed(one: Comparison, look: int) -> str:
    """Say what was shown."""
    carried = (
        f"{one.test} that began at look {one.begun} and were carried on over the requests added "
        f"since, at the {one.begun_alpha:.3g} that look {one.begun} spent"
    )
    if one.role == "guard":
        return (
            f"no worse on {one.name}: {_lead(one)}, within the {_points(one.margin)} that the "
            f"policy allows{f' ({carried})' if one.begun else ''}"
        )
    return f"better: {_flips(one)} ({carried if one.begun else _against(one, look, 'at most')})"


def too_few(task: str, n: int, policy: Policy) -> str:
    """Say that a task is too small to stand for anything."""
    where = "the holdout" if task == HOLDOUT else task
    return (
        f"too few requests: {where} has {n}, the policy asks for {policy.min_documents}; "
        f"{policy.min_documents - n} more are needed"
    )


def capping(cap: int, remaining: int, clusters: int, largest: int) -> str:
    """Say that the largest cluster costs the power, and which setting would win it back."""
    return (
        f"what costs the power is that one cluster can have {largest} requests: with "
        f"holdout_per_cluster: {cap} under curate {remaining} requests of the {clusters} clusters "
        "that there are would decide with a chance of 80 %, if both keep their rates on them; "
        "that is another holdout, and another look"
    )


def vetoed(part: Slice) -> str:
    """Say that a slice got worse on which the policy insists."""
    return f"worse on a slice that may veto: {_part(part)}"


def warned(part: Slice) -> str:
    """Say that a slice got worse, without any consequence."""
    return f"look at a slice that got worse: {_part(part)}"


def _part(part: Slice) -> str:
    return (
        f"{part.name} {part.value}: better on {part.wins} requests, worse on {part.losses}, "
        f"of {part.n}{_in_clusters(part)} (p = {part.p_worse:.3g}, corrected for all slices)"
    )


def _in_clusters(part: Slice) -> str:
    return "" if part.clusters is None else f" in {part.clusters} clusters"


def _flips(one: Comparison) -> str:
    return (
        f"{one.name} {_signed(one.difference)} points, better on {one.wins} requests, "
        f"worse on {one.losses}, of {one.n} in {one.clusters} clusters"
    )


def _against(one: Comparison, look: int, relation: str) -> str:
    seen = "" if look == 1 else f", the share of look {look} at this holdout"
    return f"{one.test}, one-sided p = {one.p_value:.3g}, {relation} {one.tail:.3g}{seen}"


def _lead(one: Comparison) -> str:
    return (
        f"{_signed(one.difference)} points on {one.n} requests in {one.clusters} clusters "
        f"({100 - 200 * one.tail:.4g} % interval {_signed(one.low)} to {_signed(one.high)})"
    )


def _forecast(one: Comparison) -> str:
    if one.needed is None:
        return "no number of further requests is in sight that would decide"
    return (
        f"about {one.needed} more requests would decide with a chance of 80 %, "
        "if both keep their rates"
    )


def _signed(share: float) -> str:
    return f"{100 * share:+.1f}"


def _points(share: float) -> str:
    return f"{100 * share:g} points"


def _nth(number: int) -> str:
    endings = {1: "st", 2: "nd", 3: "rd"}
    teens = 10 <= number % 100 <= 20
    return f"{number}{'th' if teens else endings.get(number % 10, 'th')}"


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
    earlier: Sequence[EarlierUse] = (),
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
        return Judgement("fail", (no_look_left(look, policy),), policy.metric, look)
    asked = _asked(challenger, opponent, policy, anchor)
    comparisons = _compared(asked, policy, alpha, later, _alike(earlier, challenger[policy.task]))
    parts = comparison.compare_slices(asked[0].figure, alpha=policy.alpha, tail=alpha)
    faults = [
        *below_floor(comparisons[0], policy),
        *[failed(one, policy) for one in comparisons if one.outcome == "fail"],
        *[vetoed(part) for part in parts if part.is_worse and _vetoes(part, policy)],
    ]
    doubts = [
        *_too_few(challenger, policy),
        *[open_still(one, look) for one in comparisons if one.outcome == "inconclusive"],
    ]
    doubts += [] if faults else _capping(asked, comparisons, policy, later)
    outcome: Outcome = "fail" if faults else "inconclusive" if doubts else "pass"
    shown = [
        *[passed(one, look) for one in comparisons],
        *[warned(part) for part in parts if part.is_worse],
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


def _alike(earlier: Sequence[EarlierUse], challenger: Scorecard) -> Sequence[EarlierUse]:
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
    return [capping(*cap, clusters, largest)]


def _asked(
    challenger: Measured, opponent: Measured, policy: Policy, anchor: Anchor | None
) -> list[_Asked]:
    """Pair the scores of the target, of every guard, and of every guard with the anchor's.

    Where the opponent is the anchor, the smaller one of a guard's two margins holds.
    """

    def paired(other: Measured, task: str, metric: str, margin: float | None) -> Compared:
        return comparison.pair_scores(challenger[task], other[task], metric, margin)

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
    earlier: Sequence[EarlierUse],
) -> tuple[Comparison, ...]:
    corrected = significance.holm([comparison.worse(one.figure, policy.alpha) for one in asked])
    return tuple(
        replace(
            comparison.compare(
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
        shares = [
            significance.allowance(policy.alpha, one, policy.looks) for one in (look, look + 1)
        ]
        return shares[0], shares[1] or shares[0]
    alpha = significance.alpha_share(left, look, policy.looks)
    return alpha, significance.alpha_share(left - alpha, look + 1, policy.looks) or alpha


def _too_few(challenger: Measured, policy: Policy) -> list[str]:
    tasks = dict.fromkeys([policy.task, *(guard.task for guard in policy.guarding())])
    sizes = {task: len(challenger[task].samples) for task in tasks}
    return [too_few(task, n, policy) for task, n in sizes.items() if n < policy.min_documents]


def _vetoes(part: Slice, policy: Policy) -> bool:
    return part.name in policy.veto_slices
