"""Gateways as tests run them: a process of its own in front of scripted engines."""

import json
import shutil
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import httpx
from openai import OpenAI

from components.chat import chat_templates
from components.extensions.canary.rollout_order import RolloutOrder
from components.extensions.machines.object_store import ObjectStore
from components.receive import client_tokens
from components.receive.settings import Limits
from components.serve.routes import CanaryRoute, Route, Routes, Served
from components.serve.settings import ServeSettings
from components.store import spool
from tests.support import forking, launch_gateway, once, tiny
from tests.support import scripted_engine as scripted_engines

CANARY = {"version": "8", "model": "support.v8-efefefefefef"}


def served(base: Path, **changes: Any) -> Served:
    """Describe version 7 of the workload ``support``, on the replica ``one``."""
    seven = Served(
        workload="support",
        version="7",
        adapter="0123456789abcdef",
        sha256="ab" * 32,
        model="support.v7-abababababab",
        base=str(base),
        template_hash=chat_templates.template_hash(base),
        form="written",
        max_new_tokens=64,
        precision="fp32",
        constrained=False,
        proved_at="2026-11-27T08:00:00+00:00",
        since="2026-11-27T08:00:01+00:00",
        replicas=("one",),
    )
    return replace(seven, **changes)


@dataclass
class RunningGateway:
    """A running gateway with a client called ``app``."""

    process: BaseProcess
    url: str
    token: str
    home: Path
    engines: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def openai(self) -> OpenAI:
        """OpenAI's own client, without its retries."""
        return OpenAI(base_url=f"{self.url}/v1", api_key=self.token, max_retries=0, timeout=30)

    def post(self, path: str, **request: Any) -> httpx.Response:
        """Send as ``app``."""
        headers = {"authorization": f"Bearer {self.token}", **request.pop("headers", {})}
        timeout = request.pop("timeout", 30)
        return httpx.post(self.url + path, timeout=timeout, headers=headers, **request)

    def get(self, path: str) -> httpx.Response:
        """Ask as ``app``."""
        headers = {"authorization": f"Bearer {self.token}"}
        return httpx.get(self.url + path, timeout=30, headers=headers)

    def ask(self, content: str = "Hi", **more: Any) -> httpx.Response:
        """Send a chat of one message."""
        messages = [{"role": "user", "content": content}]
        return self.post(
            "/v1/chat/completions", json={"model": "support", "messages": messages, **more}
        )

    def seen(self, engine: str = "one") -> dict[str, Any]:
        """Read what an engine was asked."""
        seen: dict[str, Any] = httpx.get(f"{self.engines[engine]}/requests", timeout=10).json()
        return seen

    def served(self, answer: httpx.Response) -> dict[str, Any]:
        """Return who gave an answer, by its id in the record on disk; nothing if it has none."""
        answer_id = answer.headers["x-request-id"]
        for path in sorted((self.home / "spool").iterdir()):
            lines = path.read_bytes().splitlines() if path.exists() else []
            for line in lines:
                if answer_id.encode() in line:
                    served: dict[str, Any] = json.loads(line)["body"]["served"]
                    return served
        return {}

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.join()

    def stop(self) -> None:
        """Ask it to end, and wait."""
        assert forking.end(self.process) == 0

    def records(self, kind: str = "interactions") -> list[dict[str, Any]]:
        """Read what was logged; the gateway must have ended."""
        return records(self.home, kind)


def records(home: Path, kind: str = "interactions") -> list[dict[str, Any]]:
    """Read what a spool holds, the segments of a killed gateway among them."""
    spool.recover(home / "spool")
    entries = [entry for path in spool.sealed(home / "spool") for entry in spool.read(path)]
    assert all(isinstance(entry, spool.Entry) for entry in entries), entries
    return [
        json.loads(entry.body)
        for entry in entries
        if isinstance(entry, spool.Entry) and entry.kind == kind
    ]


def script(**parts: Any) -> str:
    """Write the script of a scripted engine's answer."""
    return f"<<{json.dumps(parts)}>>"


@contextmanager
def scripted_engine(name: str) -> Generator[str]:
    """Run a scripted engine; yield its URL."""
    with forking.server(True, scripted_engines.serve, name) as (_, url):
        yield url


@contextmanager
def running(
    home: Path,
    settings: dict[str, Any] | None = None,
    *,
    engines: tuple[str, ...] = ("one",),
    champion: dict[str, Any] | None = None,
    previous: dict[str, Any] | None = None,
    canary: RolloutOrder | None = None,
    urls: dict[str, str] | None = None,
    limits: dict[str, Any] | None = None,
    receiver: bool = False,
    base: Path | None = None,
    shutdown_seconds: float = 30,
    is_forked: bool = True,
    store: ObjectStore | None = None,
) -> Generator[RunningGateway]:
    """Run a gateway in ``home`` and end it with the block.

    ``urls`` are engines that run already, or that nothing listens at. ``canary`` is the order of
    version 8. Gateways with a ``store`` share their canaries there.
    """
    if base is None:
        base = home / "base"
        if not base.exists():
            shutil.copytree(once.made("gateway-base", tiny.tokenizer().save_pretrained), base)
    tokens = home / "tokens.json"
    token = client_tokens.add_token(tokens, "app", now=datetime.now(UTC))
    route = Route(
        3,
        served(base, **(champion or {})),
        served(base, version="6", model="support.v6-cdcdcdcdcdcd", **previous)
        if previous is not None
        else None,
        CanaryRoute(served(base, **CANARY), canary.to_text()) if canary is not None else None,
    )
    Routes({"support": route}).write(home / "serve" / "routes.json")
    with ExitStack() as stack:
        running_engines = {name: stack.enter_context(scripted_engine(name)) for name in engines}
        running_engines |= urls or {}
        gateway = stack.enter_context(
            forking.server(
                is_forked,
                launch_gateway.launch,
                home,
                _settings(running_engines, settings or {}),
                Limits(**limits) if limits else None,
                receiver=receiver,
                shutdown_seconds=shutdown_seconds,
                store=store,
            )
        )
        yield RunningGateway(*gateway, token, home, running_engines)


@contextmanager
def resumed(gateway: RunningGateway, store: ObjectStore | None = None) -> Generator[RunningGateway]:
    """Run a gateway again in the home, and before the engines, of one that was killed."""
    settings = _settings(gateway.engines, {})
    with forking.server(
        True,
        launch_gateway.launch,
        gateway.home,
        settings,
        None,
        receiver=False,
        shutdown_seconds=30,
        store=store,
    ) as process:
        yield replace(gateway, process=process[0], url=process[1])


def _settings(engines: Mapping[str, str], more: Mapping[str, Any]) -> ServeSettings:
    replicas = [{"name": name, "url": url} for name, url in engines.items()]
    engine = {"kind": "vllm", "replicas": replicas, "first_byte_seconds": 5}
    return ServeSettings.model_validate({"engine": engine, **more})
