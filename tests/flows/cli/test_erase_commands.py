"""``flywheel erase`` as a person types it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from components.store import spool
from flows.cli import erase_commands
from tests.support import erased_home
from tests.support.erased_home import ANN, EACH, House


@pytest.fixture(scope="module")
def built() -> House:
    return erased_home.build_once()


@pytest.fixture
def home(built: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    moved = erased_home.move(built, tmp_path / "home")
    monkeypatch.setenv("FLYWHEEL_HOME", str(moved.settings.home))
    return moved


def run(*arguments: str, answer: str = "") -> Result:
    return CliRunner().invoke(erase_commands.app, ["erase", *arguments], input=answer)


def test_it_says_what_matches_asks_erases_and_proves_it(home: House, built: House) -> None:
    rehearsed = run("--subject", ANN, "--dry-run")
    assert f"{EACH:>8}  raw.interactions  (user)" in rehearsed.stdout
    assert f"tainted   adapter {erased_home.WORKLOAD}/a1" in rehearsed.stdout
    assert f"source    {built.log}: not Flywheel's" in rehearsed.stdout
    assert run("--subject", ANN, answer="n\n").exit_code == 1
    assert len(home.raw()) == 3 * EACH
    assert run("--verify", "--subject", ANN).exit_code == 1

    done = run("--subject", ANN, answer="y\n")
    assert done.exit_code == 0, done.output
    assert len(home.raw()) == 2 * EACH
    assert "nothing is left" in done.stdout
    (written,) = home.settings.certificates.glob("*.json")
    for proof in (("--subject", ANN), (str(written),)):
        verified = run("--verify", *proof)
        assert verified.exit_code == 0, verified.output
    assert "nothing of it is here" in run("--subject", ANN).stdout


def test_a_segment_of_the_homes_own_spool_is_no_source_of_others(home: House) -> None:
    writer = spool.Writer(home.settings.spool)
    body = json.dumps(erased_home.line(ANN, 80)).encode()
    writer.commit([spool.line("interactions", "app", body)])
    writer.seal()
    done = run("--subject", ANN, answer="n\n")
    assert f"{EACH + 1:>8}  raw.interactions  (user)" in done.stdout
    assert done.stdout.count("not Flywheel's") == len({home.log, home.votes})


@pytest.mark.slow
def test_what_cant_be_frozen_again_stops_no_erasure(home: House, tmp_path: Path) -> None:
    workloads, base = home.settings.workloads, tmp_path / "base"
    workloads.mkdir()
    base.mkdir()
    (base / "config.json").write_text("{}")
    (workloads / "gone.yaml").symlink_to(tmp_path / "gone.yaml")
    left = home.settings.home / "notes.json"
    left.write_text(json.dumps({"user_id": ANN}))
    (workloads / "weather.yaml").write_text(
        f"workload: {erased_home.WORKLOAD}\nbase: {base}\nsources: {{logs: ['{home.log}']}}\n"
        "curate: {split_by: tools}\n"
    )
    done = run("--subject", ANN, "--yes")
    assert done.exit_code == 1, done.output
    assert "left: id, 1 times in notes.json" in done.stdout
    assert "not finished: delete what is left" in done.stderr
    assert len(home.raw()) == 2 * EACH
    left.unlink()
    assert "nothing is left" in run("--subject", ANN, "--yes").stdout
    assert "gone.yaml: 1 mistake(s)\ncan't be read" in done.stderr
    assert "weather is not frozen again: " in done.stdout
    assert "unfrozen  weather: SplitChangedError" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param((), id="nobody"),
        pytest.param(("some.json",), id="a-certificate-is-not-erased", marks=pytest.mark.slow),
        pytest.param(("--verify",), id="verify-nothing"),
        pytest.param(("--subject", "", "--yes"), id="empty-id"),
        pytest.param(("--subject", " ", "--mentions", "--yes"), id="blank-id"),
        pytest.param(("--subject", " Unknown", "--yes"), id="an-id-of-many-people"),
        pytest.param(("--subject", "0" * 32, "--yes"), id="a-trace-that-was-not-begun"),
    ],
)
def test_what_it_wants_is_said(home: House, arguments: tuple[str, ...]) -> None:
    before = home.raw(), home.raw("quarantine")
    assert run(*arguments).exit_code == 2
    assert (home.raw(), home.raw("quarantine")) == before
