"""No schema that a client sends stops other clients' grammars, fills memory, or keeps a server."""

import asyncio
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest

from components.chat import answer_grammar, grammar_processes
from components.chat.answer_grammar import UnsupportedSchemaError
from components.chat.grammar_processes import (
    BusyCompilerError,
    GrammarProcesses,
    SlowSchemaError,
)
from components.receive import client_tokens
from tests.support import gateways, hostile_schemas
from tests.support.gateways import RunningGateway, script
from tests.support.hostile_schemas import Schema

LONGEST = grammar_processes.QUICK_SECONDS + grammar_processes.WAIT_SECONDS
MIB = 2**20


def task(schema: Schema, **more: Any) -> bytes:
    return orjson.dumps({"form": "written", "tools": [hostile_schemas.tool(schema)], **more})


def slow(number: int) -> Schema:
    """Write a schema that takes minutes; each number has another one."""
    schema = hostile_schemas.SLOW["of merged properties"]
    return {**schema, "required": ["a", f"b{number}"]}


def plain(number: int) -> Schema:
    return hostile_schemas.of({"type": "string", "maxLength": 10 + number})


@pytest.mark.parametrize("name", hostile_schemas.PATTERNS_OF_ONE_TEXT)
def test_of_one_text_only_a_few_patterns_may_be_demanded(name: str):
    tool = hostile_schemas.tool(hostile_schemas.PATTERNS_OF_ONE_TEXT[name])
    with pytest.raises(UnsupportedSchemaError, match="more than 4 `pattern`s"):
        answer_grammar.of_request("written", [tool], "required")


def test_patterns_of_different_texts_are_no_few():
    texts = {f"p{n}": {"type": "string", "pattern": f"^x{n}"} for n in range(20)}
    schema = {"allOf": [{"type": "object", "properties": texts}]}
    tool = hostile_schemas.tool({"type": "object", "properties": {"a": schema}})
    assert answer_grammar.of_request("written", [tool], "required") is not None


def test_a_name_of_many_spellings_takes_no_time():
    tool = hostile_schemas.tool(hostile_schemas.spelled(14, 60_000))
    began = time.process_time()
    with pytest.raises(UnsupportedSchemaError, match="too many levels"):
        answer_grammar.of_request("written", [tool], "required")
    assert time.process_time() - began < 2  # more than a minute before


def test_leaves_that_repeat_definitions_take_no_memory():
    tool = hostile_schemas.tool(hostile_schemas.referring_leaves(1_000, 20_000))
    tracemalloc.start()
    with pytest.raises(UnsupportedSchemaError):
        answer_grammar.of_request("written", [tool], "required")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 10 * MIB  # 60 MiB before


@pytest.mark.slow
def test_one_client_s_slow_schema_is_refused_and_delays_no_other_client_nor_the_end(tmp_path: Path):
    with gateways.running(tmp_path) as gateway, ThreadPoolExecutor(4) as threads:
        evil = client_of(gateway, "evil")
        ask(gateway, plain(0))  # starts the process
        before = psutil.Process(gateway.process.pid).memory_info().rss
        attack = threads.submit(ask, evil, slow(0))
        time.sleep(0.1)
        began = time.monotonic()
        assert ask(gateway, plain(1)).status_code == 200
        assert time.monotonic() - began < 4  # for ever before
        refused = attack.result()
        assert refused.status_code == 400
        assert "fewer or simpler `pattern`s" in refused.json()["error"]["message"]
        began = time.monotonic()
        assert ask(evil, slow(0)).status_code == 400
        assert time.monotonic() - began < 1  # it is remembered
        assert psutil.Process(gateway.process.pid).memory_info().rss - before < 100 * MIB
        for number in range(1, 4):
            threads.submit(ask, evil, slow(number))
        time.sleep(0.5)
        began = time.monotonic()
        gateway.stop()
        assert time.monotonic() - began < 10


def test_who_uses_more_than_a_share_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(grammar_processes, "BURST_SECONDS", 0.0)

    async def compile_for(grammars: GrammarProcesses) -> BusyCompilerError:
        await grammars.compile("evil", task(plain(0)))
        with pytest.raises(BusyCompilerError) as refused:
            await grammars.compile("evil", task(plain(1)))
        assert await grammars.compile("evil", task(plain(0))) is not None  # is there already
        assert await grammars.compile("shop", task(plain(1))) is not None
        return refused.value

    error = run(compile_for)
    assert error.is_share
    assert error.retry_after >= 1


@pytest.mark.slow
def test_what_a_process_takes_to_load_is_no_client_s_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(grammar_processes, "WAIT_SECONDS", 0.2)  # loading takes twice as long

    async def compile_for(grammars: GrammarProcesses) -> str | None:
        return await grammars.compile("shop", task(plain(0)))

    assert run(compile_for) is not None  # refused, and remembered as too slow, before


def test_what_a_library_quotes_of_a_schema_is_in_no_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    name = "patient Jane Doe, 12 Elm Street"
    schema = {"type": "object", "required": [name], "properties": {name: False}}
    champion = {"constrained": True}
    settings = {"fallbacks": [{"url": "http://127.0.0.1:9/v1", "model": "m"}]}
    with gateways.running(tmp_path, settings, champion=champion, is_forked=False) as gateway:
        assert gateway.ask("Hi", tools=[hostile_schemas.tool(schema)]).status_code == 200
        failing = script(status=500, message=f"no memory for {name}")
        assert gateway.ask(failing).status_code >= 500
    written = capfd.readouterr().err
    assert "are not held to their schemas: UnsupportedSchemaError" in written
    assert "failed a request: 500" in written
    assert "the fallback" in written
    assert "Jane" not in written


@pytest.mark.slow
@pytest.mark.parametrize("name", hostile_schemas.SLOW)
def test_whatever_a_schema_demands_has_a_deadline(name: str):
    schema = hostile_schemas.SLOW[name]

    async def compile_for(grammars: GrammarProcesses) -> None:
        await grammars.compile("shop", task(plain(0)))
        began = time.monotonic()
        for more in ({}, {"tool_choice": "required", "may_be_loose": True}):
            try:
                await grammars.compile("evil", task(schema, **more))
            except UnsupportedSchemaError:
                continue
        assert time.monotonic() - began < 2 * LONGEST + 2
        assert await grammars.compile("shop", task(plain(1))) is not None

    run(compile_for)


@pytest.mark.slow
def test_a_client_with_many_slow_schemas_uses_its_own_share_only():
    async def compile_for(grammars: GrammarProcesses) -> tuple[list[Exception], list[float]]:
        async def attack(number: int) -> Exception:
            try:
                await grammars.compile("evil", task(slow(number)))
            except (SlowSchemaError, BusyCompilerError) as error:
                return error
            raise AssertionError

        attacks = [asyncio.create_task(attack(number)) for number in range(40)]
        waits = list[float]()
        while not all(each.done() for each in attacks):
            began = time.monotonic()
            await grammars.compile("shop", task(plain(len(waits))))
            waits.append(time.monotonic() - began)
            await asyncio.sleep(0.05)
        return [each.result() for each in attacks], waits

    refusals, waits = run(compile_for)
    compiled = sum(isinstance(each, SlowSchemaError) for each in refusals)
    assert compiled <= 8  # of 40
    assert sorted(waits)[len(waits) // 2] < 0.15
    assert max(waits) < 4


@pytest.mark.slow
def test_many_clients_with_a_slow_schema_each_let_others_through():
    async def compile_for(grammars: GrammarProcesses) -> list[float]:
        evil = [
            asyncio.create_task(grammars.compile(f"evil {n}", task(slow(n)))) for n in range(12)
        ]
        waits = list[float]()
        until = time.monotonic() + 15
        while time.monotonic() < until:
            began = time.monotonic()
            await grammars.compile("shop", task(plain(len(waits))))
            waits.append(time.monotonic() - began)
            await asyncio.sleep(0.05)
        await grammars.close()
        await asyncio.gather(*evil, return_exceptions=True)
        return waits

    waits = run(compile_for)
    assert sorted(waits)[len(waits) // 2] < 0.3  # 36 s before
    assert max(waits) < 12 * 1.0  # each attacker's first turn; 19 s before


def client_of(gateway: RunningGateway, name: str) -> RunningGateway:
    token = client_tokens.add_token(gateway.home / "tokens.json", name, now=datetime.now(UTC))
    return RunningGateway(gateway.process, gateway.url, token, gateway.home, gateway.engines)


def ask(gateway: RunningGateway, schema: Schema) -> Any:
    return gateway.ask("Hi", tools=[hostile_schemas.tool(schema)], tool_choice="required")


def run(compile_for: Any) -> Any:
    async def to_end() -> Any:
        grammars = GrammarProcesses()
        try:
            return await compile_for(grammars)
        finally:
            await grammars.close()

    return asyncio.run(to_end())
