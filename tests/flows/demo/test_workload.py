from pathlib import Path

from components.chat import prompt
from components.train import augmentation
from components.train.augmentation import ToolRequest
from flows import workload_file as configs
from flows.cli import demo_command
from flows.demo import traffic
from flows.demo.traffic import WORKLOAD
from tests.support.training_rows import tool


def test_the_demos_workload_file_has_no_mistake(tmp_path: Path):
    base = tmp_path / "a base"
    logs = tmp_path / WORKLOAD / "logs"
    for file in (base / "config.json", logs / "day.jsonl.gz"):
        file.parent.mkdir(parents=True)
        file.touch()
    config = tmp_path / "workload.yaml"
    config.write_text(demo_command.workload_text(base))
    workload = configs.read_workload(config)
    assert workload.workload == WORKLOAD
    assert workload.base == base
    assert workload.curate.holdout_share == traffic.HOLDOUT_SHARE
    assert workload.curate.split_by == "tools", "traffic knows what is held out by it"


def test_what_the_demo_says_when_no_tool_fits_is_known_for_a_refusal():
    text = prompt.render_answer(traffic.NO_TOOL)
    logged = [
        ToolRequest([{"role": "user", "content": f"{number}?"}], [tool("add")], (), text, 1.0)
        for number in range(3)
    ]
    assert augmentation.find_refusal(logged) == (text, "")
