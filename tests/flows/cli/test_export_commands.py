import json
from pathlib import Path

from components.collect.source import Input
from tests.support import logs, terminal, warehouses


def test_what_was_collected_is_written_as_lines_and_counted(tmp_path: Path) -> None:
    shell = terminal.in_home(tmp_path / "home", is_forked=True)
    shell.settings.home.mkdir()
    none = shell.run("export", "logs", str(tmp_path / "out.jsonl"))
    assert none.returncode == 2
    assert none.stderr.startswith("exporting: there is no warehouse at ")
    lines = [logs.interaction(response_id=f"r{n}") for n in range(3)]
    with warehouses.connect(shell.settings.warehouse) as con:
        for kind, file in (("interactions", lines), ("feedback", [logs.feedback()])):
            source = Input(str(logs.write(tmp_path / f"{kind}.jsonl", file)))
            logs.load_input(con, source, now=logs.NOW)
    ended = shell.run("export", "logs", str(tmp_path / "out.jsonl"), "--workload", "weather")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"3 interactions written to {tmp_path}/out.jsonl\n"
    assert shell.run("export", "logs", str(tmp_path / "said.jsonl"), "--feedback").returncode == 0
    written = (tmp_path / "out.jsonl").read_text().splitlines()
    assert sorted(written) == sorted(json.dumps(line, separators=(",", ":")) for line in lines)
    assert json.loads((tmp_path / "said.jsonl").read_text()) == logs.feedback()
