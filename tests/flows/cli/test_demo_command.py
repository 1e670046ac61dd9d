"""One real demo turn: a real model, real traffic, nobody at the terminal."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.receive.settings import Limits
from components.store import warehouse
from flows import settings
from tests.support import logins

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]

FLYWHEEL = str(Path(sys.executable).with_name("flywheel"))
SEALED_SECONDS = Limits().segment_seconds
ASK = """
import json, mlflow
model = mlflow.pyfunc.load_model("models:/tool-calls@champion")
tool = {"name": "get_weather", "description": "Tells the weather of a city.", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}
request = {"messages": [{"role": "user", "content": "What's the weather in Oslo?"}],
           "tools": [{"type": "function", "function": tool}]}
print(json.dumps(model.predict(request)["choices"][0]["message"]))
"""


@pytest.fixture
def env(tmp_path: Path) -> Iterator[dict[str, str]]:
    env = os.environ | {
        "FLYWHEEL_HOME": str(tmp_path),
        "FLYWHEEL_PREFECT_PORT": free_port(),
        "FLYWHEEL_MLFLOW_PORT": free_port(),
        "FLYWHEEL_SERVE_PORT": free_port(),
    }
    yield env
    subprocess.run([FLYWHEEL, "down"], env=env, check=True)


def test_demo_ends_with_a_measured_champion_and_has_nothing_to_do_the_second_time(
    env: dict[str, str], tmp_path: Path
) -> None:
    first = demo(env)
    assert "tool-calls version 1 (models:/tool-calls@champion)" in first
    scores = verdict(tmp_path)["scores"]
    assert scores["correct_name"]["n"] >= 60
    assert scores["name"]["opponent"] < 0.05
    assert scores["name"]["challenger"] >= 0.40
    assert scores["abstention"]["challenger"] >= scores["abstention"]["opponent"] - 0.10
    assert adapters(tmp_path) == 1

    second = demo(env)
    assert second.count("(done before)") == 4, "train and evaluate, on the way and in the summary"
    assert "tool-calls version 1 (models:/tool-calls@champion)" in second
    assert adapters(tmp_path) == 1

    subprocess.run([FLYWHEEL, "up"], env=env, check=True)
    uri = {"MLFLOW_TRACKING_URI": logins.mlflow(settings.load(env)).tracking_uri}
    asked = subprocess.run(
        [sys.executable, "-c", ASK], env=env | uri, cwd="/", check=True, capture_output=True
    )
    message = json.loads(asked.stdout.splitlines()[-1])
    assert message["role"] == "assistant"
    assert message["content"] or message["tool_calls"]
    asks_and_judges_by_the_printed_lines(first, env)


def asks_and_judges_by_the_printed_lines(printed: str, env: dict[str, str]) -> None:
    ask, judge = (line for line in printed.splitlines() if line.startswith("curl "))
    answer = json.loads(shell(f"{ask} --silent --retry 60 --retry-all-errors --fail", env))
    assert answer["model"] == "tool-calls@1"
    assert shell(f"{judge.replace('ID', answer['id'])} --silent --fail", env)
    time.sleep(2 * SEALED_SECONDS)
    shell(f"{FLYWHEEL} collect", env)
    with warehouse.connect(Path(env["FLYWHEEL_HOME"]) / "warehouse.duckdb") as con:
        ((given,),) = con.execute(
            "select payload::varchar from raw.feedback where response_id = ?", [answer["id"]]
        ).fetchall()
        ((answered,),) = con.execute(
            "select payload::varchar from raw.interactions where contains(payload::varchar, ?)",
            [answer["id"]],
        ).fetchall()
    assert json.loads(given)["value"] == "up"
    assert json.loads(answered)["response"]["model"] == "tool-calls@1"


def shell(line: str, env: dict[str, str]) -> str:
    ended = subprocess.run(["bash", "-c", line], env=env, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def demo(env: dict[str, str]) -> str:
    """Run the demo as CI would, without a terminal; give what it printed."""
    ended = subprocess.run(
        [FLYWHEEL, "demo"],
        env=env,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    return ended.stdout


def verdict(home: Path) -> dict[str, dict[str, dict[str, float]]]:
    (file,) = home.glob("evidence/tool-calls/*/verdict.json")
    return json.loads(file.read_text())


def adapters(home: Path) -> int:
    return len(list(home.glob("adapters/tool-calls/*/manifest.json")))


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
