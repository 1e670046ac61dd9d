"""A process killed at any step of a swap leaves one version serving, and nothing else behind."""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.serve import routes
from tests.components.serve.test_swap import swapping
from tests.support.fake_replicas import fake_replica, stage
from tests.support.swap_load import ask


def kill_at(step: str, serve: Path, url: str, models: list[str], after: float, *more: str) -> None:
    """Start a process that swaps to the models in turn, and kill it ``after`` the step's line."""
    arguments = [*more, str(serve), url, "--", *models]
    process = subprocess.Popen([sys.executable, "-m", "tests.support.swap_process", *arguments])
    try:
        deadline = time.monotonic() + 60
        while not has_step(serve, step, models[-1]):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.001)
        time.sleep(after)
    finally:
        process.kill()
        process.wait()


def has_step(serve: Path, step: str, model: str) -> bool:
    journal = serve / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True) if journal.exists() else []
    read = [json.loads(line) for line in lines if line.endswith("\n")]
    return any((line["step"], line["model"]) == (step, model) for line in read)


@pytest.mark.parametrize(
    ("step", "after", "champions"),
    [
        pytest.param("intended", 0.0, {"2"}, id="before-the-load", marks=pytest.mark.slow),
        pytest.param("intended", 0.02, {"2"}, id="in-the-proof", marks=pytest.mark.slow),
        pytest.param("proved", 0.0, {"2", "3"}, id="before-the-flip", marks=pytest.mark.slow),
        pytest.param("flipped", 0.0, {"3"}, id="before-the-unload"),
    ],
)
def test_killed_swap_leaves_one_version_serving_and_nothing_else(
    tmp_path: Path, step: str, after: float, champions: set[str]
):
    async def restarted() -> None:
        async with swapping(tmp_path, replica) as swap:
            champion = swap.current.routes["support"].champion
            assert champion.version in champions
            assert await ask(swap) == f"support-v{champion.version}"
            listed = {model.name for model in await swap.replicas.engines["vllm-1"].list_loaded()}
            route = swap.current.routes["support"]
            assert route.previous is not None
            assert listed == {"the-base", route.champion.model, route.previous.model}
            for staged in versions:
                if staged.record_path.exists():
                    await swap.follow(staged)  # and every version can still be served
                    assert await ask(swap) == f"support-v{staged.version}"

    with fake_replica("--delay", "0.02") as replica:
        versions = [stage(tmp_path, "support", number) for number in (1, 2, 3)]
        kill_at(step, tmp_path, replica.url, [staged.model for staged in versions], after)
        assert routes.read(tmp_path / "routes.json")["support"].champion.version in champions
        asyncio.run(restarted())
