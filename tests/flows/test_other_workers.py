"""On a real stack: what measures has other libraries than what orders the stages."""

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import cast

import httpx
import pytest

from components import scorecard
from tests.flows import small, terminal
from tests.flows.terminal import Terminal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

OTHER = version("rouge-score") + "+cuda"
"""What the worker of the gpu pool says that it has of a library."""


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Terminal]:
    shell = terminal.in_home(tmp_path / "home")
    assert shell.run("up").returncode == 0
    yield shell
    shell.run("down")


def test_a_turn_takes_the_scorecards_that_its_worker_wrote(shell: Terminal, tmp_path: Path) -> None:
    config = small.write(tmp_path / "small")
    run_elsewhere(shell, tmp_path / "image")
    turn = shell.start("turn", config)
    said = terminal.said_until_asked(turn)
    turn.terminate()
    turn.communicate()
    assert terminal.QUESTION in said, said
    cards = (shell.settings.scorecards / small.WORKLOAD).iterdir()
    libraries = [scorecard.read(card).conditions["libraries"] for card in cards]
    assert [cast("dict[str, str]", one)["rouge-score"] for one in libraries] == [OTHER] * 2

    assert shell.run("approve", "--as", "ann").returncode == 0
    again = shell.run("turn", config)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "champion already" in again.stdout


def run_elsewhere(shell: Terminal, image: Path) -> None:
    """Have evaluations see other metadata of one library, as in an image of their own."""
    told = image / "rouge_score-0.dist-info"
    told.mkdir(parents=True)
    (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: rouge-score\nVersion: {OTHER}\n")
    with httpx.Client(base_url=shell.settings.prefect_api_url, trust_env=False) as prefect:
        found = prefect.get("/deployments/name/evaluate/evaluate").raise_for_status().json()
        env = {**found["job_variables"].get("env", {}), "PYTHONPATH": str(image)}
        changed = {"job_variables": {**found["job_variables"], "env": env}}
        prefect.patch(f"/deployments/{found['id']}", json=changed).raise_for_status()
