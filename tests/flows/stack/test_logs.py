"""What services print is kept and rotated."""

import os
import sys
from pathlib import Path

from flows.settings import Settings
from flows.stack.service_process import ServiceProcess, open_log
from flows.stack.stack_services import Service


def test_what_a_process_and_those_below_it_print_is_carried_into_the_log(
    settings: Settings,
) -> None:
    settings.logs.mkdir(parents=True)
    below = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(7)'])"
    long = "print('x' * 200_000)"
    path = settings.logs / "worker-cpu.log"
    child = ServiceProcess(Service("worker-cpu", (sys.executable, "-c", f"{below}; {long}"), path))
    child.start(os.environ, settings.home)
    assert child.last_words().endswith("xxx")
    messages = path.read_text().splitlines()
    assert messages[0] == "7"
    assert "".join(messages[1:]) == "x" * 200_000
    assert max(map(len, messages)) <= 2**16


def test_what_the_last_supervisor_printed_is_kept_beside_the_new(tmp_path: Path) -> None:
    (tmp_path / "supervisor.log").write_text("why it died")
    open_log(tmp_path / "supervisor.log").doRollover()
    assert (tmp_path / "supervisor.log.1").read_text() == "why it died"
