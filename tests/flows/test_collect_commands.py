"""``flywheel collect``, ``quarantine`` and ``drift`` as a person types them."""

from pathlib import Path

import pytest

from components import warehouse
from tests import logs
from tests.flows import terminal
from tests.flows.terminal import Terminal


@pytest.fixture
def shell(tmp_path: Path) -> Terminal:
    return terminal.in_home(tmp_path / "home")


def test_a_dry_run_says_what_it_found_and_stores_nothing(shell: Terminal, tmp_path: Path):
    lines = [logs.interaction(f"Question {n}?", response_id=f"r{n}") for n in range(5)]
    path = logs.write(tmp_path / "log.jsonl", [*lines, {"x": 1}])
    said = shell.run("collect", "--dry-run", path).stdout.splitlines()
    assert said[0] == (
        f"{path}: fivekey, 5 new rows, 0 known, 1 lines in quarantine (lines; dry run)"
    )
    assert [line.lstrip()[:2] for line in said[1:]] == ["1.", "2.", "3."]
    assert "Question 0?" in said[1]
    assert not shell.settings.warehouse.exists()


def test_files_are_collected_once_and_bad_lines_listed_shown_and_tried_again(
    shell: Terminal, tmp_path: Path
):
    path = logs.write(tmp_path / "log.jsonl", [logs.interaction(), {"x": 1}])
    said = shell.run("collect", path).stdout.splitlines()
    assert said[-1] == "1 new rows from 1 new of 1 files, 1 lines in quarantine"
    again = shell.run("collect", str(tmp_path / "*.jsonl")).stdout.splitlines()
    assert again == [
        f"{path}: fivekey, loaded before (1 rows)",
        "0 new rows from 0 new of 1 files, 0 lines in quarantine",
    ]
    with warehouse.connect(shell.settings.warehouse) as con:
        ((found,),) = con.execute("select quarantine_id from raw.quarantine").fetchall()
    assert found[:12] in shell.run("quarantine", "list").stdout
    shown = shell.run("quarantine", "show", found[:12]).stdout.splitlines()
    assert shown == [
        f"{path}:2  source fivekey  id {found}",
        "missing keys: timestamp, workload_id, client_id, request, response",
        '{"x": 1}',
    ]
    retried = shell.run("quarantine", "retry").stdout
    assert retried == "1 lines tried: 0 new rows, 0 known, 1 lines stay in quarantine\n"
    assert "no source shows a field" in shell.run("drift").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("nowhere.jsonl",), "collecting nowhere.jsonl: no file matches it", id="none"),
        pytest.param(
            ("--source", "splunk", __file__), "no source is called 'splunk'; there are", id="source"
        ),
    ],
)
def test_what_can_not_be_collected_is_said(
    shell: Terminal, arguments: tuple[str, ...], said: str
) -> None:
    ended = shell.run("collect", *arguments)
    assert ended.returncode == 2
    assert ended.stderr.startswith(said)
