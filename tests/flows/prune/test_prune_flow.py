"""The ``prune`` flow as a workload's file asks for it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from components.store import file_locks
from flows import settings
from flows.machines import erased_copies
from flows.prune.prune_flow import prune
from tests.support import mlflow_stores, nights
from tests.support.nights import ALL, GONE, NOW, WORKLOAD, Turn

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> settings.Settings:
    """A home with an MLflow store, whose newest turn was ten nights ago."""
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_stores.create(tmp_path))
    home = settings.load()
    Turn("newest", days=days_ago(10)).run(home)
    (tmp_path / "base").mkdir()
    (tmp_path / "base/config.json").write_text("{}")
    home.workloads.mkdir()
    (home.workloads / "support.yaml").symlink_to(tmp_path / "support.yaml")
    return home


def days_ago(days: int) -> int:
    """Return the age in a ``Turn`` of what is so old today."""
    return days - (datetime.now(UTC) - NOW) // timedelta(days=1)


def workload(folder: Path, **changes: int) -> str:
    path = folder / "support.yaml"
    path.write_text(yaml.safe_dump({"workload": WORKLOAD, "base": "base", **changes}))
    return str(path)


def test_what_is_older_than_the_file_says_goes_and_nothing_without_it(
    home: settings.Settings, tmp_path: Path
) -> None:
    old, younger = Turn("old", days_ago(40)).run(home), Turn("younger", days_ago(20)).run(home)
    others = Turn("other", days_ago(40), workload="routing").run(home)
    Turn("newer", days_ago(10), workload="routing").run(home)
    assert prune(workload(tmp_path)) == "all outputs of support stay: its file has no prune_days"
    assert nights.there(old) == ALL
    summary = prune(workload(tmp_path, prune_days=30))
    assert summary.startswith("deleted of support: evidence 1 ("), summary
    assert (nights.there(old), nights.there(younger), nights.there(others)) == (GONE, ALL, ALL)
    assert prune(workload(tmp_path, prune_days=30)) == "deleted of support: nothing"


def test_during_a_backup_it_is_left_to_the_next_run(
    home: settings.Settings, tmp_path: Path
) -> None:
    old = Turn("old", days_ago(40)).run(home)
    with file_locks.held(home.home / erased_copies.BEING_PRUNED, shared=True):
        assert "a backup, an erasure or another prune is under way" in prune(
            workload(tmp_path, prune_days=30)
        )
    assert nights.there(old) == ALL
