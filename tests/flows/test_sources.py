"""The places that a workload file names, and the files that are found there."""

from pathlib import Path

import pytest

from components.collect.source import Defaults
from flows.workload_file import read_workload
from tests.support.workload_text import logs_of, mistakes, places, write


def test_paths_are_relative_to_the_file_wherever_it_is_read_from(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder)
    monkeypatch.chdir(folder)
    assert read_workload(Path("support.yaml")).base == folder / "base"


def test_a_file_under_two_patterns_is_read_once(folder: Path) -> None:
    workload = read_workload(write(folder, sources={"logs": ["logs/*.jsonl", "logs/a.*"]}))
    assert [path.name for path in places(logs_of(workload))] == ["a.jsonl", "b.jsonl"]


def test_an_entry_may_name_its_source_and_what_its_files_leave_out(folder: Path) -> None:
    entry = {"path": "logs/a.jsonl", "source": "otlp", "workload_id": "w", "client_id": "c"}
    remote = {"path": "s3://bucket/*.parquet"}
    (file, *_) = logs_of(read_workload(write(folder, sources={"logs": [entry]})))
    assert (file.source, file.defaults) == ("otlp", Defaults("w", "c"))
    assert (
        read_workload(write(folder, sources={"logs": [remote]})).sources.logs[0].path
        == remote["path"]
    )


def test_a_folder_is_all_files_in_it(folder: Path) -> None:
    workload = read_workload(write(folder, sources={"logs": ["logs"]}))
    (folder / "logs/new").mkdir()
    (folder / "logs/new/c.jsonl").write_text("{}")
    (folder / "logs/.c.jsonl.partial").write_text("{}")
    assert [path.name for path in places(logs_of(workload))] == [
        "a.jsonl",
        "b.jsonl",
        "c.jsonl",
        "notes.txt",
    ]


def test_a_folder_that_only_a_glob_matches_is_reported_as_unread(folder: Path) -> None:
    for name in ("old.jsonl", "empty.jsonl"):
        (folder / "logs" / name).mkdir()
    (folder / "logs/old.jsonl/part.jsonl").write_text("{}")
    for entries, unread in (
        (["logs/*.jsonl"], [folder / "logs/old.jsonl"]),
        (["logs/**"], []),
        (["logs"], []),
        (["logs/*.jsonl", "logs/old.jsonl"], []),
    ):
        workload = read_workload(write(folder, sources={"logs": entries}))
        assert workload.traffic().folders_not_read == [str(path) for path in unread]


def test_a_source_that_does_not_exist_is_named_with_those_that_do(folder: Path) -> None:
    entry = {"path": "logs/a.jsonl", "source": "splunk"}
    (mistake,) = mistakes(write(folder, sources={"logs": [entry]}))
    assert mistake.startswith("sources.logs.0.source: no source is called 'splunk'; there are five")


def test_traffic_that_all_comes_through_the_receiver_needs_no_sources(folder: Path) -> None:
    (folder / "live.yaml").write_text("{workload: live, base: base}")
    workload = read_workload(folder / "live.yaml")
    assert [*workload.traffic().inputs] == []


def test_files_that_come_later_are_found(folder: Path) -> None:
    workload = read_workload(
        write(folder, sources={"logs": ["logs/*.jsonl"], "feedback": ["votes*"]})
    )
    (folder / "logs/c.jsonl").write_text("{}")
    (folder / "votes.jsonl").write_text("{}")
    assert places(logs_of(workload))[-1] == folder / "logs/c.jsonl"
    assert folder / "votes.jsonl" in places([*workload.traffic().inputs])
