"""Judge a challenger against an opponent: pass, fail or inconclusive, with reasons."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from components.gate import comparison, significance
from components.gate.comparability import Anchor, Measured, objections
from components.gate.comparison import Compared, EarlierUse, OneClientsLead
from components.gate.judgement import Comparison, Judgement, Outcome, RoundingNoise, Slice
from components.gate.policy import Policy
from components.schema import Json
from components.scorecard import HOLDOUT, LARGEST_CLUSTER, Scorecard


def _no_look_left(look: int, policy: Policy) -> str:
    if policy.looks is None or look <= policy.looks:
        return (
            f"no look is left: this is the {_nth(look)} look at this holdout, and those before it "
            "used all of the sealed alpha; let the holdout double"
        )
    return (
        f"no look is left: this is the {_nth(look)} challenger judged on this holdout and the "
        f"policy plans for {policy.looks}; let the holdout double, or plan for more from the start"
    )


def _below_floor(target: Comparison, policy: Policy) -> list[str]:
    noise = target.noise
    score = target.challenger if noise is None else min(target.challenger, noise.challenger)
    if score >= policy.floor:
        return []
    measured = "" if score == target.challenger else " by the worse of two answers to each request"
    return [
        f"below the floor: {target.name} is {score:.3f}{measured}, "
        f"the policy requires {policy.floor:g}"
    ]


def _failed(result: Comparison, policy: Policy) -> str:
    if result.role == "guard":
        return (
            f"worse on {result.name}: {_lead(result)}, and the policy allows "
            f"{_points(result.margin)} "
            f"(p = {result.p_worse:.3g}, corrected for the other comparisons)"
        )
    worse = "worse" if result.p_worse <= policy.alpha else "no better"
    return f"{worse}: {_flips(result)} ({result.test}, one-sided p = {result.p_value:.3g})"


def _undecided(result: Comparison, look: int) -> str:
    noise = result.noise
    if noise is not None and result.p_value <= result.tail < noise.p_value:
        lead = _lead(result) if result.role == "guard" else _flips(result)
        head = f"not shown in spite of rounding: {lead}; {_in_other_batches(result, noise)}"
    elif result.role == "guard":
        head = (
            f"not shown to be no worse on {result.name}: {_lead(result)}, and the policy allows "
            f"{_points(result.margin)}"
        )
    else:
        head = f"too close to tell: {_flips(result)} ({_against(result, look, 'above')})"
    return f"{head}; {_forecast(result)}"


def _passed(result: Comparison, look: int) -> str:
    continued = (
        f"{result.test} that began at look {result.begun} and continued over the requests added "
        f"since, at that look's {result.begun_alpha:.3g}"
    )
    noise = result.noise
    twice = "" if noise is None else f"; {_in_other_batches(result, noise)}"
    if result.role == "guard":
        return (
            f"no worse on {result.name}: {_lead(result)}, within the {_points(result.margin)} that "
            f"the policy allows{f' ({continued})' if result.begun else ''}{twice}"
        )
    test = continued if result.begun else _against(result, look, "at most")
    return f"better: {_flips(result)} ({test}){twice}"


def _in_other_batches(result: Comparison, noise: RoundingNoise) -> str:
    test = "" if result.begun else f" (p = {noise.p_value:.3g}, {result.tail:.3g} is required)"
    return (
        f"asked again in other batches, which round otherwise, the scores of "
        f"{noise.challenger_changed} requests changed for the challenger and of "
        f"{noise.opponent_changed} for the {result.anchor or 'opponent'}; with the worse of the "
        f"challenger's scores and the better of the other's, {_signed(noise.difference)} points, "
        f"better on {noise.wins} requests, worse on {noise.losses}{test}"
    )


def _one_clients(lead: OneClientsLead) -> str:
    return (
        f"the lead is one client's: without the {lead.requests} requests of client {lead.client} "
        f"the challenger is better on {lead.rest.wins} requests and worse on {lead.rest.losses}, "
        f"of {lead.rest.n} (one-sided p of being behind = {lead.p_worse:.3g}, above "
        f"{comparison.DOUBT:g} is required); look at that client's requests and references"
    )


def _worse_part(part: Slice) -> str:
    clusters = "" if part.clusters is None else f" in {part.clusters} clusters"
    return (
        f"{part.name} {part.value}: better on {part.wins} requests, worse on {part.losses}, "
        f"of {part.n}{clusters} (p = {part.p_worse:.3g}, corrected for all slices)"
    )


def _flips(result: Comparison) -> str:
    return (
        f"{result.name} {_signed(result.difference)} points, better on {result.wins} requests, "
        f"worse on {result.losses}, of {result.n} in {result.clusters} clusters"
    )


def _against(result: Comparison, look: int, relation: str) -> str:
    seen = "" if look == 1 else f", the share of look {look} at this holdout"
    return f"{result.test}, one-sided p = {result.p_value:.3g}, {relation} {result.tail:.3g}{seen}"


def _lead(result: Comparison) -> str:
    counted = ", each counting as often as it was asked" if result.by_traffic else ""
    return (
        f"{_signed(result.difference)} points on {result.n} requests in {result.clusters} clusters"
        f"{counted} ({100 - 200 * result.tail:.4g} % interval {_signed(result.low)} to "
        f"{_signed(result.high)})"
    )


def _forecast(result: Comparison) -> str:
    if result.by_traffic:
        return "look at the requests that are asked most and were lost"
    if result.needed is None:
        return "no realistic number of further requests would decide"
    return (
        f"about {result.needed} more requests would decide with a chance of 80 %, "
        "if both models' rates hold"
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
class _PairedFigure:
    """One figure, compared with the model named ``anchor``, or with the opponent if it is empty."""

    figure: Compared
    anchor: str = ""


def refuse(
    challenger: Measured, opponent: Measured, policy: Policy, anchor: Anchor | None = None
) -> Judgement | None:
    """Return a failing judgement if the models can't be compared, which spends no look."""
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
    """Compare two models' scorecards request by request and judge them by the policy.

    It fails closed: what is not comparable, not measured or not a valid score never passes. A
    failure outweighs an open comparison, which outweighs a pass. To pass, the target must be
    better and every guard within its margin, each at the full level (intersection-union test:
    Berger 1982, Technometrics 24:295). One claim of being worse is enough to fail, so these are
    corrected for each other (Holm 1979).

    ``look`` is the 1-based index of this look at the holdout (``Policy.looks``), ``left`` the
    alpha that earlier looks left; ``None`` if all of them were under this policy. Guards are
    also compared with ``anchor``, a fixed model other than the opponent. ``earlier`` are all
    earlier looks at this challenger and opponent on this holdout under this policy, whose bets
    are continued over the requests added since.
    """
    alpha, later = _shares(policy, look, left)
    if refusal := refuse(challenger, opponent, policy, anchor):
        return refusal
    if alpha == 0:
        return Judgement("fail", (_no_look_left(look, policy),), policy.metric, look)
    figures = _paired_figures(challenger, opponent, policy, anchor)
    comparisons = _compare_figures(
        figures,
        policy,
        alpha,
        later,
        _measured_alike(earlier, challenger[policy.task]),
        challenger[policy.task].asked,
    )
    slices = comparison.compare_slices(figures[0].figure, alpha=policy.alpha, tail=alpha)
    faults = [
        *_below_floor(comparisons[0], policy),
        *[_failed(result, policy) for result in comparisons if result.outcome == "fail"],
    ]
    doubts = [
        *_too_few(challenger, policy),
        *[_undecided(result, look) for result in comparisons if result.outcome == "inconclusive"],
        *[_one_clients(lead) for lead in comparison.leads_of_one_client(figures[0].figure)],
    ]
    notes = _notes(challenger[policy.task])
    theirs = [note for note in _notes(opponent[policy.task]) if note not in notes]
    notes += [f"for the opponent, {note}" for note in theirs]
    outcome: Outcome = "fail" if faults else "inconclusive" if doubts else "pass"
    shown = [
        *[_passed(result, look) for result in comparisons],
        *[
            f"look at a slice that got worse: {_worse_part(part)}"
            for part in slices
            if part.is_worse
        ],
    ]
    return Judgement(
        outcome=outcome,
        reasons=(*((*faults, *doubts) or shown), *notes),
        metric=policy.metric,
        look=look,
        alpha=alpha,
        comparisons=comparisons,
        slices=slices,
    )


def _notes(card: Scorecard) -> list[str]:
    """Return what is to be known of a model's answers, whatever their scores are."""
    return [
        *(card.window.sentences if card.window else ()),
        *(card.constrained.sentences if card.constrained else ()),
    ]


GROWING = frozenset(
    {"holdout_version", "clusters", LARGEST_CLUSTER, "pairs", "rows", "compared_by_people"}
)
"""The conditions that change as a task gets more requests; other ones change what is measured."""


def _measured_alike(earlier: Sequence[EarlierUse], challenger: Scorecard) -> Sequence[EarlierUse]:
    # Bets go on only if all looks measured the same: answers under other settings, or requests of
    # clusters that are capped otherwise, have another mean.
    def measured(card: Scorecard) -> dict[str, Json]:
        return {name: value for name, value in card.conditions.items() if name not in GROWING}

    now = measured(challenger)
    return earlier if all(measured(look.challenger) == now for look in earlier) else ()


def _paired_figures(
    challenger: Measured, opponent: Measured, policy: Policy, anchor: Anchor | None
) -> list[_PairedFigure]:
    """Pair the target's and each guard's scores, and each guard's with the anchor's."""

    def paired(other: Measured, task: str, metric: str, margin: float | None) -> Compared:
        return comparison.pair_scores(challenger[task], other[task], metric, margin)

    figures = [_PairedFigure(paired(opponent, policy.task, policy.metric, None))]
    figures += [
        _PairedFigure(paired(opponent, guard.task, guard.metric, guard.margin))
        for guard in policy.guarding()
    ]
    if anchor:
        figures += [
            _PairedFigure(paired(anchor.cards, guard.task, guard.metric, guard.margin), anchor.name)
            for guard in policy.guarding()
        ]
    return figures


def _compare_figures(
    figures: list[_PairedFigure],
    policy: Policy,
    alpha: float,
    later: float,
    earlier: Sequence[EarlierUse],
    asked: Mapping[str, int],
) -> tuple[Comparison, ...]:
    target, margin = figures[0].figure, policy.traffic_margin
    scores = None if margin is None else comparison.traffic_scores(target, asked)
    worse = [comparison.worse_p_value(paired.figure, policy.alpha) for paired in figures]
    if scores is not None:
        worse.append(scores.evidence(margin or 0.0, policy.alpha, sign=-1))
    corrected = significance.holm(worse)
    compared = [
        replace(
            comparison.compare(
                paired.figure,
                p_worse,
                alpha=alpha,
                later=later,
                worst=policy.alpha,
                earlier=earlier if paired.figure.task == policy.task and not paired.anchor else (),
            ),
            anchor=paired.anchor,
        )
        for paired, p_worse in zip(figures, corrected, strict=False)
    ]
    if scores is not None:
        compared.append(
            comparison.compare_traffic(
                target, scores, margin or 0.0, corrected[-1], alpha=alpha, worst=policy.alpha
            )
        )
    return tuple(compared)


def _shares(policy: Policy, look: int, left: float | None) -> tuple[float, float]:
    """Return the alpha of this look and of the next look (this one's if there is no next)."""
    if left is None:
        shares = [
            significance.allowance(policy.alpha, number, policy.looks)
            for number in (look, look + 1)
        ]
        return shares[0], shares[1] or shares[0]
    alpha = significance.alpha_share(left, look, policy.looks)
    return alpha, significance.alpha_share(left - alpha, look + 1, policy.looks) or alpha


def _too_few(challenger: Measured, policy: Policy) -> list[str]:
    least = policy.min_documents
    sizes = {task: len(card.samples) for task, card in challenger.items()}
    return [
        f"too few requests: {'the holdout' if task == HOLDOUT else task} has {n}, the policy "
        f"requires {least}; {least - n} more are needed"
        for task, n in policy.too_small(sizes).items()
    ]
