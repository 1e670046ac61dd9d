"""Swaps of real replicas, asked as a gateway asks them; and many of them under constant load."""

import asyncio
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from components.serve.engines.serving_engine import Generation, ServingEngine, UpstreamError
from components.serve.routes import Current
from components.serve.settings import SwapSettings, SwapTimes
from components.serve.staged_version import StagedVersion
from components.serve.swap import AdapterSwap

FAILED = "failed"
CLIENTS = 8
SWAPS_WITHOUT = 3  # swaps between the kill of a replica and its start
BACK_SECONDS = 300.0


class KillableReplica(Protocol):
    """A replica's process; ``kill`` is ``kill -9``."""

    def kill(self) -> None: ...

    def start(self) -> None: ...


@dataclass
class SwapRun:
    """What the clients were answered, judged by the routes that each request read."""

    answers: Counter[str] = field(default_factory=Counter[str])
    wrong: list[str] = field(default_factory=list[str])
    swap_seconds: list[float] = field(default_factory=list[float])
    seconds: float = 0.0

    def __str__(self) -> str:
        failed = self.wrong.count(FAILED)
        return (
            f"{self.answers.total()} answers, {len(self.wrong) - failed} wrong, {failed} failed, "
            f"{len(self.swap_seconds)} swaps in {self.seconds:.0f} s; a swap took "
            f"{statistics.median(self.swap_seconds):.2f} s (median), at most "
            f"{max(self.swap_seconds):.2f} s"
        )


@asynccontextmanager
async def running_swap(
    serve: Path,
    engines: Mapping[str, ServingEngine],
    settings: SwapSettings,
    times: SwapTimes,
    *,
    max_residents: int = 8,
) -> AsyncGenerator[AdapterSwap]:
    """Run a swap over these replicas, and over those that the block adds."""
    swap = AdapterSwap(
        serve, {**engines}, Current(), settings, times=times, max_residents=max_residents
    )
    await swap.start()
    watching = asyncio.create_task(swap.replicas.run())
    try:
        yield swap
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await swap.close()
        for engine in engines.values():
            await engine.close()


async def ask(
    swap: AdapterSwap,
    workload: str = "support",
    *,
    prompt: str = "What is it? >",
    max_tokens: int = 20,
) -> str:
    """Answer a request as the gateway does: route once, try each replica before the first byte."""
    route = swap.current.enter(workload)
    assert route is not None, "nobody serves"
    try:
        for name in route.champion.replicas:
            engine = swap.replicas.engines[name]
            try:
                generation = Generation(prompt, max_tokens=max_tokens)
                pieces = [p.text async for p in engine.complete(route.champion.model, generation)]
                return "".join(pieces)
            except UpstreamError as error:
                swap.replicas.report(name, error)
        return FAILED
    finally:
        swap.current.leave(workload, route.epoch)


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


def replicas_of(swap: AdapterSwap, workload: str = "support") -> tuple[str, ...]:
    route = swap.current.routes.get(workload)
    return route.champion.replicas if route else ()


async def hundred_swaps(
    swap: AdapterSwap,
    versions: Sequence[StagedVersion],
    word_of: Callable[[str], str],
    killed: KillableReplica,
    prompt: str,
) -> None:
    """Follow real engines' versions under load; print the run, and require 10,000 right answers."""
    run = await swap_under_load(
        swap,
        versions,
        word_of,
        killed,
        answers=10_000,
        prompt=prompt,
        max_tokens=len(word_of("1")),
    )
    sys.stdout.write(f"{run}\n")
    assert run.wrong == [], str(run)
    assert run.answers.total() >= 10_000
    assert {*run.answers} == {word_of(staged.version) for staged in versions}


async def swap_under_load(
    swap: AdapterSwap,
    versions: Sequence[StagedVersion],
    word_of: Callable[[str], str],
    killed: KillableReplica,
    *,
    answers: int,
    prompt: str = "What is it? >",
    max_tokens: int = 20,
) -> SwapRun:
    """Follow each version under load, with at least so many answers of all, and return the run.

    ``killed`` is killed in the middle and started three swaps later; the rest of the swaps are of
    all replicas again. ``word_of`` returns the answer of a version's number.
    """
    run, swaps = SwapRun(), len(versions) - 1

    async def client() -> None:
        while True:
            route = swap.current.routes["support"]
            answer = await ask(swap, prompt=prompt, max_tokens=max_tokens)
            run.answers[answer] += 1
            if answer != word_of(route.champion.version):
                run.wrong.append(answer)

    await swap.follow(versions[0])
    names, started = replicas_of(swap), time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        clients = [tasks.create_task(client()) for _ in range(CLIENTS)]
        for number, staged in enumerate(versions[1:], start=1):
            if number == swaps // 2:
                killed.kill()
            if number == swaps // 2 + SWAPS_WITHOUT:
                await asyncio.to_thread(killed.start)
                await until(lambda: replicas_of(swap) == names, BACK_SECONDS)
            began = time.monotonic()
            await swap.follow(staged)
            run.swap_seconds.append(time.monotonic() - began)
            while run.answers[word_of(staged.version)] < answers / swaps:
                await asyncio.sleep(0.01)
        # A replica that is late with the last one joins it when it has proved it.
        await until(lambda: replicas_of(swap) == names, BACK_SECONDS)
        run.seconds = time.monotonic() - started
        for task in clients:
            task.cancel()
    return run
