"""A canary from its alias to its end, in gateways that are killed with -9 at each step."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from components.extensions.canary.rollout_order import (
    HOUR,
    KindRule,
    RolloutOrder,
    RolloutPlan,
    ShareStep,
)
from components.receive import client_tokens
from components.register.version_tags import ROLLOUT_TAG
from components.serve import routes
from tests.components.serve.test_champion_watch import FakeMlflow, approved
from tests.support import launch_staged
from tests.support.fake_replicas import fake_replica

PLAN = RolloutPlan("support", "2", "1", (ShareStep(0.5, HOUR),), deadline_seconds=HOUR)
WORSE = RolloutOrder("0123456789ab", PLAN, None, "2026-11-27T16:00:00+00:00")
SOUND = replace(
    WORSE,
    id="ba9876543210",
    plan=replace(
        PLAN,
        version="3",
        margin=50.0,
        kinds=(KindRule("disliked", 0.5),),
        decisive=("disliked",),
    ),
)


class KilledGateway:
    """A gateway of a home, and one of its clients."""

    def __init__(self, home: Path, engine: str, mlflow: str, token: str) -> None:
        replica = {"name": "one", "url": engine}
        settings = {
            "engine": {"kind": "vllm", "base_name": "the-base", "replicas": [replica]},
        }
        arguments = [launch_staged.__file__, home, json.dumps(settings), mlflow]
        self.home, self.token = home, token
        self.process = subprocess.Popen(
            [sys.executable, *arguments], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        assert self.url

    def ask(self, name: str, *, dislikes: Callable[[str], bool] = lambda _: False) -> str:
        """Ask in a conversation, perhaps dislike the answer; return the version that answered."""
        answer = self._post(
            "/v1/completions",
            {"model": "support", "prompt": "What is it? >", "max_tokens": 20, "stream": True},
            {"x-conversation-id": name},
        )
        events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
        assert events.pop() == "[DONE]"
        chunks = [json.loads(event) for event in events]
        text = "".join(chunk["choices"][0]["text"] for chunk in chunks)
        version = text.removeprefix("support-v")  # its own word
        assert {chunk["model"] for chunk in chunks} <= {"support", f"support@{version}"}
        if dislikes(version):
            vote = {"kind": "thumb", "value": "down", "response_id": chunks[0]["id"]}
            self._post("/v1/feedback", vote, {})
        return version

    def _post(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.token}", **headers}
        answer = httpx.post(self.url + path, json=body, headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer


@contextmanager
def killed_at_the_end(*arguments: Any) -> Generator[KilledGateway]:
    gateway = KilledGateway(*arguments)
    try:
        yield gateway
    finally:
        gateway.process.kill()
        gateway.process.wait()


def status(home: Path) -> dict[str, Any]:
    path = home / "serve" / "rollouts" / "support.json"
    content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return content


def steps(home: Path, order: RolloutOrder) -> list[tuple[str, str | None]]:
    path = home / "serve" / "journal.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    read = [json.loads(line) for line in lines if line.endswith("}")]
    return [(line["step"], line.get("outcome")) for line in read if line.get("id") == order.id]


def until(condition: Callable[[], object], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def is_proved(home: Path, version: str) -> bool:
    path = home / "serve" / "routes.json"
    route = routes.read(path).get("support")
    listed = route.all_served() if route is not None else []
    return any(served.version == version for served in listed) and all(
        served.replicas for served in listed
    )


def disliked(home: Path) -> tuple[int, int]:
    kinds = (status(home).get("verdict") or {}).get("kinds", [])
    return next(((k["canary"], k["champion"]) for k in kinds if k["kind"] == "disliked"), (0, 0))


def scenario(home: Path, mlflow: FakeMlflow, engine: str, url: str) -> None:
    token = client_tokens.add_token(home / "tokens.json", "app", now=datetime.now(UTC))
    gateway_of = home, engine, url, token
    mlflow.tags["support", "2"][ROLLOUT_TAG] = WORSE.to_text()
    mlflow.tags["support", "3"][ROLLOUT_TAG] = SOUND.to_text()

    with killed_at_the_end(*gateway_of):
        until(lambda: is_proved(home, "1"))
        mlflow.aliases["support"]["canary"] = "2"
        until(lambda: status(home).get("state") == "waiting")  # killed while it is proved
    with killed_at_the_end(*gateway_of):
        until(lambda: steps(home, WORSE) == [("canary_began", None)])
    with killed_at_the_end(*gateway_of) as gateway:
        until(lambda: is_proved(home, "2"))
        first = {name: gateway.ask(name, dislikes="2".__eq__) for name in map(str, range(8))}
        assert {*first.values()} == {"1", "2"}
    votes = [*first.values()].count("2")
    with killed_at_the_end(*gateway_of) as gateway:
        until(lambda: is_proved(home, "2"))
        assert {name: gateway.ask(name) for name in first} == first
        until(lambda: disliked(home) == (votes, 0))
        for number in range(8, 400):
            gateway.ask(str(number), dislikes="2".__eq__)
            if ("canary_ended", "roll back") in steps(home, WORSE):
                break
    with killed_at_the_end(*gateway_of) as gateway:
        until(lambda: is_proved(home, "1") and routes_canary(home) is None)
        assert {gateway.ask(f"later {number}") for number in range(10)} == {"1"}
        time.sleep(1)  # the alias and its order are still there
        assert status(home)["state"] == "roll back"
        assert status(home)["reason"].startswith("disliked: ")
        assert steps(home, WORSE) == [("canary_began", None), ("canary_ended", "roll back")]

        mlflow.aliases["support"]["canary"] = "3"
        until(lambda: status(home)["state"] == "running")
        for number in range(400):
            gateway.ask(f"sound {number}", dislikes=lambda _: True)
            if ("canary_ended", "hold") in steps(home, SOUND):
                break
    with killed_at_the_end(*gateway_of) as gateway:
        until(lambda: is_proved(home, "3") and status(home)["state"] == "hold")
        assert {gateway.ask(f"held {number}") for number in range(20)} == {"1", "3"}
        mlflow.aliases["support"] = {"champion": "3"}
        versions = list[str]()
        deadline = time.monotonic() + 60
        while versions[-20:] != ["3"] * 20:
            assert time.monotonic() < deadline
            versions.append(gateway.ask(f"flip {len(versions)}"))
        until(lambda: routes_canary(home) is None)
        assert status(home)["state"] == "hold"
        assert steps(home, SOUND) == [("canary_began", None), ("canary_ended", "hold")]


def routes_canary(home: Path) -> str | None:
    canary = routes.read(home / "serve" / "routes.json")["support"].canary
    return canary.served.version if canary is not None else None


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_worse_version_goes_back_and_a_sound_one_is_held_whatever_is_killed(tmp_path: Path):
    async def run() -> None:
        mlflow = approved("1", "2", "3")
        async with mlflow.running() as url:
            await asyncio.to_thread(scenario, tmp_path, mlflow, replica.url, url)

    with fake_replica() as replica:
        asyncio.run(run())
