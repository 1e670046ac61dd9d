"""``flywheel feedback`` as a person types it."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.curate import curate_workload
from components.curate.settings import Rules
from components.store import warehouse
from flows import settings
from flows.cli import main
from tests.support import logs, vote_attacks


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")


def shown() -> list[str]:
    result = CliRunner().invoke(main.app, ["feedback", "weather"])
    assert result.exit_code == 0
    return [" ".join(line.split()) for line in result.stdout.splitlines()]


def test_it_shows_who_was_held_back_and_on_what_evidence(tmp_path: Path):
    votes = [*vote_attacks.honest(), *vote_attacks.brigade(), *vote_attacks.drip()]
    votes.append(logs.feedback("correction", logs.say("right"), response_id="r1", actor_id="ann"))
    with warehouse.connect(settings.load().warehouse) as con:
        logs.load(con, logs.write(tmp_path / "l.jsonl", vote_attacks.traffic()), now=logs.NOW)
        logs.load_feedback(con, logs.write(tmp_path / "f.jsonl", votes), now=logs.NOW)
        curate_workload.curate(con, "weather", Rules(), now=logs.NOW)
    lines = shown()
    assert "150 brigade" in lines
    (burst,) = [line for line in lines if line.startswith("150 brigade sock")]
    assert burst.startswith("150 brigade sock 0, sock 1, sock 10 and 47 more 2025-10-24 08:54")
    assert burst.endswith("direction bad")
    (capped,) = [line for line in lines if " mallory " in line]
    assert capped.endswith("10.0% 10%")
    assert any(line.startswith("1 used_as_target") for line in lines)
    assert any("a label resolved" in line or "a label undecided" in line for line in lines)


def test_without_feedback_it_says_so(tmp_path: Path):
    assert shown() == ["no feedback in weather, or it has not been curated"]
