"""One workload's search leaves a place in the line for another workload's training."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]

CANDIDATES = 8


@pytest.fixture
def training() -> Iterator[str]:
    """A deployment on a pool, of which the test itself is the worker."""
    from prefect import Flow
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate

    def nothing(name: str) -> None:
        """Stand for a training."""

    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="gpu", type="process"))
        flow_id = client.create_flow(Flow(nothing, name="train"))
        client.create_deployment(flow_id, "train", work_pool_name="gpu")
        yield "train/train"


def take_next() -> str | None:
    """Take what has waited longest, as a worker of one place does, and end it a moment later."""
    from prefect.client.orchestration import get_client
    from prefect.states import Completed, Pending, Running

    with get_client(sync_client=True) as client:
        runs = client.get_scheduled_flow_runs_for_work_pool(
            "gpu", scheduled_before=datetime.now(UTC)
        )
        if not runs:
            return None
        run = runs[0].flow_run
        client.set_flow_run_state(run.id, Pending(), force=True)
        client.set_flow_run_state(run.id, Running(), force=True)
        time.sleep(3)
        client.set_flow_run_state(run.id, Completed(), force=True)
    return str(run.parameters["name"])


def test_a_training_is_not_behind_all_candidates_of_a_search_that_came_before(
    training: str,
) -> None:
    from flows import flow_runs

    ended: list[str] = []
    parameters = [{"name": f"candidate {number}"} for number in range(CANDIDATES)]

    def search() -> None:
        runs = flow_runs.run_children(training, parameters, lambda: None)
        ended.extend(str(run.parameters["name"]) for run in runs)

    searching = threading.Thread(target=search)
    searching.start()
    order: list[str] = []
    other: threading.Thread | None = None
    while searching.is_alive() or (other and other.is_alive()):
        if (name := take_next()) is not None:
            order.append(name)
        if order and other is None:
            other = threading.Thread(
                target=flow_runs.run_child, args=(training, {"name": "another workload"})
            )
            other.start()
    assert ended == [params["name"] for params in parameters]
    assert sorted(order) == sorted([*ended, "another workload"])
    assert order.index("another workload") <= 3, order
