"""The bridge for LiteLLM's proxy, without LiteLLM: a refused record takes none along."""

import asyncio
import importlib.util
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from components.receive import client_tokens
from components.receive.settings import Limits
from tests.infra.pages import INFRA
from tests.support import receivers


class Answer:
    """What LiteLLM hands to a callback."""

    def model_dump(self, mode: str) -> dict[str, Any]:
        assert mode == "json"
        return {"choices": [{"message": {"role": "assistant", "content": "Yes"}}]}


@pytest.fixture
def bridge(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The callback, over a base class in the place of LiteLLM's."""
    logger = ModuleType("litellm.integrations.custom_logger")
    logger.CustomLogger = object  # type: ignore[attr-defined]
    for name in ("litellm", "litellm.integrations"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, logger.__name__, logger)
    spec = importlib.util.spec_from_file_location("bridge", INFRA / "litellm_bridge.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.flywheel


def test_a_refused_record_takes_none_of_its_batch_along(
    bridge: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ship(receiver: receivers.Receiver) -> None:
        for number, workload in enumerate(["support", "support", "payroll", "support", "support"]):
            request = {
                "model": "m",
                "messages": [{"role": "user", "content": f"{number} " + 1500 * "x"}],
                "litellm_params": {"metadata": {"workload_id": workload}},
            }
            now = datetime.now(UTC)
            await bridge.async_log_success_event(request, Answer(), now, now)
        taken = 'records_total{client_id="shop",kind="interactions"} 4.0'
        async with asyncio.timeout(20):
            while taken not in receiver.get("/metrics").text:
                await asyncio.sleep(0.05)

    with receivers.running(tmp_path, Limits(body_bytes=4096)) as receiver:
        token = client_tokens.add_token(
            tmp_path / "tokens.json", "shop", now=datetime.now(UTC), workloads=["support"]
        )
        monkeypatch.setenv("FLYWHEEL_URL", receiver.url)
        monkeypatch.setenv("FLYWHEEL_TOKEN", token)
        asyncio.run(ship(receiver))
        receiver.stop()
        bodies = [json.loads(entry.body) for entry in receiver.stored()]
    records = [one for body in bodies for one in (body if isinstance(body, list) else [body])]
    numbers = [one["request"]["messages"][0]["content"][0] for one in records]
    assert numbers == ["0", "1", "3", "4"]
