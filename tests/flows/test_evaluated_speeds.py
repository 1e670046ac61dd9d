"""How fast each version answered in its evaluation, by which its requests are priced."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

from components.costs import Speed, Work
from components.store import manifest
from flows import monitor
from flows.settings import Settings

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FAST = Speed(10, 5000, 1000, 4.0, "a machine", work=Work(6.0, "core", 2))
SLOW = Speed(10, 5000, 1000, 40.0, "a machine", work=Work(60.0, "core", 2))


def write_card(
    home: Settings, key: str, adapter: str | None, speed: Speed | None, hours: int, task: str
) -> None:
    folder = home.scorecards / "weather" / key
    folder.mkdir(parents=True)
    measured = {"speed": asdict(speed)} if speed else {}
    body = {"base": "b1", "adapter": adapter, "task": task, **measured}
    manifest.write(folder, kind="scorecard", now=NOW + timedelta(hours=hours), body=body)


def test_the_newest_evaluation_on_the_holdout_counts(tmp_path: Path) -> None:
    home = Settings(tmp_path, 4200, 5000)
    write_card(home, "k1", "a1", SLOW, 1, "holdout")
    write_card(home, "k2", "a1", FAST, 2, "holdout")
    write_card(home, "k3", "a1", SLOW, 3, "gsm8k")
    write_card(home, "k4", None, FAST, 4, "holdout")
    write_card(home, "k5", "production", None, 4, "holdout")
    (home.scorecards / "weather" / "unfinished").mkdir()
    assert monitor.evaluated_speeds(home, "weather") == {"a1": FAST}
    assert monitor.evaluated_speeds(home, "other") == {}
