"""On a real stack: a turn judges the adapter of an earlier one on a holdout that has grown."""

from pathlib import Path

import pytest

from components.store import ledger, warehouse
from tests.support import small_workload, terminal
from tests.support.terminal import Terminal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_an_inconclusive_adapter_is_judged_again_and_none_is_trained(
    shell: Terminal, tmp_path: Path
) -> None:
    config, home = small_workload.write(tmp_path / "small"), shell.settings
    config.write_text(config.read_text().replace("min_documents: 8", "min_documents: 24"))
    first = shell.run("turn", config)
    assert "turn      inconclusive" in first.stdout, first.stdout + first.stderr
    (adapter,) = (home.adapters / small_workload.WORKLOAD).iterdir()

    small_workload.add_log(tmp_path / "small", small_workload.REQUESTS, 30)
    turn = shell.start("turn", config, "--adapter", adapter.name[:8])
    output = terminal.said_until_asked(turn)
    assert terminal.QUESTION in output
    approved = shell.answer("approve", small_workload.WORKLOAD, "--as", "ann")
    rest, _ = turn.communicate()
    assert (approved.returncode, turn.returncode) == (0, 0), approved.stderr + rest
    assert f"adapter {adapter.name}" in rest
    assert [*(home.adapters / small_workload.WORKLOAD).iterdir()] == [adapter]
    with warehouse.connect(home.tables) as con:
        looks = ledger.read_holdout_log(con).looks
    assert [(look.number, look.adapter) for look in looks] == [
        (1, adapter.name),
        (2, adapter.name),
    ]
    assert looks[0].held < looks[1].held
