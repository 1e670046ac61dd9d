"""An audit asks about random held-out references, and what it finds is counted on the form."""

import json
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from components.dataset import freeze_snapshot, held_references
from components.gate.evidence_folder import Evidence
from components.review import audit
from components.schema import Json
from flows import approval_loop, settings, snapshots, turn_evidence, workload_file
from flows.cli import review_commands
from flows.workload_file import Workload
from tests.support import gate_cases, logs, warehouses

CONFIG = "workload: weather\nbase: base\ncurate: {holdout_share: 0.5, split_by: conversation}\n"
ROWS = 60


pytestmark = warehouses.only_a_file("the home is made once and copied")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a snapshot of requests, of which people liked the answers to every tenth."""
    home = tmp_path_factory.mktemp("made")
    lines = [
        logs.interaction(
            f"Which umbrella number {number} times {number * 7} fits town {number * 13}?",
            response_id=f"r{number}",
            message=logs.say(f"In town {number * 13} take umbrella {number}, it has that size."),
            timestamp=1_760_000_000 + number,
        )
        for number in range(ROWS)
    ]
    liked = [logs.feedback("thumb", "up", response_id=f"r{n}") for n in range(0, ROWS, 10)]
    with warehouses.connect(home / "warehouse.duckdb") as con:
        logs.load(con, logs.write(home / "log.jsonl", lines), now=logs.NOW)
        logs.load_feedback(con, logs.write(home / "votes.jsonl", liked), now=logs.NOW)
    (home / "base").mkdir()
    (home / "base/config.json").write_text("{}")
    (home / "weather.yaml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("FLYWHEEL_HOME", str(home))
        freeze(home)
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it."""
    copy = tmp_path / "home"
    shutil.copytree(made, copy)
    monkeypatch.setenv("FLYWHEEL_HOME", str(copy))
    return copy


def workload(home: Path) -> Workload:
    return workload_file.read_workload(home / "weather.yaml")


def freeze(home: Path, days: int = 0) -> Path:
    now = logs.NOW + timedelta(days=days)
    frozen = snapshots.freeze_workload(workload(home), settings.load(), now=now, ask=False)
    assert frozen.snapshot
    return frozen.snapshot.path


def run(home: Path, *words: str | Path) -> str:
    arguments = map(str, ("review", home / "weather.yaml", "--as", "ann", *words))
    done = CliRunner().invoke(
        review_commands.app, list(arguments), env={"FLYWHEEL_HOME": str(home)}
    )
    assert done.exit_code == 0, done.output
    return done.stdout


def drawn(home: Path, count: int = 8) -> list[dict[str, Any]]:
    path = home / "audit.jsonl"
    run(home, "--audit", "--count", str(count), "--export", path)
    return [json.loads(line) for line in path.read_text().splitlines()]


def answer(home: Path, lines: list[dict[str, Any]], **answers: Json) -> None:
    path = logs.write(home / "answers.jsonl", [line | answers for line in lines])
    run(home, "--import", path)


def test_the_same_references_are_asked_until_they_are_answered(home: Path) -> None:
    first = drawn(home)
    ids = [line["interaction_id"] for line in first]
    assert len(set(ids)) == 8
    assert [line["interaction_id"] for line in drawn(home, 5)] == ids
    answer(home, first[:3], verdict="good")
    assert [line["interaction_id"] for line in drawn(home)] == ids[3:]
    answer(home, first[3:], verdict="good")
    assert not {*ids} & {line["interaction_id"] for line in drawn(home, 4)}


def test_only_references_that_nobody_confirmed_are_drawn(home: Path) -> None:
    names = {f"r{number}" for number in range(0, ROWS, 10)}
    assert not names & {line["response_id"] for line in drawn(home, ROWS)}


def test_answers_are_counted_and_what_is_left_out_counts_as_wrong(home: Path) -> None:
    lines = drawn(home)
    answer(home, lines[:4], verdict="good")
    answer(home, lines[4:5], verdict="bad")
    answer(home, lines[5:6], correction="Take none, it is dry there all the year.")
    answer(home, lines[:1], verdict="bad")  # the first answer stays
    snapshot = freeze_snapshot.newest_snapshot(settings.load().snapshots, "weather")
    audited = turn_evidence.reference_audit(settings.load(), "weather", snapshot)
    assert (audited.drawn, audited.answered, audited.wrong) == (8, 6, 2)
    assert (audited.faults, audited.auditors) == (4, ("ann",))


def test_an_audited_request_is_never_trained_on_and_learns_its_correction(home: Path) -> None:
    lines = drawn(home)
    answer(home, lines[:1], correction="Take none, it is dry there all the year.")
    answer(home, lines[1:2], verdict="bad")
    answer(home, lines[2:3], verdict="good")
    folder = freeze(home, days=1)
    asked = {str(line["interaction_id"]) for line in lines}
    trained = pq.read_table(folder / "train.parquet", columns=["interaction_ids"]).to_pylist()
    assert not asked & {name for row in trained for name in row["interaction_ids"]}
    held = held_references.read(settings.load().tables, folder)
    of = {name: row for row in held for name in row.interaction_ids}
    corrected, disliked, liked = (str(line["interaction_id"]) for line in lines[:3])
    assert "dry there all the year" in of[corrected].answer
    assert of[corrected].is_vouched
    assert disliked not in of
    assert of[liked].is_vouched


def test_a_reference_that_was_repaired_after_it_was_drawn_counts_as_wrong(home: Path) -> None:
    lines = drawn(home)
    repaired = logs.feedback(
        "correction", logs.say("Take the large one."), response_id=str(lines[0]["response_id"])
    )
    with warehouses.connect(home / "warehouse.duckdb") as con:
        logs.load_feedback(con, logs.write(home / "repair.jsonl", [repaired]), now=logs.NOW)
    folder = freeze(home, days=1)
    left = drawn(home)
    assert [line["interaction_id"] for line in left] == [
        line["interaction_id"] for line in lines[1:]
    ]
    answer(home, left, verdict="good")
    audited = turn_evidence.reference_audit(settings.load(), "weather", folder)
    assert (audited.drawn, audited.answered, audited.faults) == (8, 7, 1)


def test_the_form_has_what_an_audit_found_since_the_brief_was_written(home: Path) -> None:
    snapshot = freeze_snapshot.newest_snapshot(settings.load().snapshots, "weather")
    case = gate_cases.clear()
    subject = replace(case.subject, workload="weather", snapshot=snapshot.name)
    (home / "brief.md").write_text("Nobody has audited it.")
    evidence = Evidence(home, subject, case.judgement)
    assert approval_loop.audit_text(settings.load(), evidence) == ""
    lines = drawn(home)
    answer(home, lines[:1], verdict="bad")
    answer(home, lines[1:], verdict="good")
    text = approval_loop.audit_text(settings.load(), evidence)
    assert "Of 8 random ones ann called 1 wrong: 12.5%" in text
    assert "so this does not show it better" in text


def test_a_draw_depends_on_all_held_out_requests_and_not_on_their_order() -> None:
    names = [f"e{number}" for number in range(200)]
    chosen = audit.choose("v1-abc", names, 50)
    assert audit.choose("v1-abc", names[::-1], 50) == chosen
    assert len({*chosen} & {*audit.choose("v2-def", names, 50)}) < 30
