"""What services print is kept, rotated, and given as JSON to who asks for it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.settings import Settings, SettingsError, load
from flows.stack.children import KEPT_LOGS, Child, LogPump, ServiceLog, rotate_log
from flows.stack.stack_services import Service


def test_a_log_is_put_aside_when_it_is_large_and_the_oldest_go(tmp_path: Path) -> None:
    log = ServiceLog(tmp_path / "prefect.log", size=100)
    for number in range(1000):
        log.write(b"line %03d\n" % number)
    logged = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert sorted(logged) == [
        "prefect.log",
        *(f"prefect.log.{one}" for one in range(1, KEPT_LOGS + 1)),
    ]
    assert all(len(text) <= 100 for text in logged.values())
    order = [f"prefect.log.{one}" for one in range(KEPT_LOGS, 0, -1)] + ["prefect.log"]
    lines = "".join(logged[name] for name in order).splitlines()
    first = 1000 - len(lines)
    assert lines == [f"line {number:03}" for number in range(first, 1000)], "none lost, in order"


@pytest.mark.parametrize(
    ("line", "level"),
    [
        pytest.param("20:15:01.123 | WARNING | prefect.worker - late", "WARNING", id="prefect"),
        pytest.param("2026/11/26 20:15:01 ERROR mlflow.server: no", "ERROR", id="mlflow"),
        pytest.param("INFO:     Started server process [7]", "INFO", id="uvicorn"),
        pytest.param('  File "x.py", line 3, in "say"', None, id="traceback"),
    ],
)
def test_lines_are_json_objects_on_demand(tmp_path: Path, line: str, level: str | None) -> None:
    log = ServiceLog(tmp_path / "mlflow.log", "json")
    log.write(f"{line}\n".encode())
    log.write(b"\xff\n")
    first, second = (json.loads(one) for one in (tmp_path / "mlflow.log").open())
    assert (first["service"], first["level"], first["message"]) == ("mlflow", level, line)
    assert first["time"].endswith("+00:00")
    assert second["message"] == "\N{REPLACEMENT CHARACTER}"


def test_what_a_process_and_those_below_it_print_is_carried_into_the_log(
    settings: Settings,
) -> None:
    settings.logs.mkdir(parents=True)
    below = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(7)'])"
    long = "print('x' * 200_000)"
    path = settings.logs / "worker-cpu.log"
    child = Child(Service("worker-cpu", (sys.executable, "-c", f"{below}; {long}"), path), "json")
    child.start(os.environ, settings.home)
    assert child.last_words().endswith("xxx")
    messages = [json.loads(line)["message"] for line in path.open()]
    assert messages[0] == "7"
    assert "".join(messages[1:]) == "x" * 200_000
    assert max(map(len, messages)) <= 2**16


def test_a_format_that_is_none_is_refused() -> None:
    assert load({}).log_format == "text"
    assert load({"FLYWHEEL_LOG_FORMAT": "json"}).log_format == "json"
    with pytest.raises(SettingsError, match="FLYWHEEL_LOG_FORMAT is 'xml'; expected text or json"):
        load({"FLYWHEEL_LOG_FORMAT": "xml"})


def test_what_the_last_supervisor_printed_is_kept_beside_the_new(tmp_path: Path) -> None:
    (tmp_path / "supervisor.log").write_text("why it died")
    rotate_log(tmp_path / "supervisor.log")
    assert (tmp_path / "supervisor.log.1").read_text() == "why it died"


def test_a_pipe_that_nobody_closes_does_not_hold_up_who_asks_for_the_last_words(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", "import time; print('still here', flush=True); time.sleep(60)"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        pump = LogPump(process.stdout, ServiceLog(tmp_path / "a.log"))
        while "still here" not in pump.last_words(0.05):
            pass
        process.kill()
