"""An approval that can no longer be answered is recorded once, if nothing was decided."""

import re
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from components.decide import decision_log
from components.decide.decision_log import LogEvent
from components.schema import WORKLOAD_ID
from components.store import warehouse
from tests.support import warehouses, workload_text

pytestmark = pytest.mark.slow


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return tmp_path / "home"


def promotion(config: Path, evidence: str) -> UUID:
    """Let a promotion wait that asks about an evidence."""
    from prefect import Flow
    from prefect.client.orchestration import get_client
    from prefect.states import Suspended

    from flows import approvals

    def nothing(config: str) -> None:
        """Stand for the promotion, of which only the record in Prefect matters."""

    workload = config.stem
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(
            Flow(nothing, name="promote"),
            parameters={"config": str(config)},
            tags=[approvals.workload_tag(workload), approvals.evidence_tag(evidence)],
        )
        waiting = Suspended(timeout_seconds=3600, pause_key="promotion-gate")
        client.set_flow_run_state(run.id, waiting, force=True)
    return run.id


def end(run: UUID, name: str, message: str | None = None) -> None:
    from prefect import states
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run, getattr(states, name)(message=message), force=True)


def lapsed(home: Path) -> list[tuple[str, str, str]]:
    with warehouses.connect(home / "warehouse.duckdb") as con:
        links = decision_log.links(con)
    return [(link.evidence_digest, link.reason, link.comment or "") for link in links]


@pytest.mark.usefixtures("prefect_server")
def test_what_was_cancelled_timed_out_or_superseded_is_recorded_once(
    home: Path, folder: Path
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
    home: Path, workload: str, evidence: str, ending: str
) -> None:
    from flows.maintenance import maintenance

    end(promotion(Path(f"{workload}.yaml"), evidence), ending)
    maintenance(verify=False)
    with warehouses.connect(home / "warehouse.duckdb") as con:
        shown = [(link.workload_id, link.evidence_digest) for link in decision_log.links(con)]
    assert all(re.fullmatch(WORKLOAD_ID, text) for names in shown for text in names)


def decided(home: Path, run: UUID) -> None:
    event = LogEvent("reject", "support", "e5", str(run), datetime.now(UTC), "ann", "no")
    with warehouses.connect(home / "warehouse.duckdb") as con, warehouse.transaction(con):
        decision_log.append_event(con, event)
