"""Write what a search came to, as a page in Markdown."""

from components.pages import jinja
from components.train.search.plan import Plan
from components.train.search.run import Found, Place


def write(workload: str, plan: Plan, found: Found) -> str:
    """Write a table of the candidates, the winner first, and their share of the budget."""
    return jinja.render(
        "train/search/page.md.j2", workload=workload, plan=plan, found=found, reason=reason
    )


def reason(place: Place) -> str:
    """Return the reason of an ending; not of a failure, whose message may show training data."""
    return "see the log of its job" if place.ending == "failed" else place.why
