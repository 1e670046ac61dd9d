from pathlib import Path

from flows import config as configs
from flows.demo import run
from flows.demo.traffic import WORKLOAD


def test_the_demos_workload_file_has_no_mistake(tmp_path: Path):
    base = tmp_path / "a base"
    logs = tmp_path / WORKLOAD / "logs"
    for file in (base / "config.json", logs / "day.jsonl.gz"):
        file.parent.mkdir(parents=True)
        file.touch()
    config = tmp_path / "workload.yaml"
    config.write_text(run.description(base))
    workload = configs.read(config)
    assert workload.workload == WORKLOAD
    assert workload.base == base
