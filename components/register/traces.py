"""Pull an experiment's traces through MLflow's client, in the form that collecting reads."""

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from components.schema import Json

if TYPE_CHECKING:
    from mlflow.entities import Trace

PAGE = 100
"""Traces that are asked for at once."""


def pull(experiment: str, *, since: datetime) -> Iterator[dict[str, Json]]:
    """Go through the traces that began at ``since`` or later, the oldest first.

    Each is the dictionary form of a trace with its spans and assessments (``trace.to_dict()``).

    Raises:
        LookupError: There is no such experiment.
    """
    from mlflow import MlflowClient

    client = MlflowClient()
    found = client.get_experiment_by_name(experiment)
    if found is None:
        raise LookupError(f"pulling MLflow traces: there is no experiment {experiment!r}")
    condition = f"trace.timestamp_ms >= {int(since.timestamp() * 1000)}"
    token: str | None = None
    while True:
        page = client.search_traces(
            locations=[found.experiment_id],
            filter_string=condition,
            order_by=["timestamp_ms ASC"],
            max_results=PAGE,
            page_token=token,
        )
        yield from (_dictionary(trace) for trace in page)
        token = page.token
        if not token:
            return


def _dictionary(trace: "Trace") -> dict[str, Json]:
    return trace.to_dict()
