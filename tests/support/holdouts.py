"""A finished snapshot with a small holdout, for whatever evaluates."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components.chat import prompt
from components.dataset import preference_files
from components.dataset.preference_files import PairRecord
from components.schema import AcceptableCall, Answer, Call, Json
from components.store import manifest

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TOOLS: list[dict[str, Json]] = [
    {"type": "function", "function": {"name": "weather", "description": "Tell the weather"}}
]


@dataclass(frozen=True)
class Case:
    """One request, its right answer and, where they are known, the acceptable values.

    ``logged`` is what production answered; a snapshot of cases without any is an old one.
    ``schema`` is the JSON Schema of the answer, and a snapshot of cases without any has none.
    """

    asked: str
    answer: Answer
    acceptable: tuple[AcceptableCall, ...] | None = None
    logged: Answer | None = None
    schema: str = ""


CASES = (
    Case("Weather in Rome?", Answer(calls=(Call("weather", {"city": "Rome"}),))),
    Case(
        "Weather in New York?",
        Answer(calls=(Call("weather", {"city": "New York"}),)),
        (AcceptableCall("weather", {"city": ["New York", "NYC"], "unit": ["", "C"]}),),
    ),
    Case("Write a poem", Answer("No tool fits this.")),
)


def build(
    root: Path,
    cases: Sequence[Case] = CASES,
    learned: Sequence[Case] = CASES[:1],
    tools: Sequence[dict[str, Json]] = TOOLS,
    validation: Sequence[Case] = (),
) -> Path:
    """Write a snapshot folder whose holdout holds ``cases``, and its other sides the others."""
    folder = root / "snapshot"
    folder.mkdir(parents=True)
    sides = {"holdout": ("e", cases), "train": ("t", learned), "validation": ("v", validation)}
    for side_name, (name, side) in sides.items():
        rows = [_row(f"{name}{number}", case, tools) for number, case in enumerate(side)]
        file = folder / f"{side_name}.parquet"
        is_old = all(case.logged is None for case in side)
        schema = SCHEMA if is_old else SCHEMA.append(pa.field("logged_answer", pa.string()))
        if any(case.schema for case in side):
            schema = schema.append(pa.field("response_schema", pa.string()))
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), file)
    body = {"workload": "tools", "rows": {}, "holdout_version": "v1"}
    manifest.write(folder, kind="snapshot", now=NOW, body=body)
    return folder


SCHEMA = pa.schema(
    [
        ("example_id", pa.string()),
        ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("messages", pa.string()),
        ("tools", pa.string()),
        ("answer", pa.string()),
        ("acceptable", pa.string()),
        ("group", pa.string()),
        ("client_id", pa.string()),
        ("label", pa.string()),
    ]
)


def _row(name: str, case: Case, tools: Sequence[dict[str, Json]]) -> dict[str, object]:
    acceptable = None if case.acceptable is None else [asdict(call) for call in case.acceptable]
    return {
        "example_id": name,
        "prompt": prompt.render_prompt([{"role": "user", "content": case.asked}], tools),
        "messages": json.dumps([{"role": "user", "content": case.asked}]),
        "tools": json.dumps(tools),
        "answer": case.answer.to_json(),
        "acceptable": None if acceptable is None else json.dumps(acceptable),
        "logged_answer": case.logged and case.logged.to_json(),
        "response_schema": case.schema,
        "group": f"group of {name}",
        "client_id": "app",
        "label": " + ".join(call.name for call in case.answer.calls) or case.answer.text,
    }


def hold_pairs(snapshot: Path, pairs: Sequence[PairRecord]) -> None:
    """Put pairs that are never learned into a snapshot."""
    rows = [preference_files.pair(one) for one in pairs]
    table = pa.Table.from_pylist(rows, schema=preference_files.HELD_OUT)
    pq.write_table(table, snapshot / "holdout_preferences.parquet")


def pair(name: str, asked: str, chosen: Answer, rejected: Answer, **told: str | None) -> PairRecord:
    """Make a pair; ``told`` are its group, its client and its language."""
    return PairRecord(
        preference_id=name,
        source="choice",
        group_id=told.get("group", f"group of {name}"),
        cluster_id=told.get("group") or f"group of {name}",
        client_id=told.get("client", "app"),
        language=told.get("language", "en"),
        messages=json.dumps([{"role": "user", "content": asked}]),
        tools="[]",
        chosen=chosen.to_json(),
        rejected=rejected.to_json(),
        weight=1.0,
        interaction_ids=[f"i {name}"],
        feedback_ids=[f"f {name}"],
    )
