"""No schema that a client sends to the embedded engine stops other clients, or keeps it up."""

import signal
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.support import embedded_engine, hostile_schemas, tiny
from tests.support.embedded_engine import EngineProcess
from tests.support.hostile_schemas import Schema

MIB = 2**20


@pytest.fixture(scope="module")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("base"))


def ask(engine: EngineProcess, user: str, schema: Schema) -> httpx.Response:
    body: dict[str, Any] = {"model": "base", "prompt": "Hi", "max_tokens": 4, "user": user}
    return engine.http.post("/v1/completions", json=body | {"structured_outputs": {"json": schema}})


def slow(number: int) -> Schema:
    schema = hostile_schemas.SLOW["of merged properties"]
    return {**schema, "required": ["a", f"b{number}"]}


def plain(number: int) -> Schema:
    return hostile_schemas.of({"type": "string", "maxLength": 10 + number})


@pytest.mark.slow
def test_slow_schemas_delay_no_other_user_nor_the_end(tiny_base: Path, tmp_path: Path):
    with embedded_engine.running(tiny_base, tmp_path) as engine, ThreadPoolExecutor(20) as threads:
        assert ask(engine, "shop", plain(0)).status_code == 200  # starts the process
        process = psutil.Process(engine.process.pid)
        before = process.memory_info().rss
        attack = threads.submit(ask, engine, "evil", slow(0))
        time.sleep(0.1)
        began = time.monotonic()
        assert ask(engine, "shop", plain(1)).status_code == 200
        assert time.monotonic() - began < 4
        refused = attack.result()
        assert refused.status_code == 400
        assert "fewer or simpler `pattern`s" in refused.json()["error"]["message"]
        many = [threads.submit(ask, engine, f"evil {n}", slow(n)) for n in range(12)]
        time.sleep(1)
        assert process.memory_info().rss - before < 100 * MIB
        engine.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert engine.process.wait(60) == 0
        assert time.monotonic() - began < 10  # 38 s before
        assert {each.result().status_code for each in many} <= {400, 503}


@pytest.mark.slow
@pytest.mark.parametrize(
    "schema",
    [
        pytest.param(hostile_schemas.spelled(14, 60_000), id="a-name-in-many-spellings"),
        pytest.param(hostile_schemas.referring_leaves(10_000, 1_000_000), id="referring-leaves"),
        *[
            pytest.param(schema, id=name)
            for name, schema in hostile_schemas.PATTERNS_OF_ONE_TEXT.items()
        ],
    ],
)
def test_a_hostile_schema_is_refused_while_others_are_answered(
    engine: EngineProcess, schema: Schema
):
    with ThreadPoolExecutor(8) as threads:
        attacks = [threads.submit(ask, engine, "evil", schema) for _ in range(8)]
        waits = list[float]()
        while not all(each.done() for each in attacks):
            began = time.monotonic()
            assert ask(engine, "shop", plain(0)).status_code == 200
            waits.append(time.monotonic() - began)
        assert {each.result().status_code for each in attacks} == {400}
        assert max(waits) < 4


@pytest.fixture(scope="module")
def engine(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[EngineProcess]:
    with embedded_engine.running(tiny_base, tmp_path_factory.mktemp("engine")) as engine:
        assert ask(engine, "shop", plain(0)).status_code == 200  # starts the process
        yield engine
