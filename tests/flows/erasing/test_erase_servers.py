"""What people wrote about who is erased goes from Prefect, with the flow runs that hold it."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from uuid import UUID

import pytest

from flows.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]

ZOE, YAN = "zoe-4711", "yan-0815"


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


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    """A home whose Prefect is the tests' server."""
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL

    database = PREFECT_API_DATABASE_CONNECTION_URL.value().partition("///")[2]
    made = Settings(tmp_path, 4200, 5000)
    made.prefect_home.mkdir()
    (made.prefect_home / "prefect.db").symlink_to(database)
    return made


def test_ended_runs_go_where_somebody_is_written_about_and_others_stay(home: Settings) -> None:
    from flows.erasing import erase_servers

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

    assert erase_servers.delete_written_runs(home, is_about, "routing") == 1
    assert there(runs) == runs.keys() - {"rolled back"}
    assert erase_servers.delete_written_runs(home, is_about) == 3
    assert there(runs) == {"about another", "waiting", "another flow"}
    assert erase_servers.delete_written_runs(home, is_about) == 0


def test_pages_and_messages_go_with_the_events_that_have_them(home: Settings) -> None:
    from components.erase.affected_outputs import Output
    from components.erase.subject import Subject
    from components.erase.tombstones import Erasure
    from flows import promote
    from flows.erasing import erase_servers
    from tests.support import logs

    database = home.prefect_home / "prefect.db"
    pages = {"e1": f"{YAN} asks", "e2": f"{YAN} asks more", "e3": "bob asks"}
    for digest, page in pages.items():
        promote.publish_page.fn(page, digest, "mail.eu")
    run("promote", "Completed", f"rejected by ada: rude to {YAN}")
    wait_for_event(database, f"rude to {YAN}")

    written = erase_servers.blank_texts(home, Subject(YAN), lambda text: YAN in text)
    erasure = Erasure("c1", "", "", logs.NOW, None)
    tainted = [Output("evidence", "mail.eu", digest) for digest in ("e1", "e2")]
    home.mlflow_home.mkdir()
    kept = home.mlflow_home / "mlflow.db.before-451aebb31d03"  # of an upgrade, with all its texts
    kept.touch()
    done = erase_servers.apply_consequences(home, erasure, tainted, written, demote=False)
    assert not kept.exists()
    assert (done.pages, done.runs) == (2, 1)
    promote.publish_page.fn("cyd asks", "e4", "support")
    wait_for_event(database, "cyd asks")  # it comes after those of the deletions
    assert texts_of(database, YAN) == 0
    assert texts_of(database, "bob asks") > 0


def wait_for_event(database: Path, text: str) -> None:
    """Wait until Prefect, which writes events in batches, has one that holds a text."""
    while not texts_of(database, text, "events"):
        time.sleep(0.2)


def texts_of(database: Path, text: str, *tables: str) -> int:
    """Count the rows of Prefect's tables of artifacts and events that hold a text."""
    columns = {"artifact": "data", "artifact_collection": "data", "events": "payload"}
    with closing(sqlite3.connect(database, timeout=30)) as con:
        return sum(
            con.execute(
                f"select count(*) from {table} where instr({columns[table]}, ?)", [text]
            ).fetchone()[0]
            for table in tables or columns
        )
