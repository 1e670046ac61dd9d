"""LiteLLM, LangChain, OpenAI's agents and a fuzzer ask a gateway.

A LiteLLM proxy's answers come to the receiver.

Run by `make test-clients`, in an environment of its own.
"""

import asyncio
import importlib.util
import json
import operator
import os
import subprocess
import sys
from collections.abc import Generator
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

import openai
import pytest
from pydantic import BaseModel, SecretStr

from tests.support import gateways, logs, receivers
from tests.support.gateways import RunningGateway, script
from tests.support.scripted_engine import ANSWER

pytestmark = pytest.mark.clients

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or else it asks GitHub for prices

ROOT = Path(__file__).parents[3]
CALL = '{"name": "weather", "arguments": {"city": "Oslo"}}'


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningGateway]:
    home = tmp_path_factory.mktemp("fuzzed")
    everything = {"routing": [{"workload": "support", "client": "*"}]}  # whatever the model
    with gateways.running(home, everything) as gateway:
        yield gateway


def test_litellm_asks(gateway: RunningGateway):
    litellm = pytest.importorskip("litellm")
    options: dict[str, Any] = {
        "model": "openai/support",
        "api_base": f"{gateway.url}/v1",
        "api_key": gateway.token,
    }
    messages = [{"role": "user", "content": "Hi"}]
    answer: Any = litellm.completion(messages=messages, **options)
    assert answer.choices[0].message.content == ANSWER
    chunks: Any = litellm.completion(messages=messages, stream=True, **options)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER
    asked = [{"role": "user", "content": script(say=CALL)}]
    called: Any = litellm.completion(messages=asked, tools=[logs.WEATHER], **options)
    (call,) = called.choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Oslo"}
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(messages=messages, **(options | {"model": "openai/nothing"}))
    with pytest.raises(litellm.AuthenticationError):
        litellm.completion(messages=messages, **(options | {"api_key": "x"}))


@pytest.mark.parametrize("is_of_responses", [False, True], ids=["chat", "responses"])
def test_langchain_asks(gateway: RunningGateway, is_of_responses: bool):
    tools = pytest.importorskip("langchain_core.tools")
    langchain_openai = pytest.importorskip("langchain_openai")

    def weather(city: str) -> str:
        """Tell the weather."""
        return f"dry in {city}"

    class Forecast(BaseModel):
        city: str

    model = langchain_openai.ChatOpenAI(
        base_url=f"{gateway.url}/v1",
        api_key=SecretStr(gateway.token),
        model="support",
        use_responses_api=is_of_responses,
    )
    bound = model.bind_tools([tools.tool(weather)])
    answer = model.invoke("Hi")
    assert answer.text == ANSWER
    assert answer.response_metadata["model_name"] == "support@7"
    assert "".join(chunk.text for chunk in model.stream("Hi")) == ANSWER
    called = bound.invoke(script(say=CALL))
    assert called.tool_calls[0]["args"] == {"city": "Oslo"}
    streamed: Any = reduce(operator.add, bound.stream(script(say=CALL)))
    (call,) = streamed.tool_calls
    assert call["args"] == {"city": "Oslo"}
    for method in ("json_schema", "function_calling", "json_mode"):
        said = script(say='{"city": "Oslo"}' if method != "function_calling" else
                      '{"name": "Forecast", "arguments": {"city": "Oslo"}}')  # fmt: skip
        structured = model.with_structured_output(Forecast, method=method)
        assert structured.invoke(said) == Forecast(city="Oslo")


def test_langchains_streams_can_be_judged(gateway: RunningGateway):
    langchain_openai = pytest.importorskip("langchain_openai")
    model = langchain_openai.ChatOpenAI(
        base_url=f"{gateway.url}/v1",
        api_key=SecretStr(gateway.token),
        model="support",
        include_response_headers=True,
    )
    first, *_ = model.stream("Hi")
    require_judged(gateway, first.response_metadata["headers"]["x-request-id"])


@pytest.mark.parametrize("model", ["OpenAIResponsesModel", "OpenAIChatCompletionsModel"])
def test_openais_agents_call_and_can_be_judged(gateway: RunningGateway, model: str):
    agents = pytest.importorskip("agents")
    agents.set_tracing_disabled(True)

    @agents.function_tool
    def weather(city: str) -> str:
        """Tell the weather."""
        return f"dry in {city}"

    client = openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.token)
    agent = agents.Agent(
        name="forecaster",
        model=getattr(agents, model)("support", client),
        tools=[weather],
        tool_use_behavior="stop_on_first_tool",
    )

    async def ask() -> list[Any]:
        streamed = agents.Runner.run_streamed(agent, script(say=CALL))
        async for _ in streamed.stream_events():
            pass
        return [streamed, await agents.Runner.run(agent, script(say=CALL))]

    for done in asyncio.run(ask()):
        assert done.final_output == "dry in Oslo"
        require_judged(gateway, done.raw_responses[-1].request_id)


def require_judged(gateway: RunningGateway, response_id: str) -> None:
    vote = {"response_id": response_id, "kind": "thumb", "value": "up"}
    assert gateway.post("/v1/feedback", json=vote).status_code == 200


def test_schemathesis_finds_nothing(fuzzed: RunningGateway, tmp_path: Path):
    report = tmp_path / "junit.xml"
    command = [
        Path(sys.executable).with_name("schemathesis"), "run", f"{fuzzed.url}/openapi.json",
        "--header", f"Authorization: Bearer {fuzzed.token}",
        "--checks", "all", "--exclude-checks", "positive_data_acceptance,use_after_free",
        "--max-examples", "100", "--seed", "1",
        "--report-junit-path", str(report), "--report", "junit", "--no-color",
    ]  # fmt: skip
    # It keeps notes in the folder where it is run.
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert fuzzed.ask().status_code == 200


def bridge() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bridge", ROOT / "infra" / "litellm_bridge.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_bridge_ships_what_litellm_answers(
    gateway: RunningGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    litellm = pytest.importorskip("litellm")
    options: dict[str, Any] = {
        "model": "openai/support",
        "api_base": f"{gateway.url}/v1",
        "api_key": gateway.token,
    }

    async def ask(flywheel: Any, receiver: receivers.Receiver) -> None:
        for number in range(3):
            answer: Any = await litellm.acompletion(
                messages=[{"role": "user", "content": f"Hi {number} {script(say=CALL)}"}],
                tools=[logs.WEATHER],
                # What the proxy adds when its client leaves; LiteLLM says that the answer stopped.
                metadata={"workload_id": "shop", "session_id": "s1"}
                | ({"client_disconnected": True} if number == 1 else {}),
                max_completion_tokens=50,
                stream=number == 2,
                **options,
            )
            if number == 2:
                async for _ in answer:
                    pass
        shipped = 'records_total{client_id="app",kind="interactions"} 3.0'
        for _ in range(200):
            if shipped in receiver.get("/metrics").text:
                return
            await asyncio.sleep(0.1)
        raise AssertionError(receiver.get("/metrics").text)

    with receivers.running(tmp_path) as receiver:
        monkeypatch.setenv("FLYWHEEL_URL", receiver.url)
        monkeypatch.setenv("FLYWHEEL_TOKEN", receiver.token)
        flywheel = bridge().flywheel
        monkeypatch.setattr(litellm, "callbacks", [flywheel])
        asyncio.run(ask(flywheel, receiver))
        receiver.stop()
        records = [json.loads(entry.body) for entry in receiver.stored()]
    bodies = [
        record for batch in records for record in (batch if isinstance(batch, list) else [batch])
    ]
    assert [record.get("finish") for record in bodies] == [None, "client_gone", None]
    for record in bodies:
        assert record["workload_id"] == "shop"
        assert record["conversation_id"] == "s1"
        assert record["request"]["tools"] == [logs.WEATHER]
        assert record["request"]["max_completion_tokens"] == 50
        (call,) = record["response"]["choices"][0]["message"]["tool_calls"]
        assert json.loads(call["function"]["arguments"]) == {"city": "Oslo"}
