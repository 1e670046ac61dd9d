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


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        pytest.param(
            logs.without(logs.feedback(), "actor_id", "kind"),
            "missing keys: actor_id, kind",
            id="keys",
        ),
        pytest.param(
            logs.feedback(actor_id=3), "`actor_id` is UBIGINT, expected text", id="number"
        ),
        pytest.param(
            logs.feedback("applause", 5),
            '`kind` is "applause", expected thumb, rating, choice, correction, regenerate, comment '
            "or outcome",
            id="kind",
        ),
        pytest.param(
            logs.without(logs.feedback(), "response_id"),
            "missing keys: response_id or conversation_id",
            id="no-target",
        ),
        pytest.param(
            logs.feedback(conversation_id="c1"),
            "names more than one of response_id, conversation_id and target_id, expected one",
            id="two-targets",
        ),
        pytest.param(
            logs.feedback("rating", 4),
            "`scale` of a rating is missing, expected [lowest, highest]",
            id="rating-without-scale",
        ),
        pytest.param(
            logs.feedback("rating", 6, scale=[1, 5]),
            "`value` of a rating is 6, expected a number within its scale [1,5]",
            id="rating-off-scale",
        ),
        pytest.param(
            logs.feedback("rating", 3, scale=[5, 1]),
            "`scale` of a rating is [5,1], expected [lowest, highest]",
            id="scale-upside-down",
        ),
        pytest.param(
            logs.feedback("rating", "4", scale=[1, 5]),
            "`value` of a rating is VARCHAR, expected a number",
            id="rating-is-text",
        ),
        pytest.param(
            logs.feedback("choice", {"chosen": "r1"}),
            "`value` of a choice has chosen VARCHAR and rejected missing, expected two assistant "
            "messages or two response ids",
            id="half-a-choice",
        ),
        pytest.param(
            logs.feedback("choice", {"chosen": "r1", "rejected": "r2", "tie": "yes"}),
            "`value.tie` of a choice is VARCHAR, expected true or false",
            id="tie-is-text",
        ),
        pytest.param(
            logs.feedback("regenerate", False),
            "`value` of a regenerate is false, expected true or the id of the new response",
            id="not-regenerated",
        ),
        pytest.param(
            logs.feedback("comment", 1),
            "`value` of a comment is UBIGINT, expected text",
            id="comment",
        ),
        pytest.param(
            logs.feedback("outcome", "solved"),
            "`value` of an outcome is VARCHAR, expected an object",
            id="outcome-is-text",
        ),
        pytest.param(
            logs.feedback("outcome", {"value": True}),
            "`value.name` of an outcome is missing, expected text",
            id="outcome-without-name",
        ),
        pytest.param(
            logs.feedback("outcome", {"name": "solved", "value": None}),
            "`value.value` of an outcome is NULL, expected true or false, a number or text",
            id="outcome-without-value",
        ),
        pytest.param(
            logs.feedback(comment=["nice"]), "`comment` is ARRAY, expected text", id="comment-list"
        ),
        pytest.param(
            logs.feedback(value="sideways"),
            '`value` of a thumb is "sideways", expected "up" or "down"',
            id="thumb",
        ),
        pytest.param(
            logs.feedback("correction", "Rainy."),
            "`value` of a correction is VARCHAR, expected an assistant message",
            id="correction-is-text",
        ),
        pytest.param(
            logs.feedback("correction", {"role": "user", "content": "x"}),
            "`value.role` of a correction is user, expected assistant",
            id="role",
        ),
        pytest.param(
            logs.feedback("correction", {"role": "assistant", "content": None}),
            "`value` of a correction has neither content nor tool_calls",
            id="empty",
        ),
        pytest.param(
            logs.feedback(timestamp=9e12),
            "`timestamp` 9000000000000.0 lies more than a day in the future; expected unix "
            "seconds, not milliseconds",
            id="future",
        ),
    ],
)
def test_bad_feedback_goes_to_quarantine(
    con: Connection, tmp_path: Path, line: dict[str, Json], reason: str
):
    good = [logs.feedback(), logs.feedback("correction", logs.call("weather", {"city": "Rome"}))]
    loaded = logs.load_feedback(con, logs.write(tmp_path / "f.jsonl", [*good, line]), now=logs.NOW)
    assert (loaded.new, loaded.quarantined) == (2, 1)
    assert reasons(con) == [reason]


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(logs.feedback("rating", 4.5, scale=[1, 5]), id="rating"),
        pytest.param(logs.feedback("choice", {"chosen": "r1", "rejected": "r2"}), id="ids"),
        pytest.param(
            logs.feedback(
                "choice", {"chosen": logs.say("a"), "rejected": logs.say("b"), "tie": True}
            ),
            id="messages",
        ),
        pytest.param(logs.feedback("regenerate", True), id="asked-again"),
        pytest.param(logs.feedback("regenerate", "r2"), id="new-answer"),
        pytest.param(logs.feedback("comment", "Too long."), id="comment"),
        pytest.param(logs.feedback("outcome", {"name": "solved", "value": False}), id="outcome"),
        pytest.param(
            logs.without(logs.feedback(conversation_id="c1", comment="why"), "response_id"),
            id="conversation",
        ),
    ],
)
def test_every_kind_of_feedback_is_stored(con: Connection, tmp_path: Path, line: dict[str, Json]):
    loaded = logs.load_feedback(con, logs.write(tmp_path / "f.jsonl", [line]), now=logs.NOW)
    assert reasons(con) == []
    assert loaded.new == 1
    (row,) = warehouse.rows(con, "from raw.feedback")
    assert json.loads(str(row["payload"])) == line
    assert (row["kind"], row["response_id"], row["conversation_id"]) == (
        line["kind"],
        line.get("response_id"),
        line.get("conversation_id"),
    )


def test_duplicate_feedback_is_stored_once(con: Connection, tmp_path: Path):
    line = logs.feedback()
    loaded = logs.load_feedback(con, logs.write(tmp_path / "f.jsonl", [line, line]), now=logs.NOW)
    assert (loaded.new, loaded.known) == (1, 1)
