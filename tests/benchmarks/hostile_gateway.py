"""What is hard for a gateway, and what its other clients, its memory and its end make of it."""

import itertools
import json
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import orjson
import psutil

from components.extensions.canary.rollout_order import HOUR, RolloutOrder, RolloutPlan, ShareStep
from components.receive import client_tokens
from tests.benchmarks import attacker
from tests.benchmarks.attacker import Answered
from tests.support import gateways, hostile_schemas
from tests.support.gateways import CANARY, RunningGateway, script
from tests.support.hostile_schemas import Schema

CHATS = "/v1/chat/completions"

HONEST = 4
"""Other clients, which ask one thing after the other."""

ATTACKERS = 8
"""Connections of the client that attacks."""

PAUSE_SECONDS = 0.02
"""Between an answer and the next request of a connection that attacks."""

LEAD_SECONDS = 0.5
"""The attack has begun when others start to ask."""

MAX_P99, MAX_END_SECONDS, MAX_MIB = 0.150, 10.0, 2048.0

NOISE = 3
"""On a machine that does something else, too, others may wait so many times as long as while
another gateway is attacked."""

Body = dict[str, Any]


def _chat(content: str = "Hi", **more: Any) -> Body:
    return {"model": "support", "messages": [{"role": "user", "content": content}], **more}


def _held(schema: Schema, name: str = attacker.NUMBER.decode(), choice: str = "required") -> Body:
    """Offer a tool; the answer is held to a grammar of its schema, which is new by its name."""
    tool = {"type": "function", "function": {"name": name, "parameters": schema}}
    return _chat(tools=[tool], tool_choice=choice)


def _calls(count: int, arguments: str) -> Body:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return _chat() | {"messages": [{"role": "assistant", "tool_calls": [call] * count}]}


SMALL = hostile_schemas.of({"type": "string", "maxLength": 20})
NUMBERS = hostile_schemas.of({"enum": [*range(500_000)]})
ORDINARY = [_chat(), _held(SMALL, "note"), _chat("How is Rome in May? " * 40)]


@dataclass(frozen=True)
class Flood:
    """Requests that clients send again and again."""

    bodies: Sequence[Body]
    clients: int = 1

    @contextmanager
    def __call__(self, gateway: RunningGateway) -> Generator[Counter[str]]:
        """Attack a gateway until it has ended; count the answers by status."""
        statuses = Counter[str]()
        tokens, most = _tokens(gateway, "evil", self.clients), max(ATTACKERS, self.clients)
        with _start(gateway, self.bodies, tokens, 600.0, most, PAUSE_SECONDS) as attack:
            time.sleep(LEAD_SECONDS)
            yield statuses
            statuses.update(attacker.answered(attack).statuses)


@dataclass(frozen=True)
class CanaryAttack:
    """Conversations while a canary runs, a tenth of them of one client that is bad on purpose.

    The first request of each is ``asks``; who asked then dislikes the answer of an arm, or asks
    ``then`` in the same conversation where that arm has it.
    """

    state: str
    """How the canary is to stand."""

    asks: str = "Hi"
    honest_dislikes: str = ""
    evil_dislikes: str = ""
    evil_arm: str = ""
    evil_then: Body | None = None
    examples: int = 0
    """Turns that all conversations begin with."""

    @contextmanager
    def __call__(self, gateway: RunningGateway) -> Generator[Counter[str]]:
        """Attack a gateway until it has ended; count the conversations by arm."""
        arms, numbers, is_over = Counter[str](), itertools.count(), threading.Event()
        honest, evil = _tokens(gateway, "asks", 9), _tokens(gateway, "evil", 1)

        def converse() -> None:
            with httpx.Client(base_url=gateway.url, timeout=30) as http:
                while not is_over.is_set():
                    number = next(numbers)
                    token = [*evil, *honest][number % 10]
                    http.headers["authorization"] = f"Bearer {token}"
                    arms[self._converse(gateway, http, number, is_evil=number % 10 == 0)] += 1

        with ThreadPoolExecutor(4) as threads:
            running = [threads.submit(converse) for _ in range(4)]
            try:
                yield arms
            finally:
                is_over.set()
                for each in running:
                    with suppress(httpx.HTTPError):
                        each.result()

    def _converse(
        self, gateway: RunningGateway, http: httpx.Client, number: int, *, is_evil: bool
    ) -> str:
        shown = [{"role": role, "content": "good"} for role in ("user", "assistant")]
        body = _chat(f"{self.asks} {number}")
        body["messages"] = shown * self.examples + body["messages"]
        name = {} if self.examples else {"metadata": {"conversation_id": str(number)}}
        answer = http.post(CHATS, json=body | name)
        arm = str(gateway.served(answer)["arm"])  # as if it could be told by the answer
        if arm == (self.evil_dislikes if is_evil else self.honest_dislikes):
            thumb = {"kind": "thumb", "value": "down", "response_id": answer.json()["id"]}
            http.post("/v1/feedback", json=thumb)
        if is_evil and self.evil_then is not None and arm == self.evil_arm:
            http.post(CHATS, json=self.evil_then | name)
        return arm

    def objection(self, gateway: RunningGateway, arms: Counter[str]) -> str | None:
        """Wait for the evidence; return what is wrong with the canary's state."""
        file = gateway.home / "serve" / "rollouts" / "support.json"
        state, reason, counted = "", "", 0
        until = time.monotonic() + 30.0
        while time.monotonic() < until and state in ("", "running") and counted < 400:
            time.sleep(0.5)
            shown = json.loads(file.read_text())
            state, reason = shown["state"], shown["reason"]
            counted = sum((shown["verdict"] or {}).get("conversations", {}).values())
        are_drawn = counted >= arms.total() / 2 or state != "running"
        if state == self.state and are_drawn:
            return None
        return f"{state}: {reason} ({counted} of {arms.total()} conversations)"


Attack: TypeAlias = Flood | CanaryAttack

_CUT = script(say="x", finish="length")
_CANARY_CUTS = script(models={CANARY["model"]: {"say": "x", "finish": "length"}})

ATTACKS: Mapping[str, Mapping[str, Attack]] = {
    "grammars": {
        "patterns of one text": Flood([*map(_held, hostile_schemas.PATTERNS_OF_ONE_TEXT.values())]),
        **{name: Flood([_held(schema)]) for name, schema in hostile_schemas.SLOW.items()},
        "slow ones of 12 clients": Flood([_held(hostile_schemas.SLOW["of merged properties"])], 12),
    },
    "schemas": {
        "a name in many spellings": Flood([_held(hostile_schemas.spelled(14, 60_000))]),
        "leaves that refer": Flood([_held(hostile_schemas.referring_leaves(10_000, 1_000_000))]),
    },
    "prompts": {
        "enum of 500,000": Flood([_held(NUMBERS, choice="auto")]),
        "enum of 500,000, required": Flood([_held(NUMBERS)]),
    },
    "history": {
        "24,000 calls": Flood([_calls(24_000, "{}")]),
        "512 calls": Flood([_calls(512, '{"a": 1}')]),
        "a call of 3.9 MB": Flood([_calls(1, f'{{"a": "{"x" * 3_900_000}"}}')]),
        "2,048 messages": Flood([_chat() | {"messages": _chat()["messages"] * 2_048}]),
    },
    "canaries": {
        "dislikes of the canary": CanaryAttack("running", evil_dislikes="canary"),
        "dislikes of the champion": CanaryAttack(
            "roll back", honest_dislikes="canary", evil_dislikes="champion"
        ),
        "long answers of the canary": CanaryAttack(
            "running", evil_arm="canary", evil_then=_chat(_CUT)
        ),
        "one token of the canary": CanaryAttack(
            "running", evil_arm="canary", evil_then=_chat(_CUT, max_tokens=1)
        ),
        "long answers of the champion": CanaryAttack(
            "roll back", asks=_CANARY_CUTS, evil_arm="champion", evil_then=_chat(_CUT)
        ),
        "examples in all prompts": CanaryAttack("running", examples=4),
    },
}
"""What a client sends, by what it is hard for."""

ORDER = RolloutOrder(
    "0123456789ab",
    RolloutPlan("support", "8", "7", (ShareStep(0.5, HOUR),), deadline_seconds=HOUR),
    None,
    "2026-11-27T16:00:00+00:00",
)


@dataclass(frozen=True)
class Outcome:
    """What others waited in an attack, the gateway's memory with its children, and its end.

    ``beside`` is what they waited while another gateway of the machine was attacked.
    """

    others: Answered
    beside: Answered
    new_schemas: Answered
    attack: Counter[str]
    mib: float
    end_seconds: float
    objection: str | None

    def missed(self) -> str:
        """Return which bars were missed; an empty text if all were kept."""
        bars = {
            "p99": self.others.p99_seconds > max(MAX_P99, NOISE * self.beside.p99_seconds),
            "refused": self.others.statuses.keys() != {"200"},
            "memory": self.mib > MAX_MIB,
            "end": self.end_seconds > MAX_END_SECONDS,
            f"canary {self.objection}": self.objection is not None,
        }
        return ", ".join(bar for bar, is_missed in bars.items() if is_missed)


def besiege(attack: Attack, folder: Path, seconds: float) -> Outcome:
    """Attack another gateway, then the one that others use; end it in the midst of that."""
    canary = ORDER if isinstance(attack, CanaryAttack) else None
    running = partial(gateways.running, canary=canary)
    for name in ("one", "other"):
        (folder / name).mkdir()
    with running(folder / "one") as gateway, running(folder / "other") as elsewhere:
        honest = _tokens(gateway, "honest", HONEST)
        for each in (gateway, elsewhere):  # its processes start
            attacker.answered(_start(each, ORDINARY, [each.token], 0.5, 1))
        with attack(elsewhere):
            beside, _ = _others(gateway, honest, seconds)
            elsewhere.kill()
        with _measured_memory(gateway) as peak, attack(gateway) as tally:
            others, new = _others(gateway, honest, seconds)
            objection = (
                attack.objection(gateway, tally) if isinstance(attack, CanaryAttack) else None
            )
            began = time.monotonic()
            gateway.stop()
            end_seconds = time.monotonic() - began
    return Outcome(others, beside, new, tally, peak[0], end_seconds, objection)


def _others(
    gateway: RunningGateway, tokens: Sequence[str], seconds: float
) -> tuple[Answered, Answered]:
    """Return what other clients wait for ordinary requests, and for new schemas now and then."""
    ordinary = _start(gateway, ORDINARY, tokens, seconds, HONEST)
    new_schemas = _start(gateway, [_held(SMALL)], tokens[:1], seconds, 1, 0.2)
    return attacker.answered(ordinary), attacker.answered(new_schemas)


def _tokens(gateway: RunningGateway, name: str, count: int) -> list[str]:
    file, now = gateway.home / "tokens.json", datetime.now(UTC)
    return [client_tokens.add_token(file, f"{name}-{n}", now=now) for n in range(count)]


def _start(
    gateway: RunningGateway,
    bodies: Sequence[Body],
    tokens: Sequence[str],
    seconds: float,
    connections: int,
    pause: float = 0.0,
) -> "subprocess.Popen[str]":
    messages = [
        attacker.message(gateway.url, CHATS, token, orjson.dumps(body), {})
        for token in tokens
        for body in bodies
    ]
    return attacker.start(
        gateway.url, messages, gateway.home / "messages", seconds, connections, pause
    )


@contextmanager
def _measured_memory(gateway: RunningGateway) -> Generator[list[float]]:
    """Yield the most MiB so far of the gateway with its children; shared pages are divided."""
    peak, is_over = [0.0], threading.Event()

    def measure() -> None:
        while not is_over.wait(0.1):
            total = 0
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(gateway.process.pid)
                for each in (process, *process.children(recursive=True)):
                    with suppress(psutil.NoSuchProcess):
                        total += each.memory_full_info().pss
            peak[0] = max(peak[0], total / 2**20)

    thread = threading.Thread(target=measure)
    thread.start()
    try:
        yield peak
    finally:
        is_over.set()
        thread.join()
