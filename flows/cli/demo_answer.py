"""The end of the demo: its champion answers through the stack's gateway."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from components.receive import client_tokens
from flows import gateway_status
from flows.cli.console import console, print_line
from flows.demo.traffic import WORKLOAD
from flows.settings import SERVE_PORT, Settings, load
from flows.stack import control, processes

FIRST_PORT = 8000
CLIENT = "demo-reader"  # who asks; the demo's traffic has clients `demo-*`, which count as one
READY_SECONDS = 300.0
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
    request, token = folder / "request.json", _token_file(settings, folder)
    request.write_bytes(REQUEST.read_bytes())
    with console.status("the gateway proves what the champion's adapter does"):
        gateway_status.wait_until_served(settings, WORKLOAD, READY_SECONDS)
    body = json.loads(request.read_text())
    with console.status("asking the champion"):
        answer = httpx.post(
            f"{settings.serve_url}/v1/chat/completions",
            json=body | {"store": False},
            headers={"Authorization": f"Bearer {token.read_text().strip()}"},
            timeout=READY_SECONDS,
            trust_env=False,
        )
    answer.raise_for_status()
    console.print(f"\nasked: {body['messages'][-1]['content']}", markup=False)
    console.print(f"{answer.json()['model']} answers: {_text(answer.json())}\n", markup=False)
    headers = f'-H "Authorization: Bearer $(cat {token})" -H "Content-Type: application/json"'
    print_line("Ask it yourself, while the stack is up, and judge the answer by its id:\n")
    print_line(f"curl {settings.serve_url}/v1/chat/completions {headers} -d @{request}\n")
    print_line(
        f"curl {settings.serve_url}/v1/feedback {headers} "
        """-d '{"response_id": "ID", "kind": "thumb", "value": "up"}'"""
    )


def _token_file(settings: Settings, folder: Path) -> Path:
    """Return the file with the reader's token, which is made at the first use."""
    path = folder / "token"
    known = {token.client_id for token in client_tokens.read_tokens(settings.tokens)}
    if not path.exists() or CLIENT not in known:
        token = client_tokens.add_token(
            settings.tokens, CLIENT, now=datetime.now(UTC), workloads=[WORKLOAD]
        )
        path.touch(mode=0o600)
        path.write_text(f"{token}\n")
    return path


def _text(completion: dict[str, Any]) -> str:
    message = completion["choices"][0]["message"]
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    texts = [f"{call['name']}({call['arguments']})" for call in calls]
    return " ".join(filter(None, [message.get("content"), *texts]))
