"""The computing thread: what a failing step and a defect end, and memory while it is idle."""

import asyncio
import random
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from copy import copy
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch
from starlette.testclient import TestClient

from components.extensions.embedded import compute_thread
from components.extensions.embedded.answer_text import AnswerText
from components.extensions.embedded.compute_thread import ComputeThread, Parts
from components.extensions.embedded.continuous_batch import (
    AnswerRequest,
    ContinuousBatch,
    GeneratedPart,
    RunningAnswer,
)
from components.extensions.embedded.openai_server import EngineServer
from components.extensions.embedded.sampling import Sampler, SamplingSettings
from components.extensions.embedded.served_models import ServedModels
from components.extensions.embedded.shared_base import SharedBase
from tests.support import tiny

GREEDY = SamplingSettings(temperature=0)


def new_batch(base: SharedBase) -> ContinuousBatch:
    return ContinuousBatch(base, slots=1, stored_bytes=1 << 20, running_bytes=1 << 30)


def request(
    thread: ComputeThread, decode: Callable[[Sequence[int]], str], prompt: int = 7
) -> tuple[Parts, RunningAnswer]:
    """Return a request whose tokens become text by ``decode``."""
    parts: Parts = asyncio.Queue()
    asked = AnswerRequest((prompt,) * 20, 3, sampling=GREEDY)
    deliver, text = thread.deliver_to(parts), AnswerText(decode, ())
    return parts, RunningAnswer(asked, None, None, deliver, text, Sampler(GREEDY))


def raising(error: BaseException) -> Callable[[Sequence[int]], str]:
    def decode(_: Sequence[int]) -> str:
        raise error

    return decode


async def last(parts: Parts) -> GeneratedPart:
    async with asyncio.timeout(20):
        while (part := await parts.get()).finish is None:
            pass
    return part


@pytest.mark.parametrize("error", [RuntimeError("not enough memory"), MemoryError("none left")])
def test_a_failing_step_ends_the_running_requests_only(
    shared_base: SharedBase, error: Exception
) -> None:
    async def answers() -> list[GeneratedPart]:
        thread = ComputeThread(new_batch(shared_base), asyncio.get_running_loop(), 1)
        failing, waiting = request(thread, raising(error)), request(thread, str)
        for _, answer in (failing, waiting):
            thread.add(answer)
        parts = [await last(failing[0]), await last(waiting[0])]
        again = request(thread, str)
        thread.add(again[1])
        parts.append(await last(again[0]))
        assert not thread.has_failed
        thread.stop()
        return parts

    failed, *others = asyncio.run(answers())
    assert failed.finish == "error"
    assert str(error) in failed.problem
    assert [part.finish for part in others] == ["length", "length"]


@contextmanager
def serving(
    base: SharedBase, folder: Path
) -> Generator[tuple[EngineServer, TestClient, list[str]]]:
    ended: list[str] = []
    server = EngineServer(
        ServedModels(base, folder, "base", 1),
        new_batch(base),
        slots=1,
        queue=4,
        client_share=1,
        threads=1,
        on_failure=partial(ended.append, "failed"),
    )
    with TestClient(server.app) as client:
        yield server, client, ended


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(SystemExit("a defect"), id="defect"),
        # From then on every operation on the GPU fails, until the process ends.
        pytest.param(torch.AcceleratorError("CUDA error: illegal memory access"), id="cuda"),
    ],
)
def test_a_defect_of_the_engine_ends_its_requests_and_is_seen_in_its_health(
    shared_base: SharedBase, tiny_base: Path, error: BaseException
) -> None:
    with serving(shared_base, tiny_base) as (server, client, ended):
        assert client.get("/health").status_code == 200

        async def ask() -> list[GeneratedPart]:
            failing = request(server.thread, raising(error))
            waiting = request(server.thread, str)
            for _, answer in (failing, waiting):
                server.thread.add(answer)
            return [await last(failing[0]), await last(waiting[0])]

        assert client.portal is not None
        parts = client.portal.call(ask)
        assert {part.problem for part in parts} == {compute_thread.HAS_FAILED}
        assert ended == ["failed"]
        assert client.get("/health").status_code == 503
        body = {"model": "base", "prompt": "x", "max_tokens": 1}
        answer = client.post("/v1/completions", json=body)
        assert answer.status_code == 500
        assert answer.json()["error"]["message"] == compute_thread.HAS_FAILED


@pytest.mark.slow
def test_memory_that_was_freed_is_given_back_once_the_engine_is_idle(
    shared_base: SharedBase,
) -> None:
    resident = psutil.Process().memory_info

    async def held() -> tuple[int, int]:
        thread = ComputeThread(new_batch(shared_base), asyncio.get_running_loop(), 1)
        blocks = [random.randbytes(50_000) for _ in range(1600)]  # on the heap: below 128 KiB
        kept = blocks[::40]
        before = resident().rss
        del blocks
        parts, answer = request(thread, str)
        thread.add(answer)
        await last(parts)
        await asyncio.sleep(compute_thread.IDLE_SECONDS + 1)
        thread.stop()
        assert kept
        return before, resident().rss

    before, after = asyncio.run(held())
    assert before - after > 60e6


def test_an_error_of_the_engine_itself_has_openais_form(
    shared_base: SharedBase, tiny_base: Path
) -> None:
    server = EngineServer(
        ServedModels(shared_base, tiny_base, "base", 1), new_batch(shared_base),
        slots=1, queue=4, client_share=1, threads=1,
    )  # fmt: skip
    client = TestClient(server.app, raise_server_exceptions=False)  # not started: a defect
    answer = client.get("/health")
    assert answer.status_code == 500
    assert answer.json()["error"]["message"] == "the engine failed: AttributeError"


def test_the_first_constrained_answer_does_not_wait_for_the_vocabulary(
    shared_base: SharedBase, tiny_base: Path
) -> None:
    large = copy(shared_base)
    large.tokenizer = tiny.tokenizer([f"word{number}" for number in range(30_000)])
    large.vocabulary = len(large.tokenizer)
    begun = time.process_time()
    with serving(large, tiny_base) as (_, client, _):
        ready = time.process_time()
        grammar = {"model": "base", "prompt": "x", "structured_outputs": {"grammar": "start: ("}}
        assert client.post("/v1/completions", json=grammar).status_code == 400
        assert time.process_time() - ready < (ready - begun) / 2
