"""``flywheel report`` as a person types it."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from components.gate import evidence_folder
from components.gate.evidence_folder import Evidence, TurnReference
from components.gate.policy import Policy
from components.gate.report import write_report
from flows.cli import turn_watch
from flows.cli.main import app
from flows.settings import Settings, load
from tests.support import gate_cases
from tests.support.logs import NOW

Type = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path))
    monkeypatch.setenv("FLYWHEEL_MLFLOW_PORT", "1")  # where no stack of this machine answers
    monkeypatch.setenv("COLUMNS", "120")
    return load()


@pytest.fixture
def flywheel(home: Settings) -> Type:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments])

    return run


def turned(home: Settings, days: int, *, floor: float = 0.5) -> Evidence:
    """Write the evidence of a turn."""
    case, policy = gate_cases.clear(), Policy(floor=floor)
    digest = evidence_folder.digest(case.subject, case.judgement, policy)
    folder = home.evidence / "support" / digest
    now = NOW + timedelta(days=days)
    turn = TurnReference("t1", "w1")
    return write_report.write_evidence(replace(case, digest=digest), folder, policy, turn, now=now)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[Evidence]:
    """The evidence of two turns, the newer one written first; tests only copy it."""
    home = Settings(tmp_path_factory.mktemp("turns"), 4200, 5000)
    return [turned(home, 2, floor=0.6), turned(home, 1)]


@pytest.fixture
def turns(written: list[Evidence], home: Settings) -> list[Evidence]:
    """The evidence of two turns in this test's home, the older one first."""
    folders = [home.evidence / "support" / evidence.digest for evidence in reversed(written)]
    for evidence, folder in zip(reversed(written), folders, strict=True):
        shutil.copytree(evidence.folder, folder)
    return [evidence_folder.read(folder) for folder in folders]


def test_the_newest_report_is_named_and_an_older_one_by_its_digest(
    turns: list[Evidence], flywheel: Type
) -> None:
    old, new = turns
    assert flywheel("report", "support", "--no-open").output.strip() == str(
        new.folder / "report.html"
    )
    older = flywheel("report", "support", "--no-open", "--evidence", old.digest[:6])
    assert older.output.strip() == str(old.folder / "report.html")


def test_a_report_that_was_changed_is_not_shown(turns: list[Evidence], flywheel: Type) -> None:
    (turns[-1].folder / "report.html").write_text("<p>All is well</p>")
    done = flywheel("report", "support", "--no-open")
    assert done.exit_code == 1
    assert "report.html hashes to" in done.stderr


@pytest.mark.parametrize("asked", [(), ("--evidence", "../../etc")])
def test_without_a_report_it_says_what_makes_one(flywheel: Type, asked: tuple[str, ...]) -> None:
    done = flywheel("report", "support", "--no-open", *asked)
    assert done.exit_code == 2
    assert "found none in" in done.stderr
    assert "`flywheel turn` makes it" in done.stderr


def test_the_manifest_has_the_digest_of_everything_that_is_shown(written: list[Evidence]) -> None:
    result = written[-1]
    assert evidence_folder.read(result.folder) == result
    assert {one.name for one in result.folder.iterdir()} == {
        "brief.md",
        "cost.png",
        "break_even.png",
        "differences.png",
        "history.png",
        "manifest.json",
        "report.html",
        "samples.parquet",
        "scores.png",
        "slices.png",
        "verdict.json",
    }


@pytest.mark.usefixtures("turns")
def test_the_turns_before_are_told_in_their_order(home: Settings) -> None:
    first, second = write_report.earlier_turns(home.evidence / "support", "correct_name")
    assert (first.day, second.day) == ("01-02", "01-03")
    assert first.challenger == pytest.approx(100 / 112)
    assert first.low is not None
    assert first.low < 100 / 112


def test_help_teaches_with_an_example(flywheel: Type) -> None:
    assert "flywheel report support-routing" in flywheel("report", "--help").output


def test_the_last_lines_of_a_turn_tell_what_is_kept_at_which_price(
    home: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    turn_watch.print_scores(turned(home, 1).folder)
    scores, cost = capsys.readouterr().out.split("\ncost\n")
    first, *_, paid, even = cost.strip().splitlines()
    assert first.startswith("The challenger keeps 90.9% of production's correct name (95 %")
    assert ", at 3.33% of its price of a request (means over distinct requests)." in first
    assert paid == "  the training has paid for itself after 58 requests"
    assert even.startswith(
        "  At production's assumed prices both cost the same at a utilization of "
    )
    assert re.search(r"correct_name .*-> .*% +\([\d.]+ to [\d.]+\) +n=\d+ in \d+ clusters", scores)
    assert "baselines " in scores
    assert "few-shot was not measured; evaluate.num_fewshot, such as 4, measures it." in scores
