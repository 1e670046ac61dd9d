"""No request that is hard to write as a prompt holds other clients up."""

import threading
import time
from collections.abc import Generator
from typing import Any

import pytest

from components.serve import chat_request, served_prompt
from components.serve.openai_error import OpenAiError
from tests.support import gateways
from tests.support.gateways import RunningGateway

NUMBERS = 250_000
HUGE = {"type": "object", "properties": {"number": {"enum": [*range(NUMBERS)]}}}
TOOLS = [{"type": "function", "function": {"name": "pick", "parameters": HUGE}}]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningGateway]:
    with gateways.running(tmp_path_factory.mktemp("gateway")) as gateway:
        assert gateway.ask(tools=TOOLS).status_code == 200  # its process has started
        yield gateway


def test_a_huge_enum_of_one_client_delays_no_other(gateway: RunningGateway):
    took: list[float] = []

    def attack() -> None:
        began = time.perf_counter()
        assert gateway.ask(tools=TOOLS).status_code == 200
        took.append(time.perf_counter() - began)

    attacking, waits = threading.Thread(target=attack), list[float]()
    attacking.start()
    while attacking.is_alive():
        began = time.perf_counter()
        assert gateway.get("/v1/models").status_code == 200
        waits.append(time.perf_counter() - began)
    attacking.join()
    assert max(waits) < max(0.15, took[0] / 3), (max(waits), took)


def test_a_large_request_is_written_as_a_small_one(gateway: RunningGateway):
    text = "word " * 20_000 + gateways.script(say="yes")
    assert gateway.ask(text).status_code == 200
    request = chat_request.chat_of({"messages": [{"role": "user", "content": text}]})
    expected = served_prompt.render(request, gateways.served(gateway.home / "base")).text
    assert gateway.seen()["requests"][-1]["body"]["prompt"] == expected


def test_a_large_request_is_refused_with_the_reason_of_a_small_one(gateway: RunningGateway):
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}
    refusals: list[Any] = []
    for text in ("word", "word " * 20_000):
        messages = [
            {"role": "user", "content": text},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "1"},
        ]
        answer = gateway.post(
            "/v1/chat/completions", json={"model": "support", "messages": messages}
        )
        refusals.append((answer.status_code, answer.json()))
    assert refusals[0] == refusals[1]
    assert refusals[0][0] == 400


@pytest.mark.parametrize(
    ("calls", "arguments", "reason"),
    [
        pytest.param(24_000, "{}", "more than 512 calls", id="many-calls"),
        pytest.param(1, f'{{"a": "{"x" * 3_900_000}"}}', "3900009 characters", id="long-arguments"),
    ],
)
def test_a_history_of_too_many_or_too_long_calls_is_refused_unwritten(
    calls: int, arguments: str, reason: str
):
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    body: Any = {"messages": [{"role": "assistant", "tool_calls": [call] * calls}]}
    began = time.process_time()
    with pytest.raises(OpenAiError, match=reason):
        chat_request.chat_of(body)
    assert time.process_time() - began < 0.1
