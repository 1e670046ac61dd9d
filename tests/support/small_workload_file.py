"""A workload of twenty requests in a home of its own, and the command line as a person types it."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flows.cli import main
from tests.support import logs, tiny, warehouses


def run(*arguments: str | Path) -> Result:
    """Run ``flywheel`` with these arguments."""
    return CliRunner().invoke(main.app, list(map(str, arguments)))


def build(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Path:
    """Write a workload file beside its log and its base, and return its path."""
    monkeypatch.setenv("FLYWHEEL_HOME", str(folder / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    warehouses.create(folder / "home/warehouse.duckdb")
    tiny.build(folder / "base")
    lines = [
        logs.interaction(f"ask {n}", response_id=f"r{n}", timestamp=n, workload_id="weather")
        for n in range(20)
    ]
    (folder / "logs").mkdir()
    logs.write(folder / "logs/a.jsonl", lines)
    path = folder / "weather.yaml"
    path.write_text(text)
    return path
