"""Flow runs are found whoever started them, and however many there are."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]


def begin(flow: str, config: Path) -> UUID:
    """Let a run be under way, as a schedule starts it: without any tag."""
    from prefect import Flow
    from prefect.client.orchestration import get_client
    from prefect.states import Running

    def nothing(config: str) -> None:
        """Stand for the flow, of which only the record in Prefect matters."""

    with get_client(sync_client=True) as client:
        run = client.create_flow_run(Flow(nothing, name=flow), parameters={"config": str(config)})
        client.set_flow_run_state(run.id, Running(), force=True)
    return run.id


def test_a_scheduled_turn_is_joined_and_no_second_one_is_started(tmp_path: Path) -> None:
    from flows.cli import turn_watch

    begin("turn", tmp_path / "other.yaml")
    linked = tmp_path / "link.yaml"
    linked.symlink_to(tmp_path / "support.yaml")
    scheduled = begin("turn", linked)
    assert turn_watch.start_turn(tmp_path / "support.yaml", "support") == scheduled


def test_the_status_lists_what_runs(tmp_path: Path) -> None:
    from flows import prefect_api
    from flows.cli import stack_commands

    run = begin("train", tmp_path / "support.yaml")
    (shown,) = [each for each in stack_commands.read_runs() if each["id"] == str(run)]
    assert shown["name"] == prefect_api.read(run).name
    assert shown["state"] == "Running"


def test_turns_that_are_started_at_once_are_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from prefect import Flow
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import StateType

    from flows import prefect_api
    from flows.cli import turn_watch

    def nothing(config: str) -> None:
        """Stand for the turn, of which only the record in Prefect matters."""

    with get_client(sync_client=True) as client:
        client.create_deployment(client.create_flow(Flow(nothing, name="turn")), "turn")
    with ThreadPoolExecutor() as threads:
        started = list(
            threads.map(turn_watch.start_turn, [tmp_path / "shop.yaml"] * 3, ["shop"] * 3)
        )
    assert len(set(started)) == 1
    assert [run.id for run in prefect_api.find("turn", states=[StateType.SCHEDULED])] == started[:1]
    joined = "joins the turn of shop that is under way (Scheduled, "
    shown = capsys.readouterr().out
    assert shown.count(joined) == 2
    assert shown.count("started a turn of shop, which begins once a worker takes it") == 1


def test_of_more_runs_than_prefect_gives_at_once_none_is_missed(tmp_path: Path) -> None:
    from prefect.client.schemas.objects import StateType

    from flows import prefect_api

    begun = {begin("many", tmp_path / "a.yaml") for _ in range(prefect_api.PAGE + 1)}
    running = prefect_api.find("many", states=[StateType.RUNNING])
    assert len(running) == len(begun)
    assert {run.id for run in running} == begun


def test_an_answer_is_dated_by_itself_and_by_nothing_stored_beside_it(tmp_path: Path) -> None:
    from flows import approvals, prefect_api

    run, key = begin("promote", tmp_path / "support.yaml"), approvals.gate_key(1)
    answer = f"suspended-{key}-response"
    for name in (*(f"{answer}-{number:03d}" for number in range(201)), answer):
        # Older than the answer, such as an approver's code that was read over a shoulder.
        stored = {"key": name, "value": '{"decision": "approve"}'}
        prefect_api.server().post(f"/flow_runs/{run}/input", stored)
    held = prefect_api.answer_held(run, key)
    assert held is not None
    assert held["key"] == answer
