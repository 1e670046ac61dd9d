from pathlib import Path

from components import prompt
from components.train import irrelevant
from components.train.offers import Request
from flows import config as configs
from flows.demo import run, traffic, users
from flows.demo.traffic import WORKLOAD
from tests.train.rows import tool


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
    assert workload.curate.holdout_share == traffic.HOLDOUT_SHARE
    assert workload.curate.split_by == "tools", "traffic knows what is held out by it"


def test_what_the_demo_says_when_no_tool_fits_is_known_for_a_refusal():
    said = prompt.render_answer(users.NO_TOOL)
    logged = [
        Request([{"role": "user", "content": f"{number}?"}], [tool("add")], (), said, 1.0)
        for number in range(3)
    ]
    assert irrelevant.find_refusal(logged) == (said, "")
