"""Loading the receiver's segments."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from components.collect import segments
from components.schema import Json
from components.serve import body_fields
from components.store import spool
from components.store.warehouse import Connection
from tests.support import logs, telemetry, warehouses


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def put(folder: Path, *entries: tuple[spool.Kind, str, str]) -> Path:
    """Seal a segment of entries, each with its kind, client and body."""
    writer = spool.Writer(folder)
    writer.commit([spool.line(kind, client, body.encode()) for kind, client, body in entries])
    segment = writer.seal()
    assert segment is not None
    return segment


def stored(con: Connection) -> list[tuple[str, str]]:
    """Return client and payload of the interactions."""
    sql = "select client_id, payload from raw.interactions order by line, client_id"
    return con.execute(sql).fetchall()


def call(**attributes: str) -> bytes:
    """Return a request with one span of a model call, in protobuf."""
    conventions: dict[str, Json] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.input.messages": [message("user", "Is it raining?")],
        "gen_ai.output.messages": [message("assistant", "No.")],
    }
    return telemetry.call(name="chat gpt-5", **conventions, **attributes)


def message(role: str, text: str) -> Json:
    return {"role": role, "parts": [{"type": "text", "content": text}]}


def in_json(request: bytes) -> str:
    """Return the spooled body of a request in JSON."""
    return json.dumps(telemetry.json_form(request))


def in_protobuf(request: bytes) -> str:
    """Return the spooled body of a request in protobuf."""
    return json.dumps(base64.b64encode(request).decode())


def test_a_record_that_names_its_client_is_stored_verbatim(con: Connection, folder: Path):
    text = json.dumps(logs.interaction(), indent=1).replace("\n", " ")
    put(folder, ("interactions", "app", text))
    logs.load_spool(con, folder, now=logs.NOW)
    assert stored(con) == [("app", text)]


def test_the_records_of_an_array_are_cut_out_verbatim(con: Connection, folder: Path):
    texts = [
        json.dumps(logs.interaction("a, ]} b", response_id=f"r{n}"), separators=(" , ", " : "))
        for n in range(3)
    ]
    put(folder, ("interactions", "app", f" [ {' , '.join(texts)} ] "))
    (loaded,) = logs.load_spool(con, folder, now=logs.NOW)
    assert (loaded.new, loaded.known, loaded.quarantined) == (3, 0, 0)
    assert stored(con) == [("app", text) for text in texts]


def test_a_record_without_a_client_is_the_token_owners(con: Connection, folder: Path):
    line = logs.interaction()
    del line["client_id"]
    put(folder, ("interactions", "app", json.dumps(line)))
    logs.load_spool(con, folder, now=logs.NOW)
    assert stored(con) == [("app", '{"client_id": "app", ' + json.dumps(line)[1:])]


def test_a_record_of_another_client_is_the_token_owners_and_keeps_the_claim(
    con: Connection, folder: Path
):
    put(folder, ("interactions", "app", json.dumps(logs.interaction(client_id="other"))))
    logs.load_spool(con, folder, now=logs.NOW)
    ((client_id, payload),) = stored(con)
    assert client_id == "app"
    assert json.loads(payload) == logs.interaction(claimed_client_id="other")


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param('"client_id": "victim", "client_id": "app"', id="first"),
        pytest.param('"client_id": "app", "client_id": "victim"', id="last"),
        pytest.param('"client\\u005fid": "victim", "client_id": "app"', id="escaped-first"),
        pytest.param('"client_id": "app", "\\u0063lient_id": "victim"', id="escaped-last"),
        pytest.param('"client\\u005fid": "victim"', id="escaped-alone"),
    ],
)
def test_no_spelling_of_client_id_changes_the_owner_of_a_record(
    con: Connection, folder: Path, keys: str
):
    line = logs.feedback()
    del line["client_id"]
    put(folder, ("feedback", "app", f"{{{keys}, {json.dumps(line)[1:]}"))
    logs.load_spool(con, folder, now=logs.NOW)
    assert con.execute(
        "select client_id, coalesce(record, payload) ->> '$.client_id' from raw.feedback"
    ).fetchall() == [("app", "app")]


def test_a_record_of_the_deepest_request_that_a_gateway_answers_is_loaded(
    con: Connection, folder: Path
):
    deep: Json = {}
    for _ in range(body_fields.DEEPEST - 5):  # in the request, its tools, a tool, its function
        deep = {"a": deep}
    tool: Json = {"type": "function", "function": {"name": "deep", "parameters": deep}}
    record = logs.interaction(tools=[tool])
    body_fields.read_object(json.dumps(record["request"]).encode())
    put(folder, ("interactions", "app", json.dumps(record)))
    (loaded,) = logs.load_spool(con, folder, now=logs.NOW)
    assert (loaded.new, loaded.quarantined) == (1, 0)


RESPONSES = {"input": "Rain?", "model": "support", "instructions": "Be brief."}


@pytest.mark.parametrize("finish", ["stop", "client_gone"])
def test_another_servers_answer_of_the_responses_api_is_a_chat(
    con: Connection, folder: Path, finish: str
):
    part = {"type": "output_text", "text": "It is dry."}
    said = {"type": "message", "role": "assistant", "content": [part]}
    status = "completed" if finish == "stop" else "in_progress"
    used = {"input_tokens": 30, "output_tokens": 20}
    response = {"id": "resp_1", "model": "m", "status": status, "output": [said], "usage": used}
    record = logs.interaction() | {
        "request": RESPONSES, "response": response, "served": {"arm": "fallback"}, "finish": finish,
    }  # fmt: skip
    put(folder, ("interactions", "app", json.dumps(record)))
    (loaded,) = logs.load_spool(con, folder, now=logs.NOW)
    assert (loaded.new, loaded.quarantined) == (1, 0)
    (text,) = con.execute("select record from raw.interactions").fetchone() or ("",)
    stored = json.loads(text)
    assert [message["role"] for message in stored["request"]["messages"]] == ["system", "user"]
    (choice,) = stored["response"]["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("It is dry.", finish)
    assert stored["response"]["usage"]["completion_tokens"] == 20
    assert stored["served"] == {"arm": "fallback"}


def test_one_that_needs_earlier_answers_is_quarantined(con: Connection, folder: Path):
    request = RESPONSES | {"previous_response_id": "resp_0"}
    record = logs.interaction() | {"request": request, "served": {"arm": "fallback"}}
    put(folder, ("interactions", "app", json.dumps(record)))
    (loaded,) = logs.load_spool(con, folder, now=logs.NOW)
    assert (loaded.new, loaded.quarantined) == (0, 1)


def test_a_nested_client_id_does_not_touch_the_text(con: Connection, folder: Path):
    text = json.dumps(logs.interaction(metadata={"client_id": "x", "note": "\u005f"}))
    put(folder, ("interactions", "app", text))
    logs.load_spool(con, folder, now=logs.NOW)
    assert stored(con) == [("app", text)]


def test_the_same_row_in_a_file_and_in_a_segment_is_one_row(
    con: Connection, folder: Path, tmp_path: Path
):
    line = logs.interaction()
    logs.load(con, logs.write(tmp_path / "a.jsonl", [line]), now=logs.NOW)
    put(folder, ("interactions", "app", json.dumps(line)))
    (loaded,) = logs.load_spool(con, folder, now=logs.NOW)
    assert (loaded.new, loaded.known) == (0, 1)


def test_loading_a_segment_again_changes_nothing(con: Connection, folder: Path):
    segment = put(
        folder,
        ("interactions", "app", json.dumps(logs.interaction())),
        ("feedback", "app", json.dumps([logs.feedback(), logs.feedback(actor_id="bob")])),
        ("interactions", "app", json.dumps(logs.interaction(workload_id=7))),
    )
    content = segment.read_bytes()
    first = logs.load_spool(con, folder, now=logs.NOW)
    assert [(loaded.source, loaded.new, loaded.quarantined) for loaded in first] == [
        ("fivekey", 1, 1),
        ("feedback", 2, 0),
    ]
    assert not segment.exists()
    segment.write_bytes(content)  # as if a load was killed after its commit
    again = logs.load_spool(con, folder, now=logs.NOW)
    assert [(loaded.source, loaded.new, loaded.skipped) for loaded in again] == [
        ("fivekey", 0, True),
        ("feedback", 0, True),
    ]
    assert not segment.exists()


def numbered(number: int) -> tuple[spool.Kind, str, str]:
    return "interactions", "app", json.dumps(logs.interaction(response_id=f"r{number}"))


def test_small_segments_are_loaded_together_and_each_is_known_afterwards(
    con: Connection, folder: Path
):
    paths = [
        put(folder, numbered(n), ("feedback", "app", json.dumps(logs.feedback()))) for n in range(3)
    ]
    contents = {path: path.read_bytes() for path in paths}
    (piece,) = segments.plan_pieces(folder, now=logs.NOW)
    loaded = piece(con)
    assert [each.path for each in loaded] == [*paths, *paths]
    assert sum(each.new for each in loaded if each.source == "fivekey") == 3
    assert spool.sealed(folder) == []
    for path in paths[:2]:
        path.write_bytes(contents[path])  # as if the load was killed before it deleted them all
    put(folder, numbered(3))
    again = logs.load_spool(con, folder, now=logs.NOW)
    assert sum(each.new for each in again) == 1
    assert sum(each.skipped for each in again) == 4
    assert len(stored(con)) == 4
    assert con.execute("select count(*) from raw.feedback").fetchall() == [(1,)]


def test_a_bad_record_among_small_segments_is_quarantined_with_its_own_and_stops_no_other(
    con: Connection, folder: Path
):
    bad = json.dumps(logs.interaction(workload_id=7))
    put(folder, numbered(1))
    segment = put(folder, numbered(2), ("interactions", "app", bad))
    put(folder, numbered(3))
    loaded = logs.load_spool(con, folder, now=logs.NOW)
    assert sorted((each.new, each.quarantined) for each in loaded) == [(1, 0), (1, 0), (1, 1)]
    sql = "select path, line, content from raw.quarantine"
    assert con.execute(sql).fetchall() == [(str(segment), 2, bad.encode())]
    assert len(stored(con)) == 3
    assert spool.sealed(folder) == []


def test_segments_are_loaded_together_up_to_a_size(con: Connection, folder: Path):
    text = "x" * (segments.TOGETHER_BYTES // 3)
    for number in range(4):
        line = json.dumps(logs.interaction(text, response_id=f"r{number}"))
        put(folder, ("interactions", "app", line))
    assert [len(piece(con)) for piece in segments.plan_pieces(folder, now=logs.NOW)] == [2, 2]
    assert len(stored(con)) == 4


def test_a_bad_record_goes_to_quarantine_with_its_segment_and_reason(con: Connection, folder: Path):
    bad = json.dumps(logs.interaction(workload_id=7))
    segment = put(folder, ("interactions", "app", f"[{json.dumps(logs.interaction())}, {bad}]"))
    logs.load_spool(con, folder, now=logs.NOW)
    sql = "select path, line, reason, content from raw.quarantine"
    reason = "`workload_id` is UBIGINT, expected text"
    assert con.execute(sql).fetchall() == [(str(segment), 2, reason, bad.encode())]


@pytest.mark.parametrize("depth", [150, 400, 900, 1_500, 100_000])
@pytest.mark.parametrize("kind", ["interactions", "feedback", "traces"])
def test_a_body_nested_too_deeply_costs_only_itself(
    con: Connection, folder: Path, kind: spool.Kind, depth: int
):
    deep = '{"client_id": "app", "a": ' + "[" * depth + "]" * depth + "}"
    writer = spool.Writer(folder)
    writer.commit([spool.line(kind, "app", body.encode()) for body in (deep, f"[{deep}]")])
    writer.seal()
    put(folder, ("interactions", "app", json.dumps(logs.interaction())))
    logs.load_spool(con, folder, now=logs.NOW)
    assert len(stored(con)) == 1


def test_entries_damaged_on_disk_go_to_quarantine(con: Connection, folder: Path):
    writer = spool.Writer(folder)
    good = spool.line("interactions", "app", json.dumps(logs.interaction()).encode())
    cut = b'{"kind":"feedback","client_id":"app","body":[{"a":1]}\n'
    writer.commit([b"\x00\x00\n", good, cut])
    writer.seal()
    logs.load_spool(con, folder, now=logs.NOW)
    assert [client_id for client_id, _ in stored(con)] == ["app"]
    refused = con.execute("select content, reason from raw.quarantine order by line").fetchall()
    assert refused == [
        (b"\x00\x00\n", "the line is not one that a receiver writes"),
        (
            b'[{"a":1]',
            "the feedback body of app can't be read any more: Expecting ',' delimiter: "
            "line 1 column 8 (char 7)",
        ),
    ]


@pytest.mark.parametrize("write", [in_json, in_protobuf])
def test_spans_are_loaded_as_their_owners(
    con: Connection, folder: Path, write: Callable[[bytes], str]
):
    put(
        folder,
        ("traces", "app", write(call())),
        ("traces", "shop", write(call(flywheel__workload_id="weather"))),
    )
    logs.load_spool(con, folder, now=datetime.now(UTC))  # the SDK's spans are of now
    rows = con.execute(
        "select client_id, workload_id, source, record -> '$.request.messages'"
        " from raw.interactions order by client_id"
    ).fetchall()
    asked = [{"role": "user", "content": "Is it raining?"}]
    assert [(*row[:3], json.loads(row[3])) for row in rows] == [
        ("app", "app", "otlp", asked),
        ("shop", "weather", "otlp", asked),
    ]


MESSAGES: list[telemetry.Event] = [
    ("gen_ai.user.message", {"content": "Is it raining?"}),
    ("gen_ai.choice", {"index": 0, "finish_reason": "stop", "message": {"content": "No."}}),
]


@pytest.mark.parametrize("first", ["traces", "logs"])
@pytest.mark.parametrize("write", [in_json, in_protobuf])
def test_the_span_and_the_log_records_of_a_call_are_joined_across_segments(
    con: Connection, folder: Path, write: Callable[[bytes], str], first: spool.Kind
):
    span, records = telemetry.logs_of_a_span(*MESSAGES)
    parts: dict[spool.Kind, bytes] = {"traces": span, "logs": records}
    for kind in sorted(parts, key=lambda kind: kind != first):
        put(folder, (kind, "app", write(parts[kind])))
    (loaded,) = logs.load_spool(con, folder, now=datetime.now(UTC))
    assert (loaded.new, loaded.quarantined) == (1, 0)
    ((record,),) = con.execute("select record from raw.interactions").fetchall()
    read = json.loads(record)
    assert read["request"]["model"] == "gpt-4o-mini"
    assert read["request"]["messages"] == [{"role": "user", "content": "Is it raining?"}]
    assert read["response"]["choices"][0]["message"] == logs.say("No.")
    assert spool.sealed(folder) == []


def test_the_span_of_one_client_is_not_joined_with_the_log_records_of_another(
    con: Connection, folder: Path
):
    span, records = telemetry.logs_of_a_span(*MESSAGES)
    put(folder, ("traces", "app", in_json(span)), ("logs", "shop", in_json(records)))
    app, shop = logs.load_spool(con, folder, now=later())
    assert (app.new, app.quarantined) == (0, 1)
    assert (shop.new, shop.quarantined) == (1, 0)
    ((record,),) = con.execute("select record from raw.interactions").fetchall()
    assert "model" not in json.loads(record)["request"]


def later() -> datetime:
    """Return a time when what is in the spool now waits for nothing any more."""
    return datetime.now(UTC) + timedelta(seconds=segments.HOLD_BACK_SECONDS + 1)


def model_and_quarantined(con: Connection) -> tuple[list[str | None], int]:
    """Return the model of each interaction, and how many lines are in quarantine."""
    rows = con.execute("select coalesce(record, payload) from raw.interactions").fetchall()
    ((lines,),) = con.execute("select count(*) from raw.quarantine").fetchall()
    return [json.loads(record)["request"].get("model") for (record,) in rows], lines


@pytest.mark.parametrize("first", ["traces", "logs"])
@pytest.mark.parametrize("write", [in_json, in_protobuf])
def test_the_span_and_the_log_records_of_a_call_are_joined_across_loads(
    con: Connection, folder: Path, write: Callable[[bytes], str], first: spool.Kind
):
    span, records = telemetry.logs_of_a_span(*MESSAGES)
    parts: dict[spool.Kind, bytes] = {"traces": span, "logs": records}
    whole = in_json(call())
    for number, kind in enumerate(sorted(parts, key=lambda kind: kind != first)):
        put(folder, (kind, "app", write(parts[kind])), ("traces", "app", whole))
        (loaded,) = logs.load_spool(con, folder, now=datetime.now(UTC))
        assert (loaded.new, loaded.waiting) == (1, 1 - number), "what is whole waits for nothing"
    models, quarantined = model_and_quarantined(con)
    assert sorted(models, key=str) == [None, "gpt-4o-mini"]
    assert quarantined == 0
    assert spool.sealed(folder) == []


def test_a_part_waits_however_often_others_are_collected_and_not_for_ever(
    con: Connection, folder: Path
):
    span, records = telemetry.logs_of_a_span(*MESSAGES)
    put(folder, ("traces", "app", in_json(span)), ("logs", "shop", in_json(records)))
    for _ in range(3):
        for loaded in logs.load_spool(con, folder, now=datetime.now(UTC)):
            assert (loaded.new, loaded.quarantined) == (0, 0)
        assert len(spool.sealed(folder)) == 2, "a part of each client"
    assert model_and_quarantined(con) == ([], 0)
    logs.load_spool(con, folder, now=later())
    assert model_and_quarantined(con) == ([None], 1)
    assert spool.sealed(folder) == []


@pytest.mark.parametrize("first", ["traces", "logs"])
def test_a_kill_before_its_segment_was_deleted_does_not_double_a_part_that_waits(
    con: Connection, folder: Path, first: spool.Kind
):
    span, records = telemetry.logs_of_a_span(*MESSAGES)
    parts: dict[spool.Kind, str] = {"traces": in_json(span), "logs": in_json(records)}
    early, late = sorted(parts, key=lambda kind: kind != first)
    segment = put(folder, (early, "app", parts[early]), ("traces", "app", in_json(call())))
    content = segment.read_bytes()
    logs.load_spool(con, folder, now=datetime.now(UTC))
    segment.write_bytes(content)
    put(folder, (late, "app", parts[late]))
    (loaded,) = logs.load_spool(con, folder, now=datetime.now(UTC))
    assert (loaded.new, loaded.known, loaded.waiting) == (1, 1, 0)
    assert model_and_quarantined(con)[1] == 0
    ((messages,),) = con.execute(
        "select record -> '$.request.messages' from raw.interactions"
        " where record ->> '$.request.model' = 'gpt-4o-mini'"
    ).fetchall()
    assert json.loads(messages) == [{"role": "user", "content": "Is it raining?"}]
    assert spool.sealed(folder) == []


def test_a_request_that_two_receivers_took_counts_once(con: Connection, folder: Path):
    span, records = telemetry.logs_of_a_span(*MESSAGES)
    for note in "12":  # the second one has another segment's name by what else is in it
        other = json.dumps(logs.interaction(note, response_id=note))
        put(
            folder,
            ("interactions", "app", other),
            ("logs", "app", in_json(records)),
            ("traces", "app", in_json(span)),
        )
    assert sum(loaded.new for loaded in logs.load_spool(con, folder, now=later())) == 3
    models, quarantined = model_and_quarantined(con)
    assert (models.count("gpt-4o-mini"), quarantined) == (1, 0)


@pytest.mark.parametrize("again", ["traces", "logs"])
def test_a_part_that_is_sent_again_after_its_call_was_loaded_is_not_another_call(
    con: Connection, folder: Path, again: spool.Kind
):
    span, records = telemetry.logs_of_a_span(*MESSAGES)
    parts: dict[spool.Kind, str] = {"traces": in_json(span), "logs": in_json(records)}
    whole: list[tuple[spool.Kind, str, str]] = [(kind, "app", parts[kind]) for kind in parts]
    put(folder, *whole)
    logs.load_spool(con, folder, now=datetime.now(UTC))
    put(folder, (again, "app", parts[again]))
    logs.load_spool(con, folder, now=later())
    models, quarantined = model_and_quarantined(con)
    assert (models, quarantined) == (["gpt-4o-mini"], 0)
    put(folder, *whole)
    (loaded,) = logs.load_spool(con, folder, now=later())
    assert (loaded.new, loaded.known, loaded.quarantined) == (0, 1, 0)
    put(folder, (again, "shop", parts[again]))  # another client's call
    (other,) = logs.load_spool(con, folder, now=later())
    assert other.new == (again == "logs")


def test_a_span_that_comes_after_its_log_records_were_loaded_is_quarantined_with_its_reason(
    con: Connection, folder: Path
):
    span, records = telemetry.logs_of_a_span(*MESSAGES)
    segment = put(folder, ("logs", "app", in_json(records)))
    content = segment.read_bytes()
    logs.load_spool(con, folder, now=later())
    segment.write_bytes(content)  # as if a load was killed after its commit
    (loaded,) = logs.load_spool(con, folder, now=later())
    assert (loaded.new, loaded.quarantined) == (0, 0)
    put(folder, ("traces", "app", in_json(span)), ("logs", "app", in_json(records)))
    logs.load_spool(con, folder, now=later())
    assert model_and_quarantined(con) == ([None], 1)
    ((reason, late),) = con.execute("select reason, content from raw.quarantine").fetchall()
    assert "its call was loaded before" in reason
    assert json.loads(late).keys() == {"resourceSpans"}, "the log records are known"


@pytest.mark.parametrize("loads", [1, 2], ids=["one-load", "two-loads"])
def test_calls_of_a_client_that_leaves_its_ids_at_zero_are_all_loaded(
    con: Connection, folder: Path, loads: int
):
    nobody = {"traceId": "0" * 32, "spanId": "0" * 16}
    for number in range(2):
        span = json.loads(in_json(call(number=str(number))))
        (body,) = span["resourceSpans"][0]["scopeSpans"][0]["spans"]
        body |= nobody
        put(folder, ("traces", "app", json.dumps(span)))
        if loads == 2:
            logs.load_spool(con, folder, now=later())
    logs.load_spool(con, folder, now=later())
    assert model_and_quarantined(con) == ([None, None], 0)


def test_parts_are_forgotten_after_a_week(con: Connection, folder: Path):
    put(folder, ("traces", "app", in_json(call())))
    logs.load_spool(con, folder, now=datetime.now(UTC))
    put(folder, ("traces", "app", in_json(call())))
    logs.load_spool(con, folder, now=datetime.now(UTC) + timedelta(days=8))
    ((latest, count),) = con.execute(
        "select max(loaded_at), count(*) from raw.loaded_parts"
    ).fetchall()
    assert count == 1
    assert latest > datetime.now(UTC) + timedelta(days=7)


def test_a_part_that_waits_is_kept_though_it_has_what_can_not_be_encoded(
    con: Connection, folder: Path
):
    question = r"Is it\ud800\n raining?"
    span, records = telemetry.logs_of_a_span(("gen_ai.user.message", {"content": "?"}), MESSAGES[1])
    body = in_json(records).replace('"?"', f'"{question}"')
    put(folder, ("logs", "app", body))
    logs.load_spool(con, folder, now=datetime.now(UTC))
    (kept,) = spool.sealed(folder)
    assert question.encode() in kept.read_bytes()
    put(folder, ("traces", "app", in_json(span)))
    logs.load_spool(con, folder, now=datetime.now(UTC))
    ((count,),) = con.execute(
        "select (select count(*) from raw.interactions) + (select count(*) from raw.quarantine)"
    ).fetchall()
    assert count == 1
    assert spool.sealed(folder) == []


def test_loading_telemetry_again_with_more_of_it_changes_nothing(con: Connection, folder: Path):
    first = put(folder, ("traces", "app", in_json(call())))
    content = first.read_bytes()
    now = datetime.now(UTC)
    assert [loaded.new for loaded in logs.load_spool(con, folder, now=now)] == [1]
    first.write_bytes(content)  # as if a load was killed after its commit
    put(folder, ("traces", "app", in_json(call())))
    assert [(loaded.new, loaded.known) for loaded in logs.load_spool(con, folder, now=now)] == [
        (1, 1)
    ]


def test_requests_without_a_model_call_are_skipped(con: Connection, folder: Path):
    put(folder, ("traces", "app", in_json(telemetry.call(db__system="duckdb"))))
    (loaded,) = logs.load_spool(con, folder, now=logs.NOW)
    assert (loaded.new, loaded.quarantined) == (0, 0)
    assert spool.sealed(folder) == []


@pytest.mark.parametrize(
    "attributes",
    [
        pytest.param(
            {
                "openinference.span.kind": "LLM",
                "llm.input_messages.0.message.role": "user",
                "llm.input_messages.0.message.content": "Is it raining?",
                "llm.output_messages.0.message.content": "No.",
            },
            id="openinference",
        ),
        pytest.param(
            {
                "mlflow.spanType": '"LLM"',
                "mlflow.spanInputs": '"Is it raining?"',
                "mlflow.spanOutputs": '"No."',
            },
            id="mlflow",
        ),
    ],
)
def test_spans_of_other_conventions_are_no_requests_without_a_model_call(
    con: Connection, folder: Path, attributes: dict[str, str]
):
    put(folder, ("traces", "app", in_json(telemetry.call(**attributes))))
    (loaded,) = logs.load_spool(con, folder, now=datetime.now(UTC))
    assert (loaded.new, loaded.quarantined) == (1, 0)


@pytest.mark.slow
def test_a_load_that_is_killed_loses_nothing(folder: Path, tmp_path: Path):
    count = 20_000
    lines = [json.dumps(logs.interaction("x" * 1500, response_id=f"r{n}")) for n in range(count)]
    segment = put(folder, ("interactions", "app", f"[{','.join(lines)}]"))
    store = tmp_path / "warehouse.duckdb"
    warehouses.location(store)
    code = (
        "import sys; from datetime import UTC, datetime; from pathlib import Path\n"
        "from tests.support import logs, warehouses\n"
        "with warehouses.connect(Path(sys.argv[1])) as con:\n"
        "    print('begins', flush=True)\n"
        "    logs.load_spool(con, Path(sys.argv[2]), now=datetime.now(UTC))\n"
    )
    loader = subprocess.Popen(
        [sys.executable, "-c", code, store, folder], stdout=subprocess.PIPE, text=True
    )
    assert loader.stdout is not None
    assert loader.stdout.readline() == "begins\n"
    time.sleep(0.2)  # 30 MB take longer to load
    assert loader.poll() is None
    os.kill(loader.pid, signal.SIGKILL)
    loader.wait()
    loader.stdout.close()
    assert segment.exists()
    with warehouses.connect(store) as con:
        assert con.execute("select count(*) from raw.interactions").fetchall() == [(0,)]
        (loaded,) = logs.load_spool(con, folder, now=logs.NOW)
        assert loaded.new == count
    assert not segment.exists()


def test_an_empty_spool_loads_nothing(con: Connection, folder: Path):
    assert logs.load_spool(con, folder, now=logs.NOW) == []


def test_a_segment_loaded_by_another_collect_between_two_pieces_is_skipped(
    con: Connection, folder: Path
):
    texts = [json.dumps(logs.interaction(f"{n}?", response_id=f"r{n}")) for n in range(2)]
    now = datetime.now(UTC)
    put(folder, ("interactions", "app", texts[0]))
    put(folder, ("interactions", "app", texts[1]), ("traces", "shop", in_protobuf(call())))
    pieces = segments.plan_pieces(folder, now=now)
    first = next(pieces)
    assert sum(loaded.new for loaded in logs.load_spool(con, folder, now=now)) == 3
    assert first(con) == []
    assert not any(piece(con) for piece in pieces)
    assert len(stored(con)) == 3
    assert list(folder.iterdir()) == []


def test_a_segment_whose_telemetry_is_still_to_be_loaded_stays(con: Connection, folder: Path):
    text = json.dumps(logs.interaction())
    put(folder, ("interactions", "app", text), ("traces", "shop", in_protobuf(call())))
    first, last = segments.plan_pieces(folder, now=datetime.now(UTC))
    assert [loaded.new for loaded in first(con)] == [1]
    assert len(spool.sealed(folder)) == 1
    assert [loaded.new for loaded in last(con)] == [1]
    assert spool.sealed(folder) == []
