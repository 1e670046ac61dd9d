"""`flywheel demo`: fetch a model and traffic, bring up a stack, run a turn, ask the champion."""

import json
import os
import shlex
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from types import FrameType
from typing import Any
from uuid import UUID

import httpx
from rich.text import Text

from components.decide.record_answer import TypedAnswer
from components.receive import client_tokens
from components.store import manifest
from flows import approvals, gateway_status
from flows.cli import stack_commands, turn_watch
from flows.cli.console import console, has_person, print_line
from flows.demo import traffic, wheels
from flows.demo.traffic import WORKLOAD
from flows.gateway_status import NotServingError
from flows.settings import SERVE_PORT, Settings, load
from flows.stack import control, processes

SEED = 0
APPROVER = "demo"


def run_demo(settings: Settings) -> None:
    """Run one turn on the demo's workload; every step reuses what an earlier run finished."""
    settings = choose_port(settings)
    print_line(f"flywheel demo, in {settings.home}")
    config = prepare_home(settings)
    with running_stack(settings):
        turn_watch.follow_turn(config, WORKLOAD, None if has_person() else approve_promotion)
        show_answer(settings)


def prepare_home(settings: Settings) -> Path:
    """Fetch the base, write the logs and the workload file; return the file's path."""
    with console.status("fetching the model and the traffic"):
        inputs = wheels.fetch_inputs(download_folder(), print_line)
    folder = settings.workloads / WORKLOAD
    if not (folder / "logs").exists():
        traffic.write_traffic(inputs.traffic, folder, SEED)
    config = settings.workloads / f"{WORKLOAD}.yaml"
    manifest.write_atomically(config, workload_text(inputs.base))
    return config


def workload_text(base: Path) -> str:
    """Return the text of the demo's workload file with this base."""
    text = (Path(__file__).parents[1] / "demo" / "workload.yaml").read_text()
    return Template(text).substitute(base=base)


def download_folder() -> Path:
    """Return the folder of downloads, ``$XDG_CACHE_HOME/lora-flywheel``; it outlives the home."""
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "lora-flywheel"


def approve_promotion(promotion: UUID) -> None:
    """Approve as the demo itself, since nobody is there; the decision's comment says so."""
    comment = "approved by the demo itself: it ran without a terminal, so nobody could be asked"
    approvals.answer_approval(
        promotion, approvals.gate_key(1), TypedAnswer("approve", APPROVER, comment)
    )


@contextmanager
def running_stack(settings: Settings) -> Generator[None]:
    """Start the stack; stop it afterwards unless it was up before or a person may look at it.

    SIGTERM ends the demo like Ctrl-C.
    """
    was_up = control.stack_status(settings).phase == "up"
    signal.signal(signal.SIGTERM, _interrupt)
    command = turn_watch.shell_command()
    hint = stack_commands.LOGIN_HINT.format(command)
    with console.status("starting the stack") as spinner:
        control.up(settings, lambda line: spinner.update(Text(line)))
    print_line(f"Prefect {settings.prefect_url}   MLflow {settings.mlflow_url}")
    print_line(f"{hint}\n")
    is_done = False
    try:
        yield
        is_done = True
    finally:
        pages = f"{settings.prefect_url} (Prefect) and {settings.mlflow_url} (MLflow). {hint}"
        if is_done and has_person() and not was_up:
            print_line(
                f"\nThe stack stays up for you to look at: {pages}; {command} down stops it."
            )
        elif not was_up:
            print_line("stopping the stack")
            control.down(settings)
            if is_done:
                again = turn_watch.shell_command(starts=True)
                print_line(f"{again} up starts it again: {pages}")


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


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
