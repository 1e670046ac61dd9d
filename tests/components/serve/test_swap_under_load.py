"""Swap under constant load: each answer says which version gave it."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from components.serve.settings import SwapSettings
from components.serve.swap import AdapterSwap
from tests.components.serve.test_swap import ask, swapping
from tests.support.fake_replicas import FakeReplica, fake_replica, stage


@dataclass
class Answers:
    """The answers to a constant load, judged by the routes at their begin and at their end."""

    right: int = 0
    wrong: list[str] = field(default_factory=list[str])
    by_word: Counter[str] = field(default_factory=Counter[str])


async def load(swap: AdapterSwap, answers: Answers, clients: int) -> None:
    async def client() -> None:
        while True:
            route = swap.current.routes["support"]
            answer = await ask(swap)
            answers.by_word[answer] += 1
            if answer == f"support-v{route.champion.version}":
                answers.right += 1
            else:
                answers.wrong.append(answer)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(clients):
            tasks.create_task(client())


async def swap_under_load(serve: Path, swaps: int, seconds: float, replicas: list[FakeReplica]):
    """Swap many times under load; kill a replica with -9 in the middle, and start it again."""
    answers = Answers()
    settings = SwapSettings(drain_seconds=20, min_ready=1)
    async with swapping(serve, *replicas, settings=settings) as swap:
        await swap.follow(stage(serve, "support", 1))
        loading = asyncio.create_task(load(swap, answers, clients=8))
        started = time.monotonic()
        for number in range(2, swaps + 2):
            if number == swaps // 2:
                replicas[-1].kill()
            if number == swaps // 2 + 3:
                await asyncio.to_thread(replicas[-1].start)
            await swap.follow(stage(serve, "support", number))
            await asyncio.sleep(max(0.0, started + number * seconds / swaps - time.monotonic()))
        await asyncio.sleep(1)
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        assert loading.cancelled()  # and did not fail
        names = swap.current.routes["support"].champion.replicas
    return answers, names


def test_swaps_under_load_give_no_wrong_and_no_failed_answer(tmp_path: Path):
    with fake_replica() as first, fake_replica() as second:
        answers, _ = asyncio.run(swap_under_load(tmp_path, 8, 8.0, [first, second]))
    assert answers.wrong == []
    assert answers.right > 100
    assert len(answers.by_word) == 9


@pytest.mark.slow
def test_hundred_swaps_and_ten_thousand_answers(tmp_path: Path):
    with fake_replica() as first, fake_replica() as second:
        answers, names = asyncio.run(swap_under_load(tmp_path, 100, 150.0, [first, second]))
    assert answers.wrong == []
    assert answers.right >= 10_000
    assert len(answers.by_word) == 101
    assert names == ("vllm-1", "vllm-2")
