"""The end of the demo: its champion answers through the stack's gateway."""

import json
import os
import shlex
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from components.receive import client_tokens
from flows import gateway_status
from flows.cli.console import console, print_line
from flows.demo.traffic import WORKLOAD
from flows.gateway_status import NotServingError
from flows.settings import SERVE_PORT, Settings, load
from flows.stack import control, processes

FIRST_PORT = 8000
CLIENT = "demo-reader"  # who asks; the demo's traffic has clients `demo-*`, which count as one
READY_SECONDS = 300.0
NOT_YET = {404, 503}  # while the workload has no champion that is proved
REQUEST = Path(__file__).parents[1] / "demo" / "request.json"


def choose_port(settings: Settings) -> Settings:
    """Return settings in which the stack has a gateway: at the port of the one that runs, if any.

    The environment has the port from then on.
    """
    if settings.serve_port is not None:
        return settings
    status = control.stack_status(settings)
    running = [service.url for service in status.services if service.name == "gateway"]
    if status.phase == "up" and not running:
        return settings  # it was started without one
    free = (port for port in range(FIRST_PORT, 65536) if processes.is_free(port))
    port = httpx.URL(running[0]).port if running and running[0] else next(free)
    os.environ[SERVE_PORT] = str(port)
    return load()


def show_answer(settings: Settings) -> None:
    """Ask the champion through the gateway, and print how to ask it and how to judge an answer.

    The question is not logged (``store: false``), so that a second demo has nothing new to learn.
    """
    if settings.serve_url is None:
        print_line(
            "the stack has no gateway: it was up before, started without FLYWHEEL_SERVE_PORT"
        )
        return
    folder = settings.workloads / WORKLOAD
    request = folder / "request.json"
    token = token_file(settings, folder / "token", CLIENT, WORKLOAD)
    request.write_bytes(REQUEST.read_bytes())
    body = json.loads(request.read_text())
    with console.status("the gateway proves what the champion's adapter does"):
        answer = _ask(settings, body | {"store": False}, token.read_text().strip())
    console.print(f"\nasked: {body['messages'][-1]['content']}")
    console.print(f"{answer['model']} answers: {_text(answer)}\n")
    bearer = f'-H "Authorization: Bearer $(cat {shlex.quote(str(token))})"'
    headers = f'{bearer} -H "Content-Type: application/json"'
    data = shlex.quote(f"@{request}")
    print_line("Ask it yourself, while the stack is up, and judge the answer by its id:\n")
    print_line(f"curl {settings.serve_url}/v1/chat/completions {headers} -d {data}\n")
    print_line(
        f"curl {settings.serve_url}/v1/feedback {headers} "
        """-d '{"response_id": "ID", "kind": "thumb", "value": "up"}'"""
    )


def _ask(settings: Settings, body: dict[str, Any], token: str) -> dict[str, Any]:
    """Return the champion's answer; wait for it as long as it is being loaded and proved."""
    deadline = time.monotonic() + READY_SECONDS
    while True:
        answer = httpx.post(
            f"{settings.serve_url}/v1/chat/completions",
            json=body,
            headers={"Authorization": f"Bearer {token}"},
            timeout=READY_SECONDS,
            trust_env=False,
        )
        if answer.status_code not in NOT_YET:
            answer.raise_for_status()
            return answer.json()
        if time.monotonic() > deadline:
            raise NotServingError(
                f"asking {WORKLOAD} through the gateway: after {READY_SECONDS:,.0f} s it is "
                f"{gateway_status.describe(settings, WORKLOAD)}"
            )
        time.sleep(1)


def token_file(settings: Settings, path: Path, client: str, workload: str) -> Path:
    """Return the file with a client's token for a workload, which is made at the first use."""
    known = {token.id for token in client_tokens.read_tokens(settings.tokens)}
    if not path.exists() or path.read_text().split("_")[1] not in known:
        token = client_tokens.add_token(
            settings.tokens, client, now=datetime.now(UTC), workloads=[workload]
        )
        path.touch(mode=0o600)
        path.write_text(f"{token}\n")
    return path


def _text(completion: dict[str, Any]) -> str:
    message = completion["choices"][0]["message"]
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    texts = [f"{call['name']}({call['arguments']})" for call in calls]
    return " ".join(filter(None, [message.get("content"), *texts]))
