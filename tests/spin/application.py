"""An application: an OpenAI client that knows a URL, a key (``OPENAI_API_KEY``) and a model's name.

It is a program of its own (``python -m tests.spin.application --help``), imports nothing of
Flywheel, and writes down what it was answered. It retries nothing, so that each failure counts.
"""

import argparse
import asyncio
import fcntl
import json
import os
import signal
import time
from itertools import count
from pathlib import Path
from typing import Any

import httpx

OPEN_REQUESTS = 8
PATIENCE_SECONDS = 600.0


async def run(options: argparse.Namespace) -> None:
    """Send requests until SIGTERM; then wait for those that are open."""
    requests = [json.loads(line) for line in options.requests.read_text().splitlines()]
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    room, open_tasks = asyncio.Semaphore(OPEN_REQUESTS), set[asyncio.Task[None]]()
    headers = {"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}
    parent = os.getppid()  # who started it: nobody else would end it
    with options.answers.open("ab", buffering=0) as answers:
        fcntl.flock(answers, fcntl.LOCK_EX)  # another one may be finishing its open requests
        async with httpx.AsyncClient(
            base_url=options.url, headers=headers, timeout=PATIENCE_SECONDS, trust_env=False
        ) as client:

            async def ask(number: int) -> None:
                try:
                    line = await answer(client, options.model, requests[number % len(requests)])
                    answers.write(json.dumps({"number": number, **line}).encode() + b"\n")
                finally:
                    room.release()

            for number in count(next_number(options.answers)):
                await room.acquire()
                if stop.is_set() or os.getppid() != parent:
                    break
                task = asyncio.create_task(ask(number))
                open_tasks.add(task)
                task.add_done_callback(open_tasks.discard)
                await pause(stop, options.pace if number >= options.first else 0)
            await asyncio.gather(*open_tasks)


async def answer(client: httpx.AsyncClient, model: str, request: dict[str, Any]) -> dict[str, Any]:
    """Return a request's answer as a line of the file: who, when, and what, or which error."""
    body = {"model": model, "messages": request["messages"], "tools": request["tools"]}
    line: dict[str, Any] = {"request": request["id"], "sent_at": time.time()}
    try:
        response = await client.post("/chat/completions", json=body)
        line |= {"status": response.status_code, "ended_at": time.time()}
        if response.status_code != 200:
            return line | {"error": response.text[:500]}
        content = response.json()
        line |= {"id": content["id"], "model": content["model"]}
        return line | {"message": content["choices"][0]["message"]}
    except (httpx.HTTPError, ValueError, LookupError) as error:
        return line | {"status": 0, "ended_at": time.time(), "error": repr(error)}


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Wait, or until the stop."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return


def next_number(answers: Path) -> int:
    """Return the number of the first request that was not answered before."""
    lines = answers.read_text().splitlines() if answers.exists() else []
    return 1 + max((json.loads(line)["number"] for line in lines), default=-1)


def main() -> None:
    """Read the arguments, and send requests."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="where /chat/completions is, such as http://localhost:8000/v1")
    parser.add_argument("model")
    parser.add_argument("requests", type=Path, help="JSONL: id, messages, tools")
    parser.add_argument("answers", type=Path, help="JSONL to append to")
    parser.add_argument("--first", type=int, default=0, help="how many are sent without a pause")
    parser.add_argument("--pace", type=float, default=1.0, help="seconds between two others")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
