"""What people wrote about who is erased goes from Prefect, with the flow runs that hold it."""

from uuid import UUID

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]

ZOE = "zoe-4711"


def run(
    flow: str,
    state: str,
    message: str = "",
    answer: str | None = None,
    refused: int = 0,
    **parameters: str,
) -> UUID:
    """Make a flow run as Prefect keeps it; ``answer`` is what a person gave to its form.

    It is the last one of ``refused`` others.
    """
    from prefect import Flow, states
    from prefect.client.orchestration import get_client

    def nothing(workload: str = "", reason: str = "") -> None:
        """Stand for the flow, of which only the record in Prefect matters."""

    tags = ["workload:support"] if flow == "promote" else []
    with get_client(sync_client=True) as client:
        made = client.create_flow_run(Flow(nothing, name=flow), parameters=parameters, tags=tags)
        for number in range(refused):
            client.create_flow_run_input(made.id, f"gate-{number}", '{"code": "000000"}')
        if answer is not None:
            client.create_flow_run_input(made.id, "suspended-promotion-gate-response", answer)
        client.set_flow_run_state(made.id, getattr(states, state)(message=message), force=True)
    return made.id


def there(runs: dict[str, UUID]) -> set[str]:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    those = FlowRunFilter(id=FlowRunFilterId(any_=list(runs.values())))
    with get_client(sync_client=True) as client:
        ids = {run.id for run in client.read_flow_runs(flow_run_filter=those)}
    return {name for name, id in runs.items() if id in ids}


def test_ended_runs_go_where_somebody_is_written_about_and_others_stay() -> None:
    from flows import erase_servers

    runs = {
        "answered": run("promote", "Completed", answer=f'{{"comment": "rude to {ZOE}"}}'),
        "answered late": run("promote", "Completed", answer=f'{{"by": "{ZOE}"}}', refused=230),
        "told": run("promote", "Completed", f"rejected by ada: rude to {ZOE}"),
        "rolled back": run("rollback", "Completed", workload="routing", reason=f"for {ZOE}"),
        "about another": run("promote", "Completed", answer='{"comment": "rude to bob"}'),
        "waiting": run("promote", "Suspended", answer=f'{{"comment": "rude to {ZOE}"}}'),
        "another flow": run("turn", "Completed", ZOE),
    }

    def is_about(text: str) -> bool:
        return ZOE in text

    assert erase_servers.delete_written_runs(is_about, "routing") == 1
    assert there(runs) == runs.keys() - {"rolled back"}
    assert erase_servers.delete_written_runs(is_about) == 3
    assert there(runs) == {"about another", "waiting", "another flow"}
    assert erase_servers.delete_written_runs(is_about) == 0
