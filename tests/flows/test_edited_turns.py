"""Edit a workload's file in the middle of a turn, then delete it: the turn and its approval end."""

import json
import time
from pathlib import Path

import pytest

from components.store import manifest
from flows import home_workloads
from tests.support import logins, small_workload, terminal
from tests.support.terminal import Terminal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_a_turn_ends_as_it_began_whatever_becomes_of_its_file(
    shell: Terminal, tmp_path: Path
) -> None:
    config, home = small_workload.write(tmp_path / "small", epochs=30), shell.settings
    turn = shell.start("turn", config)
    while not any((home.adapters / small_workload.WORKLOAD).glob("*/*")):
        assert turn.poll() is None, turn.communicate()[0]
        time.sleep(0.1)
    config.write_text(config.read_text().replace("max_new_tokens: 12", "max_new_tokens: 24"))
    while not any((home.scorecards / small_workload.WORKLOAD).glob("*")):
        assert turn.poll() is None, turn.communicate()[0]
        time.sleep(0.1)
    config.unlink()
    assert terminal.QUESTION in terminal.said_until_asked(turn)

    (record,) = (home.turns / small_workload.WORKLOAD).glob(f"*/{home_workloads.RECORD}")
    assert json.loads(record.read_text())["evaluate"]["max_new_tokens"] == 12
    (evidence,) = (home.evidence / small_workload.WORKLOAD).glob("*")
    made_by = {"run_id": record.parent.name, "workload_digest": manifest.file_digest(record)}
    assert manifest.read(evidence)["turn"] == made_by
    approved = shell.answer("approve", small_workload.WORKLOAD, "--as", "ann")
    output, _ = turn.communicate()
    assert (approved.returncode, turn.returncode) == (0, 0), approved.stderr + output
    registered = logins.mlflow(home).get_registered_model(small_workload.WORKLOAD)
    assert registered.aliases == {"champion": "1"}
