"""One workload's search leaves a place in the line for another workload's training."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from components.extensions.search import run
from components.extensions.search.run import TrialOrder, TrialOutcome
from components.extensions.search.schedule import PlannedTrial
from components.train.recipe import Recipe
from flows import search, settings
from flows.search import SearchRun
from flows.workload_file import Workload

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]

CANDIDATES = 8


@pytest.fixture(scope="module")
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


def test_a_candidate_whose_run_ended_without_an_outcome_is_run_again_and_not_pruned(
    training: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "home"))
    order = TrialOrder(
        entry=PlannedTrial(
            key="a1", name="r 2", base=tmp_path, recipe=Recipe(), stops=(4,), costs=(9.0,)
        ),
        rung=0,
    )
    workload = Workload.model_construct(workload="support")
    home = settings.load()
    snapshot = home.snapshots / "support" / "s1"
    going = SearchRun("support.yaml", workload, snapshot, home.jobs / "search-1", "run")
    done: list[TrialOutcome] = []
    searching = threading.Thread(target=lambda: done.extend(search.run_orders(going, [order])))
    searching.start()
    taken = 0
    while searching.is_alive():
        if (file := end_next(is_lost=taken == 0)) is not None:
            taken += 1
            if taken == 2:
                assert home.local(file) == home.jobs / "search-1" / "rung-0" / "a1.order.json"
    assert taken == 2
    assert [outcome.trouble for outcome in done] == [None]


def end_next(*, is_lost: bool) -> str | None:
    """Take an order as a worker does: lose it, or write its outcome."""
    from prefect.client.orchestration import get_client
    from prefect.states import Completed, Failed, Pending, Running

    with get_client(sync_client=True) as client:
        runs = client.get_scheduled_flow_runs_for_work_pool(
            "gpu", scheduled_before=datetime.now(UTC)
        )
        if not runs:
            return None
        run_ = runs[0].flow_run
        file = str(run_.parameters["order"])
        client.set_flow_run_state(run_.id, Pending(), force=True)
        client.set_flow_run_state(run_.id, Running(), force=True)
        if not is_lost:
            run.write_outcome(settings.load().local(file), TrialOutcome(key="a1", rung=0))
        client.set_flow_run_state(run_.id, Failed() if is_lost else Completed(), force=True)
    return file
