"""A turn over machines that share a lake and a bucket, and serve what it ends with."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from components.extensions.machines.lake_warehouse import Lake
from components.extensions.machines.object_store import ObjectStore
from components.store import warehouse
from tests.support import buckets, lakes, machines, small_workload, terminal
from tests.support.machines import Machines

pytestmark = [pytest.mark.slow, pytest.mark.lake, pytest.mark.timeout(2400)]

STORE = ObjectStore("s3://flywheel/team")
FIRST, SECOND, GPU, PERSON = "first", "second", "gpu", "person"
LATER_ROWS = 8


@pytest.fixture
def place() -> Lake:
    return Lake(lakes.database("turn_on_a_lake"), f"{STORE.url}/lake")


@pytest.fixture
def team(place: Lake, tmp_path: Path) -> Iterator[Machines]:
    if not machines.may_hide_folders():
        pytest.skip("hiding the machines' folders from each other wants root")
    with buckets.serving() as variables:
        shared = {**variables, "FLYWHEEL_STORE": STORE.url, "FLYWHEEL_WAREHOUSE": place.url}
        team = Machines(tmp_path / "team", shared, (FIRST, SECOND, GPU, PERSON))
        try:
            team.start_servers()
            yield team
        finally:
            team.stop()


def test_a_turn_begun_at_one_machine_is_approved_registered_and_served_at_others(
    team: Machines, place: Lake, tmp_path: Path
) -> None:
    config = small_workload.write(tmp_path / "workload")  # where every machine reads it
    team.start_worker(FIRST, "cpu", 4)
    team.start_worker(GPU, "gpu")
    turn = team.start(FIRST, "turn", config)
    output = terminal.said_until_asked(turn)
    assert terminal.QUESTION in output, output + team.log(FIRST) + team.log(GPU)

    team.kill(FIRST)
    team.start_worker(SECOND, "cpu", 4)
    shutil.copytree(team.folder / FIRST / "home/keys", team.folder / SECOND / "home/keys")
    (tmp_path / "later/logs").mkdir(parents=True)
    later = small_workload.add_log(tmp_path / "later", small_workload.REQUESTS, LATER_ROWS)
    assert f"{LATER_ROWS} new rows" in team.run(SECOND, "collect", later)
    assert "loaded before" in team.run(PERSON, "collect", later)
    for name in (SECOND, PERSON):  # whose own file has the rules of approval
        assert "turn at" in team.run(name, "schedule", config)
    approved = team.approve(PERSON, small_workload.WORKLOAD)
    output, _ = turn.communicate()
    assert turn.returncode == 0, output + approved + team.log(SECOND)
    assert f"models:/{small_workload.WORKLOAD}@champion" in output
    assert "approve" in team.run(SECOND, "audit")

    for name in (FIRST, SECOND, GPU, PERSON):
        assert not (team.folder / name / "home/warehouse.duckdb").exists()
    assert answer_of_champion(team).startswith(f"{small_workload.WORKLOAD}@1")
    assert "1 new rows" in team.run(FIRST, "collect"), "the answer lies in a spool of its own"
    rows, distinct = count(place)
    assert rows == distinct == small_workload.REQUESTS + LATER_ROWS + 1


def answer_of_champion(team: Machines) -> str:
    """Serve at a machine that took no part, and return the version that answered."""
    token = team.run(FIRST, "token", "add", "shop").split()[0]  # a warning follows
    gateway = team.start(FIRST, "serve", "--port", "0")
    try:
        assert gateway.stdout is not None
        url = next(line for line in gateway.stdout if "serving on" in line).split()[2]
        request = {
            "model": small_workload.WORKLOAD,
            "messages": [{"role": "user", "content": "request 1"}],
            "max_tokens": 8,
        }
        headers = {"Authorization": f"Bearer {token}"}
        while True:  # until the champion is loaded and proved
            answer = httpx.post(
                f"{url}/v1/chat/completions",
                json=request,
                headers=headers,
                trust_env=False,
                timeout=None,
            )
            if answer.status_code == 200:
                return answer.json()["model"]
            assert answer.status_code in (404, 503), answer.text
            assert gateway.poll() is None
            time.sleep(1)
    finally:
        gateway.terminate()
        gateway.communicate()


def count(place: Lake) -> tuple[int, int]:
    with warehouse.reading(place) as con:
        sql = "select count(*), count(distinct interaction_id) from raw.interactions"
        ((rows, distinct),) = con.execute(sql).fetchall()
    return rows, distinct
