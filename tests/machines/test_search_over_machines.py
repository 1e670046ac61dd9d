"""A search whose candidates are trained at two machines that share a bucket and no folder."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.extensions.machines.object_store import ObjectStore
from components.store import manifest
from tests.support import buckets, machines, small_workload, terminal
from tests.support.machines import Machines

pytestmark = [pytest.mark.slow, pytest.mark.lake, pytest.mark.timeout(2400)]

SEARCH = """
search:
  over: {learning_rate: [0.02, 1.0e-4]}
  budget: {tokens: 20000}
  eta: 2
"""

AWAY = "503 Service Unavailable"

CPU, FIRST, SECOND = "cpu", "first", "second"


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Machines]:
    if not machines.may_hide_folders():
        pytest.skip("hiding the machines' folders from each other wants root")
    with buckets.serving() as variables:
        store = {**variables, "FLYWHEEL_STORE": ObjectStore("s3://flywheel/team").url}
        team = Machines(tmp_path / "team", store, (CPU, FIRST, SECOND))
        try:
            team.start_servers()
            yield team
        finally:
            team.stop()


def test_candidates_trained_at_two_machines_make_one_search(team: Machines) -> None:
    config = small_workload.write(team.folder / CPU / "workload", epochs=10)
    small_workload.add_log(config.parent, small_workload.REQUESTS, 60)
    text = config.read_text().replace("validation_share: 0}", "validation_share: 0.3}")
    config.write_text(text + SEARCH)
    team.start_worker(CPU, "cpu", 4)
    team.start_worker(FIRST, "gpu")
    team.start_worker(SECOND, "gpu")
    output = AWAY
    while AWAY in output:  # Prefect's own database, which a busy machine may keep from answering
        turn = team.start(CPU, "turn", config)
        output = terminal.said_until_asked(turn)
        turn.terminate()
        turn.communicate()
    assert terminal.QUESTION in output, output + team.log(FIRST) + team.log(SECOND)

    homes = {name: team.folder / name / "home" for name in (CPU, FIRST, SECOND)}
    trained = {name: {path.name for path in homes[name].glob("jobs/train-*")} for name in homes}
    assert trained[FIRST]
    assert trained[SECOND]
    assert len(trained[FIRST] | trained[SECOND]) == 2
    (search,) = homes[CPU].glob("jobs/search-*")
    outcomes = [
        json.loads(path.read_text()) for path in search.glob("rung-*/????????????????.json")
    ]
    assert {outcome["key"] for outcome in outcomes if outcome["rung"] == 0} == {
        name.removeprefix("train-") for name in trained[FIRST] | trained[SECOND]
    }
    assert all(outcome["scores"] for outcome in outcomes), outcomes
    winner = str(manifest.read(search)["winner"])
    adapter = homes[CPU] / "adapters" / small_workload.WORKLOAD / winner
    assert json.loads((adapter / manifest.NAME).read_text())["recipe"]["learning_rate"] == 0.02
