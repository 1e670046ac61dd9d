"""Write what a search came to, as a page in Markdown."""

from components.train.search.plan import Plan
from components.train.search.run import Found, Place


def write(workload: str, plan: Plan, found: Found) -> str:
    """Give a table of the candidates, the winner first, and what they took of the budget."""
    rungs, measure = len(plan.sizes), plan.measure
    rows = [
        f"| {one.entry.name} | {one.ending} | {reason(one)} | {one.outcome.rung + 1} of {rungs} "
        f"| {one.outcome.step} of {one.entry.stops[-1]} | {_score(one)} | {_loss(one)} "
        f"| {one.outcome.parameters:,} |"
        for one in found.places
    ]
    return "\n".join(
        [
            f"## {workload}: search among {len(found.places)} candidates",
            "",
            f"{found.spent:,.0f} of {plan.budget:,.0f} {plan.unit}; each training is "
            f"{plan.factor:.1%} of what its recipe says, schedule and all.",
            "",
            f"Compared by {measure.metric} on {measure.rows} validation rows."
            if measure.metric
            else f"Compared by the validation loss: {measure.why or 'as it was planned'}.",
            "",
            f"| candidate | | why | rung | step | {measure.metric or 'metric'} "
            "| validation loss | parameters |",
            "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
            *rows,
            "",
        ]
    )


def reason(place: Place) -> str:
    """Say why, but of a failure only that: its words may show what it was trained on."""
    return "see the log of its job" if place.ending == "failed" else place.why


def _score(place: Place) -> str:
    score = place.outcome.score
    return "not measured" if score is None else f"{score:.4f}"


def _loss(place: Place) -> str:
    loss = place.outcome.validation_loss
    return "none" if loss is None else f"{loss:.4f}"
