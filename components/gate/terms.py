"""The sentences on what a look was taken under: which policy was sealed, and what was changed."""

from components.gate.judgement import Judgement, Terms


def sentences(judgement: Judgement) -> list[str]:
    """Say what was changed since the policy was sealed, and how often the holdout was looked at."""
    terms = judgement.terms
    if terms is None:
        return []
    return [*_changed(terms), _looks(terms)]


def _changed(terms: Terms) -> list[str]:
    if not terms.changes:
        return []
    since = f"first used on {terms.changed_at}" if terms.changed_at else "in no look yet"
    return [
        f"the policy was changed after it was sealed on {terms.sealed_at} (decision "
        f"{terms.decision}), {since}: {'; '.join(terms.changes)}"
    ]


def _looks(terms: Terms) -> str:
    count = {0: "no look", 1: "1 look"}.get(terms.looks, f"{terms.looks} looks")
    others = f" (those of {', '.join(terms.others)} among them)" if terms.others else ""
    return (
        f"a policy was sealed on {terms.sealed_at} (decision {terms.decision}) before the first "
        f"look at holdout version {terms.holdout_version} of {terms.workload}: alpha "
        f"{terms.alpha:g} for all looks, of which {terms.left:.4g} was left for this one; this "
        f"home has seen {count} at this holdout before{others}, and looks of another home are not "
        "known"
    )
