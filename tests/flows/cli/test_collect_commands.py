"""``flywheel collect``, ``quarantine`` and ``drift`` as a person types them."""

import gzip
import json
import re
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest

from components.collect import importers, quarantine
from components.schema import Json
from components.store import spool
from tests.support import (
    buckets,
    logs,
    openai_completions,
    terminal,
    warehouses,
    workload_text,
)
from tests.support.terminal import Terminal


@pytest.fixture
def shell(tmp_path: Path) -> Terminal:
    return terminal.in_home(tmp_path / "home", is_forked=True)


def test_a_dry_run_says_what_it_found_and_stores_nothing(shell: Terminal, tmp_path: Path):
    lines = [logs.interaction(f"Question {n}?", response_id=f"r{n}") for n in range(5)]
    path = logs.write(tmp_path / "log.jsonl", [*lines, {"x": 1}])
    output = shell.run("collect", "--dry-run", path).stdout.splitlines()
    assert output[0] == (
        f"{path}: fivekey, 5 new rows, 0 known, 1 lines in quarantine (lines; dry run)"
    )
    assert [line.lstrip()[:2] for line in output[1:4]] == ["1.", "2.", "3."]
    assert "Question 0?" in output[1]
    assert output[4] == (
        "  1 lines: missing keys: timestamp, workload_id, client_id, request, response"
    )
    assert not shell.settings.home.exists()


def test_a_dry_run_makes_no_home_of_a_folder_that_is_none(shell: Terminal, tmp_path: Path):
    path = logs.write(tmp_path / "log.jsonl", [logs.interaction()])
    shell.settings.home.mkdir()
    for place in (str(path), path.as_uri()):
        output = shell.run("collect", "--dry-run", place).stdout
        assert "1 new rows" in output
        assert [*shell.settings.home.iterdir()] == []


def test_a_workload_under_another_name_is_not_to_be_replaced_by_one_for_all_lines(
    shell: Terminal, tmp_path: Path
):
    line = logs.without(logs.interaction(), "workload_id", "client_id")
    path = logs.write(tmp_path / "log.jsonl", [{"client": "b", "workloadId": "a", **line}])
    output = shell.run("collect", "--dry-run", path, "--client", "c").stdout
    assert "{path: ..., workload_id: NAME}, for all lines; or rename `workloadId` in " in output


def test_of_many_files_of_one_form_a_dry_run_shows_the_records_of_one(
    shell: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "logs").mkdir()
    for n in range(4):
        line = logs.interaction(f"Question {n}?", response_id=f"r{n}")
        logs.write(tmp_path / f"logs/{n}.jsonl", [line if n < 3 else {"x": 1}])
    monkeypatch.chdir(tmp_path)
    output = shell.run("collect", "--dry-run", "logs").stdout
    # Named in full: later, elsewhere, an erasure and a lineage name the file.
    assert all(f"{tmp_path}/logs/{n}.jsonl: fivekey" in output for n in range(4))
    assert output.count("Question ") == 1
    assert '1. {"x": 1}' in output


def test_the_help_names_every_source(shell: Terminal):
    words = set(re.findall(r"\w+", shell.run("collect", "--help").stdout))
    assert importers.MODULES.keys() <= words


def test_files_are_collected_once_and_bad_lines_listed_shown_and_tried_again(
    shell: Terminal, tmp_path: Path
):
    path = logs.write(tmp_path / "log.jsonl", [logs.interaction(), {"x": 1}])
    output = shell.run("collect", path).stdout.splitlines()
    assert output[-1] == "1 new rows from 1 new of 1 files, 1 lines in quarantine"
    again = shell.run("collect", str(tmp_path / "*.jsonl")).stdout.splitlines()
    assert again == [
        f"{path}: fivekey, loaded before (1 rows)",
        "0 new rows from 0 new of 1 files, 0 lines in quarantine",
    ]
    with warehouses.connect(shell.settings.warehouse) as con:
        ((quarantine_id,),) = con.execute("select quarantine_id from raw.quarantine").fetchall()
    assert quarantine_id[:12] in shell.run("quarantine").stdout
    shown = shell.run("quarantine", quarantine_id[:12]).stdout.splitlines()
    assert shown == [
        f"{path}:2  source fivekey  id {quarantine_id}",
        "missing keys: timestamp, workload_id, client_id, request, response",
        '{"x": 1}',
    ]
    retried = shell.run("quarantine", "--retry").stdout
    assert retried == "1 lines tried: 0 new rows, 0 known, 1 lines stay in quarantine\n"


def test_damaged_and_binary_files_are_told_from_lines_that_lack_a_field(
    shell: Terminal, tmp_path: Path
):
    log = logs.write(tmp_path / "log.jsonl", [logs.interaction(f"{n}?") for n in range(50)])
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(log.read_bytes())[:-100])
    binary = tmp_path / "binary.jsonl"
    binary.write_bytes(b"\xfe\n{\xb5\n\x92\n")
    output = shell.run("collect", cut, binary).stdout.splitlines()
    assert "  3 lines: the line is not UTF-8: byte 0xfe at 0" in output
    fixes = [line.strip() for line in output if "fix:" in line]
    assert [fix.partition(",")[0].partition(" on its")[0] for fix in fixes] == [
        "fix: the file is binary",
        "fix: the file was cut or damaged",
    ]


def run_script(number: int, to: Path, *arguments: Path) -> Path:
    """Write what a script of the page about sources makes of files."""
    page = Path(quarantine.__file__).with_name("README.md").read_text()
    script = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[number]
    command = [sys.executable, "-c", script, *arguments]
    to.write_bytes(subprocess.run(command, capture_output=True, check=True).stdout)
    return to


def test_a_table_is_rewritten_as_the_readme_shows_and_read_by_a_map(
    shell: Terminal, tmp_path: Path
):
    table = tmp_path / "export.csv"
    head, row = "id,created_at,user,prompt,completion", '1,2026-01-01 12:00:00,ann,"a, or\nb?",b'
    table.write_text(f"\ufeff{head}\n{row}\n")
    explained = shell.run("collect", "--dry-run", table).stdout
    assert "components/collect/README.md shows how CSV is rewritten" in explained
    lines = run_script(0, tmp_path / "log.jsonl", table)
    paths = {"request": "prompt", "answer": "completion", "timestamp": "created_at"}
    source = f"map:{json.dumps({**paths, 'user_id': 'user'})}"
    named = ("--source", source, "--workload", "support", "--client", "shop")
    collected = shell.run("collect", lines, *named).stdout
    assert f"{lines}: map, 1 new rows" in collected
    with warehouses.connect(shell.settings.warehouse) as con:
        ((text,),) = con.execute("select record from raw.interactions").fetchall()
    record = json.loads(text)
    assert (record["user_id"], record["request"]["messages"][0]["content"]) == ("ann", "a, or\nb?")


def test_the_two_files_of_a_batch_are_joined_as_the_readme_shows(shell: Terminal, tmp_path: Path):
    body: Json = {"model": "m", "messages": [{"role": "user", "content": "Rome?"}]}
    asked = logs.write(tmp_path / "in.jsonl", [{"custom_id": "1", "body": body}])
    answers: list[dict[str, Json]] = [
        {
            "custom_id": "1",
            "response": {"status_code": 200, "body": openai_completions.completion()},
        },
        {"custom_id": "1", "response": None},
    ]
    answered = logs.write(tmp_path / "out.jsonl", answers)
    lines = run_script(1, tmp_path / "log.jsonl", asked, answered)
    output = shell.run("collect", lines, "--workload", "support", "--client", "shop").stdout
    assert "1 new rows from 1 new of 1 files, 0 lines in quarantine" in output


def test_a_hostile_line_neither_steers_the_terminal_nor_breaks_a_table(
    shell: Terminal, tmp_path: Path
):
    first = logs.write(tmp_path / "log.jsonl", [logs.interaction()])
    folder = tmp_path / "[red]"
    folder.mkdir()
    later = logs.write(folder / "log.jsonl", [logs.interaction("?") | {"[/b]\x1b[8m": 1}])
    with later.open("a") as log:
        log.write('\x1b]52;c;cm0gLXJmIH4=\x07\u202e{"x"\n')
    assert "[/b]\\u001b[8m" in shell.run("collect", first, folder).stdout
    assert str(later) in shell.run("quarantine").stdout
    shown = shell.run("quarantine", "").stdout.splitlines()
    assert shown[-1] == '\\u001b]52;c;cm0gLXJmIH4=\\u0007\\u202e{"x"'


def test_folders_that_a_glob_matches_are_counted_since_their_files_are_not_read(
    shell: Terminal, tmp_path: Path
):
    (tmp_path / "in/2025").mkdir(parents=True)
    logs.write(tmp_path / "in/log.jsonl", [logs.interaction()])
    logs.write(tmp_path / "in/2025/log.jsonl", [logs.interaction("Elsewhere?")])
    for options in ([], ["--dry-run"]):
        output = shell.run("collect", *options, str(tmp_path / "in/*")).stdout.splitlines()
        assert output[-1].endswith(
            f"1 folders that a glob matches are not read: {tmp_path}/in/2025 (name them, or end "
            "the glob in /**)"
        )
    for year in range(2021, 2025):
        (tmp_path / "in" / str(year)).mkdir()
        logs.write(tmp_path / f"in/{year}/log.jsonl", [logs.interaction(f"{year}?")])
    (last,) = shell.run("collect", str(tmp_path / "in/*")).stdout.splitlines()[-1:]
    assert "5 folders that a glob matches are not read: " in last
    assert "in/2023, ... (name them" in last


def test_nothing_to_collect_is_said_with_what_could_be(shell: Terminal):
    output = shell.run("collect").stdout.splitlines()
    assert output[0].startswith("0 new rows from 0 new of 0 files")
    assert output[1].startswith(f"no workload is scheduled in {shell.settings.home}, and nothing")


def test_a_bucket_that_is_away_keeps_no_received_traffic_in_the_spool(
    shell: Terminal, tmp_path: Path
):
    home = shell.settings
    (tmp_path / "base").mkdir()
    (tmp_path / "base/config.json").write_text("{}")
    home.workloads.mkdir(parents=True)
    sources = {"logs": ["nosuch://bucket/*.jsonl"]}
    workload = {"workload": "support", "base": str(tmp_path / "base"), "sources": sources}
    (home.workloads / "support.yaml").write_text(json.dumps(workload))
    writer = spool.Writer(home.spool)
    writer.commit([spool.line("interactions", "app", json.dumps(logs.interaction()).encode())])
    writer.seal()
    ended = shell.run("collect")
    assert ended.returncode == 2
    assert "reaching nosuch://bucket/*.jsonl: " in ended.stderr
    with warehouses.connect(home.warehouse) as con:
        assert con.execute("select count(*) from raw.interactions").fetchall() == [(1,)]


@pytest.mark.slow
def test_lines_that_can_not_be_loaded_are_explained_by_reason_with_an_example_and_a_fix(
    shell: Terminal, tmp_path: Path
):
    unnamed = [logs.without(logs.interaction(), "workload_id", "client_id") for _ in range(400)]
    late = [logs.interaction(timestamp=1_747_000_000_000 + n) for n in range(30)]
    path = logs.write(tmp_path / "log.jsonl", [*late, *unnamed, {"x": 1}])
    explained = [
        "  400 lines: `workload_id` is empty",
        f"      example: {path}:31: {json.dumps(unnamed[0])[:160]} ...",
        "      fix: --workload NAME, or in a workload file {path: ..., workload_id: NAME}",
        "  30 lines: `timestamp` 1747000000000 lies more than a day in the future; expected unix "
        "seconds, not milliseconds",
        f"      example: {path}:1: {json.dumps(late[0])[:160]} ...",
        "      fix: the application must log unix seconds or ISO 8601 text",
    ]
    arguments = ("--source", "openai_logs", path)
    rehearsed = shell.run("collect", "--dry-run", *arguments).stdout.splitlines()
    assert rehearsed[4:10] == explained
    collected = shell.run("collect", *arguments).stdout.splitlines()
    assert collected[1:7] == explained
    assert collected[-1] == "0 new rows from 1 new of 1 files, 431 lines in quarantine"
    named = shell.run("collect", "--workload", "weather", *arguments).stdout.splitlines()
    assert named[-1] == "1 new rows from 1 new of 1 files, 31 lines in quarantine"
    with warehouses.connect(shell.settings.warehouse) as con:
        assert con.execute("select count(*) from raw.quarantine").fetchall() == [(31,)]


@pytest.mark.slow
def test_the_most_frequent_of_many_reasons_are_explained_and_the_other_lines_counted(
    shell: Terminal, tmp_path: Path
):
    keys = ("timestamp", "workload_id", "client_id", "request", "response")
    lines = [
        logs.without(logs.interaction(), *pair)
        for times, pair in enumerate(combinations(keys, 2), start=1)
        for _ in range(times)
    ]
    path = logs.write(tmp_path / "log.jsonl", lines)
    output = shell.run("collect", "--source", "fivekey", path).stdout.splitlines()
    counts = [int(line.split()[0]) for line in output if re.match(r"  [0-9]+ lines", line)]
    assert counts == [10, 9, 8, 7, 6, 5, 1 + 2 + 3 + 4]
    assert output[-2] == "  10 lines for other reasons"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(("nowhere.jsonl",), "collecting nowhere.jsonl: no file matches it", id="none"),
        pytest.param(
            ("--source", "splunk", __file__), "no source is called 'splunk'; there are", id="source"
        ),
    ],
)
def test_what_can_not_be_collected_is_said(
    shell: Terminal, arguments: tuple[str, ...], message: str
) -> None:
    ended = shell.run("collect", *arguments)
    assert ended.returncode == 2
    assert ended.stderr.startswith(message)


def test_a_place_that_may_not_be_read_is_said_last_and_keeps_no_other_from_being_loaded(
    shell: Terminal, tmp_path: Path
):
    log = str(
        logs.write(
            tmp_path / "log.jsonl",
            [logs.interaction(), logs.without(logs.interaction(), "request")],
        )
    )
    with buckets.serving(closed=[("LIST", "secret/")]) as variables:
        here = replace(shell, env={**shell.env, **variables})
        secret = f"s3://{buckets.NAME}/secret/*.jsonl"
        for options in (("--dry-run",), ()):
            ended = here.run("collect", *options, secret, log)
            assert ended.returncode == 2
            assert ended.stderr.splitlines()[-1] == (
                f"1 places can't be read, all others were: reaching {secret}: Access Denied"
            )
            assert "1 new rows" in ended.stdout
            assert "fix: " in ended.stdout
    assert ended.stdout.splitlines()[-1].startswith("1 new rows from 1 new of 1 files, 1 lines")


def test_a_check_names_each_place_that_may_not_be_read(shell: Terminal, folder: Path):
    places: Json = [f"s3://{buckets.NAME}/{name}/*.jsonl" for name in ("a", "b", "c")]
    config = workload_text.write(folder, sources={"logs": places})
    with buckets.serving(closed=[("LIST", "a/"), ("LIST", "c/")]) as variables:
        ended = replace(shell, env={**shell.env, **variables}).run("check", config)
    assert ended.returncode == 2
    denied = [line.split("/")[-2] for line in ended.stderr.splitlines() if "Access Denied" in line]
    assert denied == ["a", "c"]
