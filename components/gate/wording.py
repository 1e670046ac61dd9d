"""The sentences of a judgement: what was found, beside what the policy asks for."""

from components.gate.judgement import Comparison, Slice
from components.gate.policy import Policy
from components.scorecard import HOLDOUT


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
