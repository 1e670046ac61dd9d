"""What is asked of a Prefect server that dies before it answers is done once."""

from collections.abc import Iterator
from pathlib import Path
from threading import Timer
from uuid import UUID

import pytest

from components.decide.record_answer import TypedAnswer
from tests.support import faulty_server
from tests.support.faulty_server import Faulty

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Faulty]:
    """Stand between this process and the Prefect server."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    api = str(PREFECT_API_URL.value())
    with faulty_server.before(api) as faulty, temporary_settings({PREFECT_API_URL: faulty.url}):
        monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path))
        monkeypatch.setenv("PREFECT_API_URL", faulty.url)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", faulty.url)
        yield faulty


def waiting(form_seconds: float = 0.0, *tags: str) -> UUID:
    """Let a promotion wait for its form to be filled in, which is stored so much later."""
    from prefect import Flow
    from prefect.client.orchestration import get_client
    from prefect.input.run_input import keyset_from_paused_state
    from prefect.states import Suspended

    from flows.approval_loop import GateInput

    def nothing() -> None:
        """Stand for the promotion, of which only the record in Prefect matters."""

    with get_client(sync_client=True) as client:
        flow_id = client.create_flow(Flow(nothing, name="promote"))
        run = client.create_flow_run_from_deployment(
            client.create_deployment(flow_id, "promote"), tags=tags
        )
        state = Suspended(timeout_seconds=3600, pause_key="promotion-gate")
        keyset = keyset_from_paused_state(state)
        Timer(form_seconds, GateInput.save, (keyset, run.id)).start()
        state.state_details.run_input_keyset = {**keyset}
        client.set_flow_run_state(run.id, state, force=True)
    return run.id


def test_an_answer_whose_receipt_was_lost_is_taken_and_another_is_not(server: Faulty) -> None:
    from flows import approvals

    run = waiting()
    server.path, server.silent = f"{run}/resume", 1
    approvals.answer_approval(run, "promotion-gate", TypedAnswer("reject", "ann", "why"))
    assert server.silent == 0
    approvals.answer_approval(run, "promotion-gate", TypedAnswer("reject", "ann", "why"))
    with pytest.raises(approvals.NotTakenError, match="not paused"):
        approvals.answer_approval(run, "promotion-gate", TypedAnswer("approve", "bob"))


def test_an_answer_before_the_form_is_stored_waits_for_it(server: Faulty) -> None:
    from flows import approvals

    run = waiting(form_seconds=2.0)
    server.path = "nothing"
    approvals.answer_approval(run, "promotion-gate", TypedAnswer("reject", "ann", "why"))
    with pytest.raises(approvals.NotTakenError, match="not paused"):
        approvals.answer_approval(run, "promotion-gate", TypedAnswer("approve", "bob"))


def test_a_turn_whose_start_nobody_heard_of_is_started_once(server: Faulty, tmp_path: Path) -> None:
    from prefect import Flow
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import StateType

    from flows import prefect_api
    from flows.cli import turn_watch

    def nothing(config: str) -> None:
        """Stand for the turn, of which only the record in Prefect matters."""

    with get_client(sync_client=True) as client:
        flow_id = client.create_flow(Flow(nothing, name="turn"))
        deployment = client.create_deployment(flow_id, "turn")
    server.path, server.silent = f"{deployment}/create_flow_run", 1
    run = turn_watch.start_turn(tmp_path / "shop.yaml", "shop")
    assert server.silent == 0
    assert [one.id for one in prefect_api.find("turn", states=[StateType.SCHEDULED])] == [run]


@pytest.mark.usefixtures("server")
def test_a_turn_that_ended_at_another_machine_is_named() -> None:
    from prefect import Flow
    from prefect.client.orchestration import get_client
    from prefect.states import Completed

    from flows.cli import turn_watch
    from flows.cli.console import console
    from flows.cli.progress import ProgressScreen

    def nothing() -> None:
        """Stand for the turn, whose folder is in another home."""

    with get_client(sync_client=True) as client:
        run = client.create_flow_run(Flow(nothing, name="turn"), state=Completed())
    with (
        ProgressScreen(console) as screen,
        pytest.raises(turn_watch.TurnError, match="at another machine"),
    ):
        turn_watch.follow_stages(run.id, "shop", screen)
