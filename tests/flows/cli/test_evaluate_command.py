"""``flywheel evaluate`` as a person types it: scores of the side to tune on, and of no other."""

import re
from pathlib import Path

import pytest

from components import scorecard
from components.scorecard import VALIDATION
from components.store import manifest, warehouse
from flows import home_workloads
from flows.settings import load
from tests.components.evaluate.conftest import build_adapter, finish
from tests.support import small_workload_file
from tests.support.logs import NOW
from tests.support.small_workload_file import run

YAML = """\
workload: weather
base: base
sources: {logs: [logs/*.jsonl]}
curate: {holdout_share: 0.3, validation_share: 0.3}
evaluate: {precision: fp32, max_new_tokens: 4}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return small_workload_file.build(tmp_path, monkeypatch, YAML)


def frozen(config: Path) -> Path:
    """Freeze a snapshot, and name its folder."""
    collected = run("collect", config)
    assert collected.exit_code == 0, collected.stderr
    done = run("curate", config)
    assert done.exit_code == 0, done.stderr
    return Path(done.stdout.strip().splitlines()[-1]).parent


def trained(config: Path, snapshot: str, key: str = "c0ffee0011223344") -> Path:
    """Put a finished adapter where one that was trained on a snapshot lies."""
    folder = load().adapters / "weather" / key
    base = config.parent / "base"
    build_adapter(base, folder, seed=0)
    return finish(base, folder, snapshot=snapshot)


@pytest.mark.slow
def test_base_and_newest_adapter_are_scored_on_validation_rows_and_no_look_is_recorded(
    config: Path,
) -> None:
    snapshot = frozen(config)
    trained(config, snapshot.name)
    done = run("evaluate", config, "--side", "validation")
    assert done.exit_code == 0, done.stderr
    rows = int(re.findall(r"validation side: (\d+) requests in \1 clusters", done.stdout)[0])
    assert rows == manifest.read(snapshot)["rows"]["validation"]  # pyright: ignore[reportArgumentType, reportCallIssue, reportIndexIssue, reportOptionalSubscript]
    assert re.search(r"metric +n +clusters +base +c0ffee00 +constant +nearest\n", done.stdout), (
        done.stdout
    )
    assert re.search(rf"f1 +{rows} +{rows} +\d+\.\d% \(.* to .*\) +\d+\.\d% \(", done.stdout), (
        done.stdout
    )
    assert "…" not in done.stdout  # whole, in a terminal of 80 columns, too
    cards = [scorecard.read(one) for one in (load().scorecards / "weather").iterdir()]
    assert {one.task for one in cards} == {VALIDATION}
    with warehouse.connect(load().warehouse) as con:
        assert con.execute("select count(*) from raw.looks").fetchall() == [(0,)]

    times = [path.stat().st_mtime_ns for path in load().scorecards.rglob("*.parquet")]
    home_workloads.adopt(load(), "weather", config)  # `evaluate` takes any file all the same
    copy = config.with_name("tried.yaml")
    copy.write_text(config.read_text())
    again = run("evaluate", copy)
    assert again.stdout == done.stdout
    assert times == [path.stat().st_mtime_ns for path in load().scorecards.rglob("*.parquet")]


def test_the_holdout_is_refused_since_nothing_would_count_the_look(config: Path) -> None:
    done = run("evaluate", config, "--side", "holdout")
    assert done.exit_code == 2
    assert "`flywheel turn FILE` measures the holdout and records the look" in done.stderr
    assert not load().scorecards.exists()


def test_a_workload_without_validation_rows_is_told_how_to_get_some(config: Path) -> None:
    config.write_text(YAML.replace("validation_share: 0.3", "validation_share: 0.0"))
    frozen(config)
    done = run("evaluate", config)
    assert done.exit_code == 2
    assert "has no row there; set validation_share under curate" in done.stderr


@pytest.mark.parametrize(
    ("is_here", "message"),
    [
        pytest.param(True, "it has learned 2 of the rows", id="learned"),
        pytest.param(False, "whether it has learned rows of this side can't be told", id="gone"),
    ],
)
@pytest.mark.slow
def test_an_adapter_that_learned_validation_rows_is_not_measured_on_them(
    config: Path, *, is_here: bool, message: str
) -> None:
    snapshot = frozen(config)
    adapter = trained(config, "another")
    if is_here:
        import pyarrow.parquet as pq

        other = snapshot.with_name("another")
        other.mkdir()
        rows = pq.read_table(snapshot / "validation.parquet").slice(0, 2)
        pq.write_table(rows, other / "train.parquet")
        manifest.write(other, kind="snapshot", now=NOW, body={})
    done = run("evaluate", config, "--adapter", adapter, "--snapshot", snapshot)
    assert done.exit_code == 2
    assert message in done.stderr
