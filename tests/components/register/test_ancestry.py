"""A version is traced to its decision, scores, rows and log lines."""

import json
from dataclasses import replace
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from components.register.registry import Aliases, Version
from components.release import ancestry, ancestry_chart
from components.release.ancestry import (
    Ancestry,
    DecisionRecord,
    OutputRoots,
    RowSource,
    ScorecardSummary,
)
from components.store import manifest, warehouse
from flows.cli import champion_commands
from flows.cli.champion_commands import lineage_tree
from flows.cli.console import PlainConsole
from tests.support import erased_home, logs, warehouses
from tests.support.erased_home import EACH, PEOPLE, WORKLOAD, House


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> House:
    return erased_home.build(tmp_path_factory.mktemp("place") / "home")


@pytest.fixture
def home(built: House, tmp_path: Path) -> House:
    return erased_home.move(built, tmp_path / "there" / "home")


def follow(home: House, adapter: str = "a1") -> Ancestry:
    version = Version(WORKLOAD, "1", adapter, home.evidence.name, "run", "approve")
    kept = home.settings
    roots = OutputRoots(
        *(
            root / WORKLOAD
            for root in (kept.evidence, kept.scorecards, kept.adapters, kept.snapshots)
        )
    )
    with warehouse.connect(kept.warehouse) as con:
        return ancestry.trace_ancestry(con, version, Aliases(champion="1"), roots)


def change(home: House, sql: str) -> None:
    with warehouses.connect(home.settings.warehouse) as con:
        con.execute(sql)


def shown(ancestry: Ancestry, *, whole: bool = False) -> str:
    written = StringIO()
    console = PlainConsole(width=1000)
    console.file = written
    console.print(lineage_tree(ancestry, whole=whole))
    return written.getvalue()


def test_an_adapter_that_is_said_to_start_from_itself_is_listed_once(home: House) -> None:
    path = home.settings.adapters / WORKLOAD / "a1" / manifest.NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), "warm_start": "adapters/a1"}))
    assert [learned.adapter for learned in follow(home).learned] == ["a1"]


def test_a_tag_leads_to_no_folder_outside_of_the_homes_adapters(home: House) -> None:
    outside = home.settings.home / "elsewhere" / "forged"
    outside.mkdir(parents=True)
    body = {"snapshot": "s1", "base": "forged"}
    manifest.write(outside, kind="adapter", now=logs.NOW, body=body)
    (learned,) = follow(home, "../../elsewhere/forged").learned
    assert learned.made_from is None


def test_rows_lead_to_the_lines_of_the_logs_that_they_came_from(home: House) -> None:
    (learned,) = follow(home).learned
    assert learned.snapshot == home.frozen.key
    assert {side.side: side.row_count for side in learned.rows} == {
        side: count
        for side, count in {
            **home.frozen.sides,
            **manifest.read(home.frozen.path)["rows"],  # pyright: ignore
        }.items()
        if count
    }
    places = {source.kind: source for source in learned.sources}
    assert places["interactions"].place is not None
    assert Path(places["interactions"].place).name == home.log.name
    assert places["interactions"].row_count == len(PEOPLE) * EACH
    with home.log.open() as file:
        lines = file.read().splitlines()
    for id, number in zip(
        places["interactions"].first_ids, places["interactions"].first_lines, strict=True
    ):
        (row,) = [row for row in home.raw() if row["interaction_id"] == id]
        assert number is not None
        assert json.loads(lines[number - 1]) == json.loads(str(row["payload"]))
    assert [(feedback.kind, feedback.events) for feedback in learned.feedback] == [
        ("thumb", places["feedback"].row_count)
    ]


def test_of_very_many_files_the_largest_are_shown_and_the_others_counted(home: House) -> None:
    ancestry = follow(home)
    (learned,) = ancestry.learned
    files = [
        RowSource("interactions", f"/logs/{n}.json", n, 1, n, [f"i{n}"], [1])
        for n in range(29, -1, -1)
    ]
    ancestry = replace(ancestry, learned=(replace(learned, sources=files),))
    text = shown(ancestry)
    assert "/logs/29.json: 29 interactions from lines 1 to 29" in text
    assert text.count("/logs/") == 20
    assert "and 10 more files of 45 rows: --all lists them" in text
    assert shown(ancestry, whole=True).count("/logs/") == 30


def test_decision_verdict_and_scorecards_are_shown(home: House) -> None:
    word = DecisionRecord("approve", "zoe", "[red]fine[/red]", logs.NOW)
    assert follow(home).words == ()
    ancestry = replace(follow(home), words=(word,))
    assert (ancestry.outcome, ancestry.reasons, ancestry.aliases) == (
        "pass",
        ("better",),
        ("champion",),
    )
    requests = ancestry.scorecards[0].requests
    assert requests == home.frozen.holdout_rows
    assert ancestry.scorecards == (
        ScorecardSummary("c1", "challenger", "a1", "holdout", requests),
        ScorecardSummary("c0", "opponent", "", "gone", None),
    )
    text = shown(ancestry)
    assert "approve by zoe on " in text
    assert "[red]fine[/red]" in text
    assert "opponent's scorecard c0 of the base: gone, its folder is gone" in text


def test_erased_or_archived_rows_are_shown_as_such(home: House) -> None:
    change(
        home,
        "insert into raw.archived select 'interactions', interaction_id, timestamp, '/old.parquet'"
        " from raw.interactions order by interaction_id limit 2",
    )
    change(
        home,
        "delete from raw.interactions where interaction_id in (select id from raw.archived)",
    )
    change(home, "delete from raw.feedback")
    text = shown(follow(home))
    assert "/old.parquet: 2 interactions, archived" in text
    assert "gone: 4 feedback, erased or of no file" in text


def test_a_warm_started_training_shows_both(home: House) -> None:
    folder = home.adapter.with_name("a2")
    folder.mkdir()
    body = {"snapshot": home.frozen.key, "base": "b1", "warm_start": "a1"}
    manifest.write(folder, kind="adapter", now=logs.NOW + timedelta(days=1), body=body)
    assert [training.adapter for training in follow(home, "a2").learned] == ["a2", "a1"]


def test_missing_outputs_are_shown_as_gone_with_the_rest(home: House) -> None:
    (home.adapter / manifest.NAME).unlink()
    ancestry = follow(home)
    assert ancestry.learned[0].rows == ()
    assert "its folder is gone" in shown(ancestry)


@pytest.mark.parametrize("suffix", [pytest.param("png", marks=pytest.mark.slow), "svg"])
def test_equal_ancestries_give_equal_pictures(home: House, suffix: str, tmp_path: Path) -> None:
    ancestry = follow(home)
    many = tuple(
        replace(ancestry.learned[0].sources[0], place=f"/logs/$x^{number}$.jsonl")
        for number in range(9)
    )
    crowded = replace(ancestry, learned=(replace(ancestry.learned[0], sources=many),) * 2)
    for name, drawn in (("first", ancestry), ("second", ancestry), ("crowded", crowded)):
        ancestry_chart.draw_ancestry(drawn, tmp_path / f"{name}.{suffix}")
    first, second, other = (
        (tmp_path / f"{name}.{suffix}").read_bytes() for name in ("first", "second", "crowded")
    )
    assert first == second != other


@pytest.mark.parametrize(
    ("command", "words", "code", "message"),
    [
        pytest.param(
            champion_commands,
            ["lineage", "shop"],
            1,
            "looking up champion of shop in MLflow: ",
            id="of",
        ),
        pytest.param(
            champion_commands, ["rollback", "shop"], 1, "rolling back shop in MLflow: ", id="back"
        ),
        pytest.param(
            champion_commands,
            ["lineage", "shop", "--picture", "x.jpg"],
            2,
            "--picture: expected a file that ends in .png or .svg: x.jpg",
            id="form",
        ),
    ],
)
def test_what_a_command_lacks_is_said(
    command: Any,
    words: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path))
    monkeypatch.setenv("FLYWHEEL_MLFLOW_PORT", "1")
    ended = CliRunner().invoke(command.app, words)
    assert (ended.exit_code, message in ended.output) == (code, True)
