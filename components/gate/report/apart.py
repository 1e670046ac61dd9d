"""Find the requests on which one of two models did better than the other."""

from components.gate.report.case import Case
from components.scorecard import HOLDOUT, Difference, Scorecard


def differing(case: Case) -> tuple[list[Difference], list[Difference]]:
    """Return the held-out requests of a case that ``apart`` finds; empty if it was not compared."""
    ours, theirs = case.challenger.get(HOLDOUT), case.opponent.get(HOLDOUT)
    if ours is None or theirs is None or case.judgement.metric not in ours.metrics:
        return [], []
    return apart(ours, theirs, case.judgement.metric)


def apart(
    challenger: Scorecard, opponent: Scorecard, metric: str
) -> tuple[list[Difference], list[Difference]]:
    """Return the requests that the challenger did worse on, and those that it did better on.

    Their order is by the hash of the request: the same each time, and in favour of nobody. What one
    of the two was not asked, or not scored on, is neither.
    """
    sign = 1 if challenger.metrics[metric].higher_is_better else -1
    others = {sample.doc_hash: sample for sample in opponent.samples}
    lost: list[Difference] = []
    won: list[Difference] = []
    for ours in sorted(challenger.samples, key=lambda one: one.doc_hash):
        theirs = others.get(ours.doc_hash)
        mine, other = ours.scores.get(metric), theirs.scores.get(metric) if theirs else None
        if theirs is None or mine is None or other is None or mine == other:
            continue
        (won if sign * mine > sign * other else lost).append(Difference(ours, theirs))
    return lost, won


def by_turns(lost: list[Difference], won: list[Difference], count: int) -> list[Difference]:
    """Take from both by turns, a lost one first: whoever decides should see both."""
    shorter = min(len(lost), len(won))
    turns = [one for both in zip(lost, won, strict=False) for one in both]
    return [*turns, *lost[shorter:], *won[shorter:]][:count]
