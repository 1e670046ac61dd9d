"""A flow run that computes for too long is cancelled, and says why."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from flows import settings
from flows.settings import SettingsError

NOW = datetime.now(UTC)


def nothing() -> None:
    """Stand for a flow, of which only the record in Prefect matters."""


def running(name: str, pool: str) -> UUID:
    from prefect import Flow
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.states import Running

    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=pool, type="process"), overwrite=True)
        flow = client.create_flow(Flow(nothing, name=name))
        deployment = client.create_deployment(flow, f"{name}-{pool}", work_pool_name=pool)
        run = client.create_flow_run_from_deployment(deployment, state=Running())
    return run.id


def states(*runs: UUID) -> list[str]:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        reached = [client.read_flow_run(run).state for run in runs]
    return [f"{state.type.value} {state.message or ''}".strip() for state in reached if state]


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_run_that_computes_for_too_long_is_cancelled_with_the_reason():
    from prefect.client.orchestration import get_client

    from flows import maintenance

    curate, turn = running("curate", "cpu"), running("turn", "cpu")
    somebody_elses = running("curate", "theirs")
    with get_client(sync_client=True) as client:
        assert maintenance.cancel_late(client, 24, now=NOW + timedelta(hours=23)) == []
        late = maintenance.cancel_late(client, 24, now=NOW + timedelta(hours=25))
    assert [run.id for run in late] == [curate]
    message = "Ran for more than 24 h, which FLYWHEEL_FLOW_HOURS allows"
    expected = [f"CANCELLING {message}", "RUNNING", "RUNNING"]
    assert states(curate, turn, somebody_elses) == expected


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon"])
def test_an_invalid_limit_is_refused(text: str):
    with pytest.raises(SettingsError, match="expected a number above 0"):
        settings.load({"FLYWHEEL_FLOW_HOURS": text})


def test_every_flow_that_is_deployed_has_a_limit(tmp_path: Path):
    from flows import deployments, maintenance

    deployed = {spec.flow.partition(":")[2] for spec in deployments.specs(tmp_path)}
    assert deployed == set(maintenance.SHARES)
