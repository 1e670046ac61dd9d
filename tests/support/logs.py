"""Log and feedback lines as applications write them, for tests to vary."""

import gzip
import json
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from components.collect import load_file, places, segments
from components.collect.load_file import Loaded
from components.collect.source import Input
from components.schema import Json
from components.store.warehouse import Connection

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WEATHER: dict[str, Json] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tell the weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


def tool(name: str) -> dict[str, Json]:
    """Describe a tool without arguments."""
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}


def call(name: str, arguments: Json) -> dict[str, Json]:
    """Write an assistant message that calls one tool."""
    function: Json = {"name": name, "arguments": arguments}
    calls: Json = [{"id": "call_1", "type": "function", "function": function}]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def say(text: Json) -> dict[str, Json]:
    """Write an assistant message of text."""
    return {"role": "assistant", "content": text}


def interaction(
    question: str = "What is the weather in Rome?",
    *,
    message: Json = None,
    tools: Json = None,
    response_id: str = "r1",
    **changes: Json,
) -> dict[str, Json]:
    """Write a log line; ``changes`` replace whole keys."""
    request: dict[str, Json] = {"messages": [{"role": "user", "content": question}]}
    if tools is not None:
        request["tools"] = tools
    choice: Json = {"index": 0, "message": message or say("Sunny."), "finish_reason": "stop"}
    line: dict[str, Json] = {
        "timestamp": 1_760_000_000,
        "workload_id": "weather",
        "client_id": "app",
        "request": request,
        "response": {"id": response_id, "choices": [choice]},
    }
    return line | changes


def feedback(kind: str = "thumb", value: Json = "down", **changes: Json) -> dict[str, Json]:
    """Write a feedback line; ``changes`` replace keys."""
    line: dict[str, Json] = {
        "timestamp": 1_760_000_100,
        "workload_id": "weather",
        "client_id": "app",
        "response_id": "r1",
        "actor_id": "ann",
        "kind": kind,
        "value": value,
    }
    return line | changes


def without(line: dict[str, Json], *keys: str) -> dict[str, Json]:
    """Leave keys of a line out."""
    return {key: value for key, value in line.items() if key not in keys}


def write(path: Path, lines: Iterable[dict[str, Json]]) -> Path:
    """Write the lines to a JSONL file, packed if its name ends in ``.gz``."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def load_input(con: Connection, item: Input, *, now: datetime) -> Loaded:
    """Load a file, local or remote, as ``flywheel collect`` does."""
    with places.local_copy(item.place, Path(tempfile.gettempdir())) as path:
        return load_file.load(con, item, path, now=now)


def load_spool(con: Connection, folder: Path, *, now: datetime) -> list[Loaded]:
    """Load what a receiver took, as ``flywheel collect`` does."""
    return [loaded for piece in segments.plan_pieces(folder, now=now) for loaded in piece(con)]


def load(con: Connection, path: Path, *, now: datetime) -> Loaded:
    """Load a file of interactions in Flywheel's own form into ``raw.interactions``."""
    return load_input(con, Input(str(path), "fivekey"), now=now)


def load_feedback(con: Connection, path: Path, *, now: datetime) -> Loaded:
    """Load a file of feedback in Flywheel's own form into ``raw.feedback``."""
    return load_input(con, Input(str(path), "feedback"), now=now)
