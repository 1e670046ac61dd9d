"""Collect: load new log and feedback files into the warehouse."""

from datetime import UTC, datetime
from pathlib import Path

from prefect import flow, task
from prefect.logging import get_run_logger

from components import warehouse
from components.collect import feedback, interactions
from components.collect.loaded import Loaded
from flows import config as configs
from flows import settings


@flow(flow_run_name=configs.run_name)
def collect(config: str) -> str:
    """Load every file of the workload that was not loaded before; bad lines go to quarantine."""
    workload = configs.read(Path(config))
    loaded = load(workload.log_files(), workload.feedback_files())
    said = summary(loaded)
    get_run_logger().info(said)
    return said


@task
def load(logs: list[Path], feedback_files: list[Path]) -> list[Loaded]:
    """Load file by file, each whole or not at all."""
    now = datetime.now(UTC)
    with warehouse.connect(settings.load().warehouse) as con:
        return [
            *(interactions.load(con, path, now=now) for path in logs),
            *(feedback.load(con, path, now=now) for path in feedback_files),
        ]


def summary(loaded: list[Loaded]) -> str:
    """Say in one line what came of the files."""
    fresh = [file for file in loaded if not file.skipped]
    rows = sum(file.new for file in fresh)
    quarantined = sum(file.quarantined for file in fresh)
    return (
        f"{rows} new rows from {len(fresh)} new of {len(loaded)} files, "
        f"{quarantined} lines in quarantine"
    )
