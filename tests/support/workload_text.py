"""A workload file to read, right but for what a test changes."""

from pathlib import Path

import pytest
import yaml

from components.collect.source import Input
from flows.workload_file import Workload, WorkloadError, read_workload

RIGHT = {"workload": "support", "base": "base", "sources": {"logs": ["logs/*.jsonl"]}}
VALIDATED = {"validation_share": 0.1}
"""What a search wants of ``curate``."""


def write(folder: Path, **settings: object) -> Path:
    """Write ``RIGHT`` with some settings changed."""
    path = folder / "support.yaml"
    path.write_text(yaml.safe_dump(RIGHT | settings))
    return path


def logs_of(workload: Workload) -> list[Input]:
    """List a workload's log files, sorted."""
    return [one for one in workload.traffic().inputs if one.kind == "interactions"]


def places(inputs: list[Input]) -> list[Path]:
    return [Path(one.place) for one in inputs]


def mistakes(path: Path) -> list[str]:
    with pytest.raises(WorkloadError) as caught:
        read_workload(path)
    assert str(caught.value).startswith(f"{path}: {len(caught.value.mistakes)} mistake(s)\n")
    return caught.value.mistakes
