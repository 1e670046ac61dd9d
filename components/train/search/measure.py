"""Say what candidates are compared by: the target metric on the validation side, or the loss there.

The metric is what the gate will judge by. The loss stands in for it where too few rows measure it,
and says nothing of settings that move the decision whether to call.
"""

from collections.abc import Collection

from components.schema import Config
from components.train.recipe import OF_EXAMPLES

FEWEST = 20
"""Validation rows that measure the target: with fewer, one request is more than five points."""

ONLY_BY_METRIC = frozenset(OF_EXAMPLES)
"""Settings whose worth the loss does not show: they weigh tokens or rows against one another."""


class MeasureError(ValueError):
    """What is tried can't be compared on the rows that there are."""


class Measure(Config):
    """The metric that candidates are compared by; without one it is the loss, and ``why`` says why.

    ``rows`` are those of the validation side that measure it.
    """

    metric: str | None = None
    higher_is_better: bool = True
    rows: int = 0
    why: str = ""

    def lost(self, score: float) -> float:
        """Return what a score lacks, so that lower is better."""
        return -score if self.higher_is_better else score


def choose(
    metric: str | None, rows: int, tried: Collection[str], *, higher_is_better: bool
) -> Measure:
    """Choose the measure.

    Args:
        metric: The target; ``None`` where the validation side does not measure it.
        rows: How many validation rows measure it.
        tried: The settings that the search tries.
        higher_is_better: Which way the metric is better.

    Raises:
        MeasureError: Only the metric would show what is tried, and too few rows measure it.
    """
    if metric is not None and rows >= FEWEST:
        return Measure(metric=metric, higher_is_better=higher_is_better, rows=rows)
    why = (
        "the target is not measured on the workload's own requests"
        if metric is None
        else f"{rows} validation rows measure {metric}, and it wants {FEWEST}"
    )
    if hidden := sorted(ONLY_BY_METRIC.intersection(tried)):
        raise MeasureError(
            f"searching over {', '.join(hidden)}: {why}, and the loss does not show what these "
            "settings are worth; raise validation_share under curate, curate more traffic, or "
            "leave them out of over"
        )
    return Measure(rows=rows, why=why)
