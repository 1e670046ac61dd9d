import json
from pathlib import Path

from components.curate.curate_workload import CurationTally
from components.curate.settings import Rules
from components.schema import Json
from components.store import warehouse
from components.store.warehouse import Connection
from tests.support import curations, logs

PLACEHOLDERS: Json = {"replace": "placeholders"}


def curate(
    con: Connection, folder: Path, lines: list[dict[str, Json]], redaction: Json = None
) -> CurationTally:
    logs.load(con, logs.write(folder / "log.jsonl", lines), now=logs.NOW)
    rules = Rules.model_validate({"redaction": redaction or {}})
    return curations.curate(con, "weather", rules, now=logs.NOW)


def test_examples_are_redacted_and_raw_rows_are_not(con: Connection, tmp_path: Path):
    line = logs.interaction(
        "Mail ann@acme.com",
        message=logs.call("send", '{"to": "Ann@acme.com"}'),
        tools=[logs.tool("send")],
        metadata={"acceptable": [{"name": "send", "arguments": {"to": ["ann@acme.com"]}}]},
    )
    tally = curate(con, tmp_path, [line], PLACEHOLDERS)
    assert tally.redactions == {"email": 3}
    (example,) = warehouse.rows(con, "from curated.examples")
    assert json.loads(str(example["messages"]))[0]["content"] == "Mail <EMAIL_1>"
    assert json.loads(str(example["answer"]))["calls"][0]["arguments"] == {"to": "<EMAIL_1>"}
    assert json.loads(str(example["acceptable"]))[0]["arguments"] == {"to": ["<EMAIL_1>"]}
    (raw,) = warehouse.rows(con, "select payload from raw.interactions")
    assert "ann@acme.com" in str(raw["payload"])


def test_the_report_counts_by_kind_and_holds_no_value(con: Connection, tmp_path: Path):
    lines = [
        logs.interaction("ann@acme.com, bob@acme.com, ann@acme.com", response_id="a"),
        logs.interaction("from 203.0.113.7 by ann@acme.com", response_id="b"),
    ]
    curate(con, tmp_path, lines)
    counts = warehouse.rows(con, "from curated.redactions order by kind")
    assert counts == [
        {
            "workload_id": "weather",
            "kind": "email",
            "interactions": 2,
            "distinct_values": 3,
            "replacements": 4,
        },
        {
            "workload_id": "weather",
            "kind": "ip",
            "interactions": 1,
            "distinct_values": 1,
            "replacements": 1,
        },
    ]


def test_requests_that_differ_in_personal_data_only_are_near_duplicates(
    con: Connection, tmp_path: Path
):
    lines = [
        logs.interaction(f"Where is my order, {who}@acme.com?", response_id=who)
        for who in ("ann", "bob")
    ]
    assert curate(con, tmp_path, lines).counts == {"kept": 1, "near_duplicate": 1}


def test_a_row_that_can_not_be_redacted_is_left_out_alone(con: Connection, tmp_path: Path):
    # A number that Python reads as infinity, which can't be written again as JSON.
    result: dict[str, Json] = {"role": "tool", "content": '{"to": "ann@acme.com", "n": 1e999}'}
    request: Json = {"messages": [result]}
    lines = [
        logs.interaction(response_id="a", request=request),
        logs.interaction("ho", response_id="b"),
    ]
    assert curate(con, tmp_path, lines).counts == {"kept": 1, "redaction_failed": 1}


def test_requests_that_redaction_makes_equal_share_a_side(con: Connection, tmp_path: Path):
    lines = [
        logs.interaction(f"Where is my order, ann{n}@acme.com?", response_id=str(n))
        for n in range(20)
    ]
    curate(con, tmp_path, lines)
    sides = warehouse.rows(con, "select distinct side from curated.standings")
    assert len(sides) == 1
    curate(con, tmp_path, lines, {"allow": ["@acme.com"]})
    sides = warehouse.rows(con, "select distinct side from curated.standings")
    assert len(sides) > 1


def test_pairs_are_redacted_with_their_request(con: Connection, tmp_path: Path):
    lines = [logs.interaction("Mail ann@acme.com", message=logs.say("Sent to ANN@acme.com."))]
    edited = logs.feedback("correction", logs.say("Sent to ann@acme.com, copy to bob@acme.com."))
    logs.load_feedback(con, logs.write(tmp_path / "feedback.jsonl", [edited]), now=logs.NOW)
    curate(con, tmp_path, lines, PLACEHOLDERS)
    (pair,) = warehouse.rows(con, "from curated.preferences")
    assert json.loads(str(pair["messages"]))[0]["content"] == "Mail <EMAIL_1>"
    assert json.loads(str(pair["chosen"]))["text"] == "Sent to <EMAIL_1>, copy to <EMAIL_2>."
    assert json.loads(str(pair["rejected"]))["text"] == "Sent to <EMAIL_1>."


def test_an_agents_conversation_holds_no_person_after_curation(con: Connection, tmp_path: Path):
    profile = {
        "name": {"first_name": "Sofia", "last_name": "Kim"},
        "address": {"address1": "825 Laurel Lane", "address2": "Suite 595", "city": "Houston"},
        "email": "sofia.kim1937@acme.com",
        "payment_methods": {"credit_card_9879898": {"last_four": "9725"}},
        "saved_passengers": [{"first_name": "Mia", "last_name": "Jackson", "dob": "1986-05-05"}],
    }
    messages: Json = [
        {"role": "system", "content": "You are an airline's agent. It is 2024-05-15 15:00:00."},
        {"role": "user", "content": "Change my flight. I'm sofia_kim_7287, 4111 1111 1111 1111."},
        logs.call("details", '{"user_id": "sofia_kim_7287"}'),
        {
            "role": "tool",
            "tool_call_id": "call_1",
            "name": "details",
            "content": json.dumps(profile),
        },
        logs.say("Thank you, Sofia. For Mia Jackson, too?"),
        {"role": "user", "content": "Yes, and call 212-555-0134."},
    ]
    passenger = {"first_name": "Mia", "last_name": "Jackson"}
    booked = json.dumps(
        {"user_id": "sofia_kim_7287", "passengers": [passenger], "flight": "HAT017"}
    )
    line = logs.interaction(
        request={"messages": messages, "tools": [logs.tool("details"), logs.tool("book")]},
        message=logs.call("book", booked),
    )
    assert curate(con, tmp_path, [line], PLACEHOLDERS).counts == {"kept": 1}
    (example,) = warehouse.rows(con, "from curated.examples")
    left = str(example["messages"]) + str(example["answer"])
    values = ("sofia", "kim", "mia", "jackson", "@acme", "4111", "555-0134", "Laurel", "Suite")
    assert [value for value in values if value.lower() in left.lower()] == []
    (call,) = json.loads(str(example["answer"]))["calls"]
    assert call["arguments"] == {
        "user_id": "<NAME_1>_<NAME_2>_7287",
        "passengers": [{"first_name": "<NAME_3>", "last_name": "<NAME_4>"}],
        "flight": "HAT017",
    }
    shown = json.loads(json.loads(str(example["messages"]))[3]["content"])
    assert shown["name"] == {"first_name": "<NAME_1>", "last_name": "<NAME_2>"}
    assert shown["payment_methods"] == profile["payment_methods"]
