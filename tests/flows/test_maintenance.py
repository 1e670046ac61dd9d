"""An approval that can no longer be answered is recorded once, if nothing was decided."""

import re
import threading
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from mlflow import MlflowClient

from components.decide import decision_log
from components.decide.decision_log import LogEvent
from components.decide.record_answer import Question, TypedAnswer
from components.gate import evidence_folder
from components.gate.judgement import Judgement
from components.register import registry, tracking, version_tags
from components.release.releases import NotApprovedError
from components.schema import WORKLOAD_ID
from components.store import file_locks, warehouse
from flows import home_workloads, settings, workload_file
from flows.jobs import runner
from flows.settings import Settings
from tests.support import versions, warehouses, workload_text

pytestmark = pytest.mark.slow


def nothing(config: str) -> None:
    """Stand for the promotion, of which only the record in Prefect matters."""


def deployment() -> UUID:
    """Make the deployment of ``promote``."""
    from prefect import Flow
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        flow_id = client.create_flow(Flow(nothing, name="promote"))
        return client.create_deployment(flow_id, "promote")


def promotion(config: Path, evidence: str, *, asks: bool = False) -> UUID:
    """Let a promotion wait that asks about an evidence; it has its form if it ``asks``."""
    from prefect.client.orchestration import get_client
    from prefect.input.run_input import keyset_from_paused_state
    from prefect.states import Suspended

    from flows import approvals
    from flows.approval_loop import GateInput

    workload = config.stem
    with get_client(sync_client=True) as client:
        run = client.create_flow_run_from_deployment(
            deployment(),
            parameters={"config": str(config)},
            tags=[approvals.workload_tag(workload), approvals.evidence_tag(evidence)],
        )
        waiting = Suspended(timeout_seconds=3600, pause_key="promotion-gate")
        if asks:
            keyset = keyset_from_paused_state(waiting)
            GateInput.save(keyset, run.id)
            waiting.state_details.run_input_keyset = {**keyset}
        client.set_flow_run_state(run.id, waiting, force=True)
    return run.id


def end(run: UUID, name: str, message: str | None = None) -> None:
    from prefect import states
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run, getattr(states, name)(message=message), force=True)


def lapsed(home: Settings) -> list[tuple[str, str, str]]:
    with warehouses.connect(home.warehouse) as con:
        links = decision_log.links(con)
    return [(link.evidence_digest, link.reason, link.comment or "") for link in links]


@pytest.mark.usefixtures("prefect_server")
def test_what_was_cancelled_timed_out_or_superseded_is_recorded_once(
    home: Settings, folder: Path
) -> None:
    from flows import approvals
    from flows.maintenance import maintenance

    config = workload_text.write(folder)
    cancelled, late = promotion(config, "e1"), promotion(config, "e2")
    end(cancelled, "Cancelled")
    end(late, "Failed", "The flow was suspended and never resumed.")
    crashed = promotion(config, "e3")
    end(crashed, "Crashed", "worker died")
    older = promotion(config, "e4")
    newer = promotion(config, "e5")
    assert "3 approvals lapsed" in maintenance(verify=False)
    assert sorted(lapsed(home)) == [
        ("e1", "cancelled", "cancelled in Prefect"),
        ("e2", "timed_out", "The flow was suspended and never resumed."),
        ("e4", "superseded", "newer evidence e5 waits for an answer"),
    ]
    assert older not in [approval.flow_run_id for approval in approvals.pending_approvals()]
    assert [approval.flow_run_id for approval in approvals.pending_approvals()] == [newer]
    assert "0 approvals lapsed" in maintenance(verify=False)
    end(newer, "Cancelled", "not now")
    decided(home, newer)
    assert "0 approvals lapsed" in maintenance(
        verify=False
    )  # it was decided before it was cancelled
    assert len(lapsed(home)) == 4


def asked(config: Path, opponent: str) -> str:
    """Write evidence of a turn that compared with ``opponent``; return its digest."""
    home, workload = settings.load(), workload_file.read_workload(config)
    turn = home.turns / workload.workload / f"against-{opponent}"
    home_workloads.begin(turn, workload)
    subject = versions.subject_of(workload.workload, "a2", opponent)
    passed = Judgement("pass", ("better",), "correct_name")
    digest = evidence_folder.digest(subject, passed, workload.gate)
    folder = home.evidence / workload.workload / digest
    folder.mkdir(parents=True)
    evidence_folder.finish(
        folder,
        subject,
        passed,
        workload.gate,
        {},
        brief="",
        now=datetime.now(UTC),
        turn=home_workloads.reference(turn),
    )
    return digest


@pytest.mark.usefixtures("prefect_server")
def test_an_approval_ends_once_another_champion_makes_its_evidence_stale(
    home: Settings, folder: Path
) -> None:
    from flows import approvals, prefect_api
    from flows.maintenance import maintenance

    config = workload_text.write(folder)
    stale = asked(config, "base")
    older = promotion(config, stale, asks=True)
    maintenance(verify=False)
    assert older in [approval.flow_run_id for approval in approvals.pending_approvals()]

    mlflow = MlflowClient()
    mlflow.create_registered_model("support")
    tags = {version_tags.EVIDENCE_TAG: "another", version_tags.ADAPTER_TAG: "a1"}
    mlflow.create_model_version("support", "file:///nowhere", tags=tags)
    registry.put_alias("support", version_tags.CHAMPION, "1")
    assert "0 approvals lapsed" in maintenance(verify=False)  # somebody has only moved the alias
    with warehouse.connect(settings.load().tables) as con, warehouse.transaction(con):
        now = datetime.now(UTC)
        decision_log.append_event(con, LogEvent("approve", "support", "another", "run", now, "ada"))
    versions.record_champion("support", 1, "another")
    assert "1 approvals lapsed" in maintenance(verify=False)
    state = prefect_api.read(older).state
    assert state is not None
    assert (state.type, state.name) == ("CANCELLED", "Stale")
    assert "it compares with the base, but the champion is now version 1" in (state.message or "")
    assert (stale, "stale", state.message) in lapsed(home)

    evidence = asked(config, "1")
    newer = promotion(config, evidence, asks=True)
    assert "0 approvals lapsed" in maintenance(verify=False)
    assert [approval.flow_run_id for approval in approvals.pending_approvals()] == [newer]
    # Whoever answers is told of damaged evidence, which must not stop maintenance either.
    with (home.evidence / "support" / evidence / evidence_folder.VERDICT).open("a") as file:
        file.write(" ")
    assert "0 approvals lapsed" in maintenance(verify=False)
    # With Prefect's login a run can be paused without a form, and that must not stop maintenance.
    end(promotion(config, "e6"), "Suspended")
    end(promotion(config, "e7"), "Suspended")
    assert "2 approvals lapsed" in maintenance(verify=False)


@pytest.mark.usefixtures("prefect_server")
def test_a_workloads_model_is_there_before_another_account_takes_its_name(
    home: Settings, folder: Path
) -> None:
    from flows.maintenance import maintenance

    name = workload_file.read_workload(config := workload_text.write(folder)).workload
    home.mlflow_home.mkdir(parents=True)
    (home.mlflow_home / "mlflow.db").touch()
    home.workloads.mkdir()
    (home.workloads / config.name).symlink_to(config)
    (home.workloads / "gone.yaml").symlink_to(home.home / "gone.yaml")
    (home.workloads / "taken.yaml").write_text("workload: taken\n")
    MlflowClient().create_prompt("taken")
    maintenance(verify=False)
    assert [*registry.read_all()] == [name]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Cancelled", "not now"),
        ("Failed", "The flow was suspended and never resumed."),
        ("Crashed", "worker died"),
    ],
)
@pytest.mark.usefixtures("prefect_server")
def test_a_version_that_nobody_is_asked_about_any_more_is_no_challenger(
    home: Settings, folder: Path, name: str, message: str
) -> None:
    from flows.maintenance import maintenance

    config = workload_text.write(folder)
    workload_name = workload_file.read_workload(config).workload
    home.mlflow_home.mkdir(parents=True)
    (home.mlflow_home / "mlflow.db").touch()
    run = promotion(config, "e1")
    (home.evidence / workload_name / "e1").mkdir(parents=True)
    versions.ask(workload_name, 1)
    versions.ask("somebody-elses", 1)  # of another home that has this MLflow, too
    maintenance(verify=False)
    assert registry.read_aliases(workload_name).challenger == "1"
    end(run, name, message)
    maintenance(verify=False)
    assert registry.read_aliases(workload_name).challenger is None
    assert registry.read_aliases("somebody-elses").challenger == "1"


@pytest.mark.usefixtures("prefect_server")
def test_a_rejection_of_evidence_that_went_stale_is_recorded_and_decides_nothing(
    home: Settings, folder: Path
) -> None:
    """Else its reason is lost, and what it blames is neither reviewed nor held."""
    from flows import approval_loop, approvals

    config = workload_text.write(folder)
    workload, digest = workload_file.read_workload(config), asked(config, "9")
    evidence = evidence_folder.read(home.evidence / "support" / digest)
    for decision in ("reject", "approve"):
        run = promotion(config, digest, asks=True)
        answer = TypedAnswer(decision, "ada", "it forgets refunds", reason="quality")
        approvals.answer_approval(run, approvals.GATE_KEY, answer)
        question = Question("support", digest, str(run), 1)
        approval_loop.end_as_stale(question, evidence, workload, "the champion is another")
    with warehouses.connect(home.warehouse) as con:
        links = [link for link in decision_log.links(con) if link.kind != "rules"]
        assert decision_log.decision_on(con, digest) is None
    assert [(link.kind, link.reason, link.comment) for link in links] == [
        ("reject", "quality", "it forgets refunds"),
        ("lapsed", "stale", "the champion is another"),
        (
            "lapsed",
            "stale",
            "approve came too late: the champion is another; the answer said: it forgets refunds",
        ),
    ]


@pytest.mark.usefixtures("prefect_server")
def test_an_approval_that_was_answered_while_newer_evidence_withdrew_it_goes_on(
    home: Settings, folder: Path
) -> None:
    from prefect.states import Cancelled

    from flows import approval_loop, approvals, prefect_api

    config = workload_text.write(folder)
    run = promotion(config, "e4", asks=True)
    waiting, unanswered = prefect_api.read(run), promotion(config, "e5", asks=True)
    approvals.answer_approval(run, approvals.GATE_KEY, TypedAnswer("approve", "ada"))
    newer = Cancelled(message="newer evidence")
    assert not approval_loop.withdraw(waiting, newer)
    assert approval_loop.withdraw(prefect_api.read(unanswered), newer)
    states = [state.name for each in (run, unanswered) if (state := prefect_api.read(each).state)]
    assert states == ["Resuming", "Cancelled"]


@pytest.mark.usefixtures("prefect_server")
def test_two_turns_that_come_to_one_evidence_at_once_start_one_promotion(home: Settings) -> None:
    from flows import approvals, prefect_api

    deployment()
    together, started = threading.Barrier(2), list[prefect_api.Run]()

    def start() -> None:
        together.wait()
        started.append(approvals.start_or_find("support", "e7"))

    for _ in range(2):
        turns = [threading.Thread(target=start) for _ in range(2)]
        for turn in turns:
            turn.start()
        for turn in turns:
            turn.join()
        first, second = started[-2:]
        assert first.id == second.id
        end(first.id, "Crashed", "worker died")  # and is asked about again
    assert started[0].id != started[2].id


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.timeout(60, func_only=True)
def test_evidence_is_asked_about_again_though_an_earlier_promotion_was_deleted_in_prefect(
    home: Settings,
) -> None:
    from prefect.client.orchestration import get_client

    from flows import approvals

    deployment()
    asked = list[UUID]()
    for _ in range(3):
        asked.append(approvals.start_or_find("support", "e10").id)
        end(asked[-1], "Cancelled", "not now")
    with get_client(sync_client=True) as client:
        client.delete_flow_run(asked[0])
    again = approvals.start_or_find("support", "e10")
    assert again.id not in asked
    assert again.state_type == "SCHEDULED"


@pytest.mark.usefixtures("prefect_server")
def test_an_approval_that_ended_and_is_retried_is_asked_anew_by_a_run_whose_answers_count(
    home: Settings, folder: Path
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.flow_engine import run_flow

    from flows import approval_loop, approvals, prefect_api, promote

    config = workload_text.write(folder)
    home_workloads.adopt(settings.load(), "support", config)
    digest = asked(config, "base")
    run = promotion(config, digest)
    approval_loop.expire.fn(Question("support", digest, str(run), 0), None, "not now")
    end(run, "Scheduled")  # as the button "Retry" does
    parameters = {"workload": "support", "evidence": digest}
    with get_client(sync_client=True) as client:
        run_flow(promote.promote, client.read_flow_run(run), parameters=parameters)
    tag = approvals.evidence_tag(digest)
    (again,) = prefect_api.find("promote", tag, states=["SCHEDULED"])
    state = prefect_api.read(run).state
    assert state is not None
    assert state.is_completed()
    page = settings.load().run_page(again.id)
    assert state.message == f"this approval has ended; {page} asks again"
    assert again.parameters == parameters
    end(run, "Suspended")  # as it is for a moment when the other begins
    assert approvals.asked_by(digest, again.id, {str(run)}) is None
    assert approvals.asked_by(digest, again.id) is not None


@pytest.mark.usefixtures("prefect_server")
def test_of_two_promotions_of_one_evidence_the_older_asks(home: Settings, folder: Path) -> None:
    from flows import approvals, prefect_api

    config = workload_text.write(folder)
    first, by_hand = promotion(config, "e8"), promotion(config, "e8", asks=True)
    other = promotion(config, "e9")
    asks = [
        approvals.asked_by(evidence, run)
        for run, evidence in ((first, "e8"), (by_hand, "e8"), (other, "e9"))
    ]
    assert [each and each.id for each in asks] == [None, first, None]
    end(first, "Crashed", "worker died")
    assert approvals.asked_by("e8", by_hand) is None
    assert prefect_api.read(by_hand).state_type == "PAUSED"
    end(first, "Suspended")  # somebody retries it, and it asks again
    assert approvals.asked_by("e8", by_hand) is not None
    approvals.answer_approval(by_hand, approvals.GATE_KEY, TypedAnswer("approve", "ada"))
    assert approvals.asked_by("e8", by_hand) is None


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(
    ("workload", "evidence"),
    [
        ("support\n   7  support  evidence e1  approve by ada", "e1"),
        ("support", "\x1b[2J"),
        ("", ""),
    ],
)
@pytest.mark.parametrize("ending", ["Cancelled", "Crashed"])
def test_a_tag_that_was_typed_into_prefect_forges_no_line_of_the_audit_and_stops_nothing(
    home: Settings, workload: str, evidence: str, ending: str
) -> None:
    from flows.maintenance import maintenance

    end(promotion(Path(f"{workload}.yaml"), evidence), ending)
    maintenance(verify=False)
    with warehouses.connect(home.warehouse) as con:
        shown = [(link.workload_id, link.evidence_digest) for link in decision_log.links(con)]
    assert all(re.fullmatch(WORKLOAD_ID, text) for names in shown for text in names)


@pytest.mark.usefixtures("prefect_server")
def test_the_mlflow_run_of_a_training_that_nothing_runs_any_more_is_ended(home: Settings) -> None:
    from flows.maintenance import maintenance

    home.mlflow_home.mkdir(parents=True)
    (home.mlflow_home / "mlflow.db").touch()
    keys = ["dead", "saving", "trained", "elsewhere", "search-1", "../jobs/train-dead"]
    runs = {key: tracking.open_run("support", key, params={}, tags={}) for key in keys}
    for job in ("train-dead", "train-saving", "train-trained", "search-1"):
        (home.jobs / job).mkdir(parents=True)
    trained = begun("train", {"adapter": str(home.adapters / "support" / "trained")})
    candidate = begun("train", {"order": str(home.jobs / "search-2" / "rung-0" / "a.json")})
    turn = begun("turn", {})

    def ended_after_maintenance() -> set[str]:
        maintenance(verify=False)
        statuses = {key: MlflowClient().get_run(run).info.status for key, run in runs.items()}
        assert {*statuses.values()} <= {"RUNNING", "KILLED"}
        return {key for key, status in statuses.items() if status == "KILLED"}

    with file_locks.held(home.jobs / "train-saving" / runner.LOCK):
        assert ended_after_maintenance() == set()
        end(candidate, "Crashed")
        assert ended_after_maintenance() == {"dead"}
    end(turn, "Crashed")
    end(trained, "Crashed")
    assert ended_after_maintenance() == {"dead", "saving", "trained", "search-1"}
    assert tracking.open_run("support", "dead", params={}, tags={}) == runs["dead"]
    assert MlflowClient().get_run(runs["dead"]).info.status == "RUNNING"


@pytest.mark.usefixtures("prefect_server")
def test_a_step_that_fails_costs_no_other_one_and_no_verification(
    home: Settings, folder: Path
) -> None:
    from flows.maintenance import MaintenanceError, maintenance

    home.mlflow_home.mkdir(parents=True)
    (home.mlflow_home / "mlflow.db").touch()
    tracking.open_run("support", "dead", params={}, tags={})
    (home.jobs / "train-dead" / runner.LOCK).mkdir(parents=True)  # no file, so it fails
    end(promotion(workload_text.write(folder), "e-steps"), "Cancelled")
    failed = r"end_lost_trainings: IsADirectoryError: .*train-dead"
    with pytest.raises(MaintenanceError, match=rf"1 steps failed, all others were done: {failed}"):
        maintenance()
    assert "e-steps" in [evidence for evidence, *_ in lapsed(home)]
    for name in ("first", "second"):
        MlflowClient().create_registered_model(name)
        MlflowClient().create_model_version(
            name, "file:///nowhere", tags={version_tags.EVIDENCE_TAG: "e"}
        )
        registry.put_alias(name, version_tags.CHAMPION, "1")
    moved = r"{} stands on version 1, .*somebody moved it"
    with pytest.raises(
        NotApprovedError, match=f"{moved.format('first')}.*{moved.format('second')}.*; {failed}"
    ):
        maintenance()


def begun(name: str, parameters: dict[str, object]) -> UUID:
    """Begin a run of a flow, of which only the record in Prefect matters."""
    from prefect import Flow
    from prefect.client.orchestration import get_client
    from prefect.states import Running

    with get_client(sync_client=True) as client:
        flow = Flow(nothing, name=name, validate_parameters=False)
        run = client.create_flow_run(flow, parameters=parameters)
        client.set_flow_run_state(run.id, Running(), force=True)
    return run.id


def decided(home: Settings, run: UUID) -> None:
    event = LogEvent("reject", "support", "e5", str(run), datetime.now(UTC), "ann", "no")
    with warehouses.connect(home.warehouse) as con, warehouse.transaction(con):
        decision_log.append_event(con, event)
