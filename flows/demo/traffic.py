"""Write the demo's log and feedback files, as an application would have left them.

The requests are BFCL's short ones, so that training on them takes minutes: some want a call, of the
only tool or of one of several, and some fit no tool. Of those that curation will hold out there are
only such as no earlier version of the demo used, nor any in nearly the same words. Equal seeds,
equal bytes.
"""

import gzip
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random

from components.schema import Answer, Json
from flows.demo import bfcl, earlier, users
from flows.demo.bfcl import Request
from flows.demo.users import Reaction

WORKLOAD = "tool-calls"
CLIENTS = ("demo-web", "demo-mobile")
START, STEP, DAY = 1_767_600_000, 331, 86_400
"""The first request came on 2026-01-05 at 08:00 UTC, then one came every 331 seconds."""

HOLDOUT_SHARE = 0.5
"""The workload file's ``holdout_share``: so many of all sets of tools draw the holdout, and most of
their requests were in earlier demos and are left out."""

MAX_PROMPT = 1_200
"""In bytes, as rendered: with few exceptions at most 384 tokens to ask and 58 to answer."""

MAX_ALIKE = 4
"""At most so many requests that want a call, and so many that don't, offer the same tools."""

RETRIED = 0.02
"""Share of requests that the application sent twice."""


def write(wheel: Path, folder: Path, seed: int = 0) -> None:
    """Write ``logs/*.jsonl.gz``, one a day, and ``feedback/*.jsonl`` under ``folder``.

    The folder of the logs appears last, and whole.

    Args:
        wheel: The wheel of bfcl-eval.
        folder: Gets both folders.
        seed: Draws the requests, what is spoiled and who reacts.
    """
    draw = Random(seed)
    interactions: list[dict[str, Json]] = []
    feedback: list[dict[str, Json]] = []
    for request in choose(bfcl.read(wheel), seed):
        for _ in range(2 if draw.random() < RETRIED else 1):
            answer, reaction = users.answer(request, draw)
            logged = interaction(request, answer, len(interactions))
            interactions.append(logged)
            feedback.extend(reactions(logged, reaction) if reaction else [])
    _write_lines(folder / "feedback" / "simulated.jsonl", feedback)
    _write_days(folder / "logs", interactions)


def choose(requests: Sequence[Request], seed: int) -> list[Request]:
    """Choose short and diverse requests, in the order of the hash of their ids.

    Those that will be held out were in no earlier version, in no words like theirs.
    """
    chosen: list[Request] = []
    alike: Counter[tuple[str, ...]] = Counter()
    used = earlier.read(requests)
    for request in earlier.in_order(requests, seed):
        group = ("call" if request.call else "none", *request.tool_names)
        is_out = earlier.is_held_out(request, HOLDOUT_SHARE) and used.has_said(request)
        if is_out or alike[group] == MAX_ALIKE or not earlier.is_short(request, MAX_PROMPT):
            continue
        alike[group] += 1
        chosen.append(request)
    return chosen


def interaction(request: Request, answer: Answer, number: int) -> dict[str, Json]:
    """Give one line of a log, the ``number``-th."""
    client = CLIENTS[number % len(CLIENTS)]
    calls: list[Json] = [
        {
            "id": f"call_{place}",
            "type": "function",
            "function": {"name": call.name, "arguments": _written(call.arguments, client)},
        }
        for place, call in enumerate(answer.calls)
    ]
    message = _message(answer, calls)
    choice: Json = {
        "index": 0,
        "message": message,
        "finish_reason": "tool_calls" if calls else "stop",
    }
    line: dict[str, Json] = {
        "timestamp": START + STEP * number,
        "workload_id": WORKLOAD,
        "client_id": client,
        "request": {
            "model": "production",
            "messages": [*request.messages],
            "tools": [*request.tools],
        },
        "response": {"id": f"chatcmpl-{number:06}", "model": "production", "choices": [choice]},
    }
    # BFCL says of every request what is right, also that nothing is to be called.
    right: list[Json] = [asdict(request.acceptable)] if request.acceptable else []
    line["metadata"] = {"acceptable": right}
    return line


def reactions(logged: dict[str, Json], reaction: Reaction) -> list[dict[str, Json]]:
    """Give the feedback lines of one user about one answer, a minute after it."""
    response, moment = logged["response"], logged["timestamp"]
    assert isinstance(response, dict)
    assert isinstance(moment, int)
    common: dict[str, Json] = {
        "timestamp": moment + 60,
        "workload_id": WORKLOAD,
        "client_id": logged["client_id"],
        "response_id": response["id"],
        "actor_id": reaction.actor,
    }
    lines: list[dict[str, Json]] = [{**common, "kind": "thumb", "value": reaction.thumb}]
    if reaction.correction:
        calls: list[Json] = [
            {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in reaction.correction.calls
        ]
        value: Json = _message(reaction.correction, calls)
        lines.append({**common, "kind": "correction", "value": value})
    return lines


def _written(arguments: dict[str, Json], client: str) -> Json:
    """Write a call's arguments as the client logs them: one keeps the text, one the object."""
    return json.dumps(arguments, ensure_ascii=False) if client == CLIENTS[0] else arguments


def _message(answer: Answer, calls: list[Json]) -> dict[str, Json]:
    message: dict[str, Json] = {"role": "assistant", "content": answer.text or None}
    return {**message, "tool_calls": calls} if calls else message


def _write_days(folder: Path, interactions: list[dict[str, Json]]) -> None:
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for first in range(0, len(interactions), DAY // STEP):
        day = first // (DAY // STEP) + 1
        path = partial / f"day-{day}.jsonl.gz"
        _write_lines(path, interactions[first : first + DAY // STEP])
    partial.replace(folder)


def _write_lines(path: Path, lines: Iterable[dict[str, Json]]) -> None:
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)
