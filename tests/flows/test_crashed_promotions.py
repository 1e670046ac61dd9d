"""A promotion that crashed is finished, one of two answers is taken, and for what was read only."""

import json
import os
import threading
from datetime import UTC, datetime
from uuid import UUID

import httpx
import pytest
from mlflow import MlflowClient

from components.decide import decision_log
from components.decide.decision_log import LogEvent
from components.decide.record_answer import TypedAnswer
from components.register import registry, version_tags
from components.store import warehouse
from flows.settings import Settings
from tests.support import warehouses
from tests.support.terminal import Terminal

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server", "promotions")]

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def nothing(workload: str, evidence: str) -> None:
    """Stand for the promotion, of which only the record in Prefect matters."""


@pytest.fixture(scope="module")
def promotions() -> UUID:
    """The deployment of ``promote``."""
    from prefect import Flow
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate

    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="cpu", type="process"))
        flow_id = client.create_flow(Flow(nothing, name="promote"))
        return client.create_deployment(flow_id, "promote", work_pool_name="cpu")


def promotion(evidence: str, state: str, *, asks: bool = False, tagged: str = "") -> UUID:
    """Let a promotion of an evidence be in a state, with the form of an approval if it ``asks``."""
    from prefect import states
    from prefect.client.orchestration import get_client
    from prefect.input import keyset_from_base_key

    from flows import approval_loop, approvals, prefect_api

    parameters = {"workload": "support", "evidence": evidence}
    tags = [approvals.workload_tag("support"), approvals.evidence_tag(tagged or evidence)]
    run = prefect_api.start("promote/promote", parameters, tags)
    with get_client(sync_client=True) as client:
        made = getattr(states, state)(**({"timeout_seconds": 3600} if asks else {}))
        if asks:
            keys = keyset_from_base_key("suspended-promotion-gate")
            made.state_details.run_input_keyset = keys
            form = json.dumps(approval_loop.GateInput.model_json_schema())
            client.create_flow_run_input(run.id, keys["schema"], form)
        client.set_flow_run_state(run.id, made, force=True)
    return run.id


def register(evidence: str) -> None:
    client = MlflowClient()
    if not client.search_registered_models("name = 'support'"):
        client.create_registered_model("support")
    client.create_model_version(
        "support", "file:///nowhere", tags={version_tags.EVIDENCE_TAG: evidence}
    )


def test_a_promotion_that_broke_off_after_the_answer_resumes_and_an_unanswered_one_does_not(
    home: Settings,
) -> None:
    from prefect.client.schemas.objects import StateType

    from flows import prefect_api
    from flows.maintenance import maintenance

    now = datetime.now(UTC)
    answered = {"approved": now, "failed": now, "crowned": now, "reconsidered": now, "old": NOW}
    for evidence in ("unanswered", *answered):
        promotion(evidence, "Failed" if evidence == "failed" else "Crashed")
        register(evidence)
    registry.tag_version("support", "4", {version_tags.DECISION_TAG: "approve"})
    # That rejection does not count under the rules of now.
    registry.tag_version("support", "5", {version_tags.DECISION_TAG: "reject"})
    with warehouses.connect(home.warehouse) as con:
        for evidence, at in answered.items():
            with warehouse.transaction(con):
                decision_log.append_event(
                    con, LogEvent("approve", "support", evidence, "run", at, "ada")
                )
    assert "3 answered promotions were resumed" in maintenance(verify=False)
    resumed = prefect_api.find("promote", states=[StateType.SCHEDULED])
    assert sorted((run.parameters["evidence"], *sorted(run.tags)) for run in resumed) == [
        (evidence, f"evidence:{evidence}", "workload:support")
        for evidence in ("approved", "failed", "reconsidered")
    ]
    assert "0 answered promotions were resumed" in maintenance(verify=False)


@pytest.mark.parametrize("ending", ["Crashed", "Failed"])
def test_an_answer_that_no_promotion_lived_to_record_is_recorded_after_all(
    home: Settings, ending: str
) -> None:
    from prefect import states
    from prefect.client.orchestration import get_client
    from prefect.input.run_input import keyset_from_paused_state

    from flows import approval_loop, approvals, prefect_api
    from flows.maintenance import maintenance

    evidence = f"held-{ending.lower()}"
    run = promotion(evidence, "Running")
    waits = states.Suspended(timeout_seconds=3600, pause_key=approvals.GATE_KEY)
    keys = waits.state_details.run_input_keyset = {**keyset_from_paused_state(waits)}
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run, waits)
        form = json.dumps(approval_loop.GateInput.model_json_schema())
        client.create_flow_run_input(run, keys["schema"], form)
        approvals.answer_approval(run, approvals.GATE_KEY, TypedAnswer("approve", "ada"))
        client.set_flow_run_state(run, getattr(states, ending)(), force=True)
        assert "1 answered promotions were resumed" in maintenance(verify=False)
        resumed = client.read_flow_run(run)
    assert resumed.state_name == "Resuming"
    # Else Prefect would suspend it again, and forget the answer.
    assert resumed.empirical_policy.pause_keys == {approvals.GATE_KEY}
    assert prefect_api.answer_held(run, approvals.GATE_KEY) is not None

    with warehouses.connect(home.warehouse) as con, warehouse.transaction(con):
        now = datetime.now(UTC)
        decision_log.append_event(
            con, LogEvent("refused", "support", evidence, str(run), now, "ada")
        )
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run, getattr(states, ending)(), force=True)
        assert "0 answered promotions were resumed" in maintenance(verify=False)
        client.set_flow_run_state(run, states.Cancelled(), force=True)


def test_the_second_of_two_simultaneous_answers_to_a_form_is_refused(home: Settings) -> None:
    from prefect.client.orchestration import get_client

    from flows import approvals

    run = promotion("asked", "Suspended", asks=True)
    together, outcomes = threading.Barrier(2), dict[str, str]()

    def answer(name: str) -> None:
        together.wait()
        try:
            approvals.answer_approval(run, approvals.GATE_KEY, TypedAnswer("approve", name))
            outcomes[name] = "taken"
        except (approvals.NotTakenError, httpx.HTTPStatusError):
            outcomes[name] = "not taken"

    people = [threading.Thread(target=answer, args=(name,)) for name in ("ada", "bob")]
    for thread in people:
        thread.start()
    for thread in people:
        thread.join()
    assert sorted(outcomes.values()) == ["not taken", "taken"]
    with get_client(sync_client=True) as client:
        inputs = client.filter_flow_run_input(run, key_prefix="", limit=50, exclude_keys=set())
        (kept,) = (json.loads(form.value) for form in inputs if form.key.endswith("response"))
        assert outcomes[kept["approver"]] == "taken"


@pytest.mark.parametrize("tagged", ["newer", pytest.param("older", id="with-a-tag-that-lies")])
def test_what_replaced_the_evidence_that_was_read_is_not_decided(
    home: Settings, tagged: str
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelled

    from flows import approvals, prefect_api

    shell = Terminal({**os.environ}, is_forked=True)
    run = promotion("newer", "Suspended", asks=True, tagged=tagged)
    assert "approve support --evidence newer\n" in shell.run("pending").stdout
    for answer in (["approve"], ["reject", "--comment", "worse"]):
        refused = shell.run(*answer, "support", "--evidence", "older", "--as", "ann")
        assert refused.returncode == 1, refused.stdout
        assert "on evidence older" in refused.stderr
        assert "found: evidence newer of support" in refused.stderr
        unread = shell.run(*answer, "support", "--as", "ann")  # as a script does that read nothing
        assert unread.returncode == 2, unread.stdout
        assert "no terminal to confirm" in unread.stderr
        assert f"{answer[0]} support --evidence newer\n" in unread.stderr
    assert prefect_api.answer_held(run, approvals.GATE_KEY) is None
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run, Cancelled(), force=True)
