"""Which feedback is stored, and which goes to quarantine."""

import json
from pathlib import Path

import pytest

from components.schema import Json
from components.store import warehouse
from components.store.warehouse import Connection
from tests.support import logs


def reasons(con: Connection) -> list[str]:
    rows = con.execute("select reason from raw.quarantine order by line").fetchall()
    return [reason for (reason,) in rows]


BAD: dict[str, tuple[dict[str, Json], str]] = {
    "keys": (logs.without(logs.feedback(), "actor_id", "kind"), "missing keys: actor_id, kind"),
    "number": (logs.feedback(actor_id=3), "`actor_id` is UBIGINT, expected text"),
    "kind": (
        logs.feedback("applause", 5),
        '`kind` is "applause", expected thumb, rating, choice, correction, regenerate, comment '
        "or outcome",
    ),
    "no-target": (
        logs.without(logs.feedback(), "response_id"),
        "missing keys: response_id or conversation_id",
    ),
    "two-targets": (
        logs.feedback(conversation_id="c1"),
        "names more than one of response_id, conversation_id and target_id, expected one",
    ),
    "rating-without-scale": (
        logs.feedback("rating", 4),
        "`scale` of a rating is missing, expected [lowest, highest]",
    ),
    "rating-off-scale": (
        logs.feedback("rating", 6, scale=[1, 5]),
        "`value` of a rating is 6, expected a number within its scale [1,5]",
    ),
    "scale-upside-down": (
        logs.feedback("rating", 3, scale=[5, 1]),
        "`scale` of a rating is [5,1], expected [lowest, highest]",
    ),
    "rating-is-text": (
        logs.feedback("rating", "4", scale=[1, 5]),
        "`value` of a rating is VARCHAR, expected a number",
    ),
    "half-a-choice": (
        logs.feedback("choice", {"chosen": "r1"}),
        "`value` of a choice has chosen VARCHAR and rejected missing, expected two assistant "
        "messages or two response ids",
    ),
    "tie-is-text": (
        logs.feedback("choice", {"chosen": "r1", "rejected": "r2", "tie": "yes"}),
        "`value.tie` of a choice is VARCHAR, expected true or false",
    ),
    "not-regenerated": (
        logs.feedback("regenerate", False),
        "`value` of a regenerate is false, expected true or the id of the new response",
    ),
    "comment": (logs.feedback("comment", 1), "`value` of a comment is UBIGINT, expected text"),
    "outcome-is-text": (
        logs.feedback("outcome", "solved"),
        "`value` of an outcome is VARCHAR, expected an object",
    ),
    "outcome-without-name": (
        logs.feedback("outcome", {"value": True}),
        "`value.name` of an outcome is missing, expected text",
    ),
    "outcome-without-value": (
        logs.feedback("outcome", {"name": "solved", "value": None}),
        "`value.value` of an outcome is NULL, expected true or false, a number or text",
    ),
    "comment-list": (logs.feedback(comment=["nice"]), "`comment` is ARRAY, expected text"),
    "thumb": (
        logs.feedback(value="sideways"),
        '`value` of a thumb is "sideways", expected "up" or "down"',
    ),
    "correction-is-text": (
        logs.feedback("correction", "Rainy."),
        "`value` of a correction is VARCHAR, expected an assistant message",
    ),
    "role": (
        logs.feedback("correction", {"role": "user", "content": "x"}),
        "`value.role` of a correction is user, expected assistant",
    ),
    "empty": (
        logs.feedback("correction", {"role": "assistant", "content": None}),
        "`value` of a correction has neither content nor tool_calls",
    ),
    "future": (
        logs.feedback(timestamp=9e12),
        "`timestamp` 9000000000000.0 lies more than a day in the future; expected unix "
        "seconds, not milliseconds",
    ),
}
"""Bad lines with the reason of each."""


def test_bad_feedback_goes_to_quarantine(con: Connection, tmp_path: Path):
    good = [logs.feedback(), logs.feedback("correction", logs.call("weather", {"city": "Rome"}))]
    written = logs.write(tmp_path / "f.jsonl", [*good, *(line for line, _ in BAD.values())])
    loaded = logs.load_feedback(con, written, now=logs.NOW)
    assert dict(zip(BAD, reasons(con), strict=True)) == {
        name: reason for name, (_, reason) in BAD.items()
    }
    assert (loaded.new, loaded.quarantined) == (2, len(BAD))


NO_NUMBERS: dict[str, tuple[str, Json, str]] = {
    "outcome": (
        "outcome",
        {"name": "quality", "value": "@"},
        "`value.value` of an outcome is @, expected a finite number",
    ),
    "scale": ("rating", 4, "`scale` of a rating is [1,@], expected two finite numbers"),
    "in-a-message": (
        "correction",
        logs.call("weather", {"city": ["@"]}),
        "`value` of a correction has NaN or Infinity, which is not JSON",
    ),
}
"""Kind, value and reason, with a place for what is not a number."""


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "-nan", "inf"])
@pytest.mark.parametrize("place", NO_NUMBERS)
def test_what_is_not_a_number_is_refused_alone_with_its_place_and_bytes(
    con: Connection, tmp_path: Path, number: str, place: str
):
    kind, value, reason = NO_NUMBERS[place]
    scale: Json = {"scale": [1, "@"]} if place == "scale" else {}
    bad = json.dumps(logs.feedback(kind, value, **scale)).replace('"@"', number)
    path = tmp_path / "f.jsonl"
    path.write_text(f"{json.dumps(logs.feedback())}\n{bad}\n")
    loaded = logs.load_feedback(con, path, now=logs.NOW)
    assert (loaded.new, loaded.quarantined) == (1, 1)
    (row,) = warehouse.rows(con, "select line, reason, content from raw.quarantine")
    assert row == {"line": 2, "reason": reason.replace("@", number), "content": bad.encode()}


@pytest.mark.parametrize("number", ["1e999", "-1e999"])
def test_a_number_beyond_every_float_is_no_score(con: Connection, tmp_path: Path, number: str):
    outcome = json.dumps(logs.feedback("outcome", {"name": "quality", "value": "@"}))
    rating = json.dumps(logs.feedback("rating", 4, scale=[1, "@"]))
    path = tmp_path / "f.jsonl"
    path.write_text("\n".join(line.replace('"@"', number) for line in (outcome, rating)))
    assert logs.load_feedback(con, path, now=logs.NOW).new == 0
    assert reasons(con) == [
        f"`value.value` of an outcome is {number}, expected a finite number",
        f"`scale` of a rating is [1,{number}], expected two finite numbers",
    ]


def test_the_ends_of_a_scale_may_not_be_further_apart_than_a_float_can_be(
    con: Connection, tmp_path: Path
):
    line = logs.feedback("rating", 0, scale=[-1e308, 1e308])
    assert logs.load_feedback(con, logs.write(tmp_path / "f.jsonl", [line]), now=logs.NOW).new == 0
    line = logs.feedback("outcome", {"name": "inf or nan", "value": "NaN"}, comment="Infinity")
    assert logs.load_feedback(con, logs.write(tmp_path / "g.jsonl", [line]), now=logs.NOW).new == 1


KINDS = [
    logs.feedback("rating", 4.5, scale=[1, 5]),
    logs.feedback("choice", {"chosen": "r1", "rejected": "r2"}),
    logs.feedback("choice", {"chosen": logs.say("a"), "rejected": logs.say("b"), "tie": True}),
    logs.feedback("regenerate", True),
    logs.feedback("regenerate", "r2"),
    logs.feedback("comment", "Too long."),
    logs.feedback("outcome", {"name": "solved", "value": False}),
    logs.without(logs.feedback(conversation_id="c1", comment="why"), "response_id"),
]


def test_every_kind_of_feedback_is_stored(con: Connection, tmp_path: Path):
    loaded = logs.load_feedback(con, logs.write(tmp_path / "f.jsonl", KINDS), now=logs.NOW)
    assert reasons(con) == []
    assert loaded.new == len(KINDS)
    rows = warehouse.rows(con, "from raw.feedback")
    stored = {
        str(row["payload"]): (row["kind"], row["response_id"], row["conversation_id"])
        for row in rows
    }
    assert {json.dumps(json.loads(payload)): keys for payload, keys in stored.items()} == {
        json.dumps(line): (line["kind"], line.get("response_id"), line.get("conversation_id"))
        for line in KINDS
    }


def test_duplicate_feedback_is_stored_once(con: Connection, tmp_path: Path):
    line = logs.feedback()
    loaded = logs.load_feedback(con, logs.write(tmp_path / "f.jsonl", [line, line]), now=logs.NOW)
    assert (loaded.new, loaded.known) == (1, 1)
