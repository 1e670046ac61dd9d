"""Long prompts are read beside other requests, and what can't fit isn't read."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from components.extensions.embedded.completion_request import CompletionRequest
from components.extensions.embedded.prompt_tokens import PromptError, PromptReader
from tests.support import tiny


def reader(context: int) -> PromptReader:
    tokenizer = tiny.tokenizer()
    base = SimpleNamespace(tokenizer=tokenizer, context=context, vocabulary=len(tokenizer))
    return PromptReader(cast("Any", base))


def asked(prompt: str) -> CompletionRequest:
    return CompletionRequest(model="base", prompt=prompt, user="crowd")


def test_a_long_prompt_is_read_while_other_requests_are_answered():
    waits: list[float] = []

    async def read() -> float:
        prompts = reader(context=100_000)
        began = time.perf_counter()
        reading = asyncio.create_task(prompts.read(asked("The quick brown fox. " * 15_000)))
        while not reading.done():
            last = time.perf_counter()
            await asyncio.sleep(0)
            waits.append(time.perf_counter() - last)
        return time.perf_counter() - began

    seconds = asyncio.run(read())
    assert max(waits) < max(0.2 * seconds, 0.05), (max(waits), seconds)


def test_a_prompt_that_can_not_fit_is_refused_without_being_read():
    began = time.process_time()
    for _ in range(8):
        with pytest.raises(
            PromptError, match=r"32768 bytes of text\. However, the prompt has 500000"
        ):
            asyncio.run(reader(context=2048).read(asked("x y z " * 83_333 + "xy")))
    assert time.process_time() - began < 1  # reading them takes 8 s
