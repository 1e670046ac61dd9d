"""Feedback that the warehouse could not read is refused where it is sent."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from components.receive.client_tokens import Token
from components.serve import answer_feedback, response_id
from components.serve.openai_error import OpenAiError
from tests.support import logs, warehouses

KEY = bytes(range(32))
TOKEN = Token(id="0", client_id="app", sha256="0", created_at="2026-01-01")
ID = response_id.create(KEY, "app", "support", "chatcmpl-", is_stored=True)
SAY = {"role": "assistant", "content": "Hi"}
CALL = {"role": "assistant", "tool_calls": []}

RIGHT: list[dict[str, Any]] = [
    {"kind": "thumb", "value": "up"},
    {"kind": "thumb", "value": "down", "comment": "wrong city", "actor_id": "ann"},
    {"kind": "thumb", "value": "down", "comment": None, "actor_id": None},
    {"kind": "rating", "value": 1, "scale": [1, 5]},
    {"kind": "rating", "value": 0.5, "scale": [0, 1.0]},
    {"kind": "choice", "value": {"chosen": "a", "rejected": "b", "tie": True}},
    {"kind": "choice", "value": {"chosen": SAY, "rejected": SAY, "tie": None}},
    {"kind": "correction", "value": SAY},
    {"kind": "correction", "value": CALL},
    {"kind": "correction", "value": {**SAY, "content": [{"type": "text", "text": "Hi"}]}},
    {"kind": "regenerate", "value": True},
    {"kind": "regenerate", "value": "chatcmpl-2"},
    {"kind": "comment", "value": "nice"},
    *({"kind": kind, "value": None} for kind in ("thumb", "rating", "correction", "comment")),
    *({"kind": "outcome", "value": {"name": "sold", "value": v}} for v in (True, 7, 0.5, "yes")),
]
WRONG: list[dict[str, Any]] = [
    *({"kind": "thumb", "value": value} for value in ("Up", "👎", True, False, 1, -1, {})),
    {"kind": "thumb", "value": "up", "comment": 7},
    {"kind": "thumb", "value": "up", "actor_id": {"id": 7}},
    {"kind": "rating", "value": 4},
    {"kind": "rating", "value": "4", "scale": [1, 5]},
    {"kind": "rating", "value": True, "scale": [0, 5]},
    *({"kind": "rating", "value": 4, "scale": s} for s in ([1, 3], [5, 1], [1], "1-5", [1, 5, 9])),
    *({"kind": "rating", "value": 1, "scale": s} for s in ([True, 2], [0, True], [-1e308, 1e308])),
    {"kind": "choice", "value": "a"},
    {"kind": "choice", "value": {"chosen": "a"}},
    {"kind": "choice", "value": {"chosen": "a", "rejected": SAY}},
    {"kind": "choice", "value": {"chosen": "a", "rejected": "b", "tie": "no"}},
    {"kind": "correction", "value": "Hi"},
    {"kind": "correction", "value": {"content": "Hi"}},
    {"kind": "correction", "value": {"role": "assistant"}},
    {"kind": "correction", "value": {"role": "user", "content": "Hi"}},
    {"kind": "regenerate", "value": False},
    {"kind": "regenerate", "value": 1},
    {"kind": "comment", "value": 7},
    *({"kind": kind, "value": None} for kind in ("choice", "regenerate", "outcome")),
    {"kind": "outcome", "value": True},
    {"kind": "outcome", "value": {"value": True}},
    {"kind": "outcome", "value": {"name": "sold"}},
    {"kind": "outcome", "value": {"name": "sold", "value": None}},
]


def taken(body: dict[str, Any]) -> bool:
    content = json.dumps({"response_id": ID, **body}).encode()
    try:
        answer_feedback.read(content, KEY, TOKEN)
    except OpenAiError as error:
        assert error.status == 400
        return False
    return True


def test_what_is_taken_can_be_loaded_and_what_is_not_could_not(tmp_path: Path):
    assert [body for body in RIGHT if not taken(body)] == []
    assert [body for body in WRONG if taken(body)] == []
    lines = [
        logs.feedback(**{**body, "actor_id": body.get("actor_id") or "ann"})
        for body in [*RIGHT, *WRONG]
    ]
    path = logs.write(tmp_path / "feedback.jsonl", lines)
    with warehouses.connect(tmp_path / "warehouse.duckdb") as con:
        loaded = logs.load_feedback(con, path, now=datetime.now(UTC))
        quarantined = con.execute("select line from raw.quarantine order by line").fetchall()
    assert [line - 1 for (line,) in quarantined] == [*range(len(RIGHT), len(lines))]
    assert loaded.new == len(RIGHT)


@pytest.mark.parametrize(("named", "actor"), [(42, "42"), ("ann", "ann"), ("", "app")])
def test_people_may_have_numbers(named: int | str, actor: str):
    body = {"response_id": ID, "kind": "thumb", "value": "up", "actor_id": named}
    _, _, record = answer_feedback.read(json.dumps(body).encode(), KEY, TOKEN)
    assert record["actor_id"] == actor
