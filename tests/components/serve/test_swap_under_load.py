"""Swap fake engines under constant load: each answer says which version gave it."""

import asyncio
from pathlib import Path

import pytest

from components.serve.settings import SwapSettings, SwapTimes
from tests.components.serve.test_swap import swapping
from tests.support.fake_replicas import fake_replica, stage
from tests.support.swap_load import SwapRun, swap_under_load


def run_swaps(serve: Path, swaps: int, answers: int) -> SwapRun:
    async def scenario() -> SwapRun:
        versions = [stage(serve, "support", number) for number in range(1, swaps + 2)]
        settings, times = SwapSettings(min_ready=1), SwapTimes(drain=20)
        async with swapping(
            serve, first, second, settings=settings, times=times, patience_seconds=30
        ) as swap:
            return await swap_under_load(
                swap, versions, "support-v{}".format, second, answers=answers
            )

    with fake_replica() as first, fake_replica() as second:
        return asyncio.run(scenario())


@pytest.mark.slow
def test_swaps_under_load_give_no_wrong_and_no_failed_answer(tmp_path: Path):
    run = run_swaps(tmp_path, 8, 200)
    assert run.wrong == []
    assert len(run.answers) == 9


@pytest.mark.slow
def test_hundred_swaps_and_ten_thousand_answers(tmp_path: Path):
    run = run_swaps(tmp_path, 100, 10_000)
    assert run.wrong == [], str(run)
    assert run.answers.total() >= 10_000
    assert len(run.answers) == 101
