"""Feedback from collection through curation to training rows."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from components.curate.settings import Dispositions, Rules
from components.schema import Json
from components.store import warehouse
from components.store.warehouse import Connection
from tests.support import curations, logs

RULES = Rules(holdout_share=0.001, validation_share=0)


def curate(
    con: Connection,
    folder: Path,
    lines: Sequence[dict[str, Json]],
    feedback: Sequence[dict[str, Json]],
    rules: Rules = RULES,
) -> None:
    logs.load(con, logs.write(folder / "log.jsonl", lines), now=logs.NOW)
    logs.load_feedback(con, logs.write(folder / "feedback.jsonl", feedback), now=logs.NOW)
    curations.curate(con, "weather", rules, now=logs.NOW)


def fates(con: Connection) -> dict[str, str]:
    """Return each feedback's fate by actor; each actor gives one in a test."""
    rows = con.execute(
        "select actor_id, fate from curated.fates inner join staging.given using (feedback_id)"
    ).fetchall()
    assert len(dict(rows)) == len(rows)
    return dict(rows)


def test_every_feedback_has_one_fate(con: Connection, tmp_path: Path):
    lines = [
        logs.interaction("one", message=logs.say("a"), response_id="a", conversation_id="talk"),
        logs.interaction("one", message=logs.say("b"), response_id="b"),
        logs.interaction("two", message=logs.say(""), response_id="empty"),
    ]
    choice: dict[str, Json] = {"chosen": "a", "rejected": "b"}
    solved: dict[str, Json] = {"name": "solved", "value": True}
    feedback = [
        logs.feedback("choice", choice, response_id="a", actor_id="chooser"),
        logs.feedback("choice", choice | {"tie": True}, response_id="a", actor_id="tied"),
        logs.feedback("thumb", "up", response_id="a", actor_id="fan"),
        logs.feedback("comment", "fine", response_id="a", actor_id="talker"),
        logs.feedback("rating", 5, scale=[1, 5], response_id="b", actor_id="rater"),
        logs.feedback("correction", logs.say("c"), response_id="b", actor_id="editor"),
        logs.feedback("regenerate", True, response_id="a", actor_id="again"),
        logs.feedback("thumb", "down", response_id="empty", actor_id="critic"),
        logs.feedback("thumb", "down", response_id="later", actor_id="early"),
        logs.without(
            logs.feedback("outcome", solved, conversation_id="talk", actor_id="system"),
            "response_id",
        ),
    ]
    curate(con, tmp_path, lines, feedback)
    assert fates(con) == {
        "chooser": "used_as_pair",
        "tied": "tie",
        "fan": "used_as_label",
        "talker": "says_nothing",
        "rater": "overruled",
        "editor": "used_as_target",
        "again": "overruled",
        "critic": "unreadable_answer",
        "early": "waiting",
        "system": "used_as_label",
    }


def test_a_changed_opinion_counts_once_and_the_old_one_is_superseded(
    con: Connection, tmp_path: Path
):
    feedback = [
        logs.feedback("thumb", "down", timestamp=1),
        logs.feedback("thumb", "up", timestamp=2),
    ]
    curate(con, tmp_path, [logs.interaction()], feedback)
    outcomes = con.execute("select fate from curated.fates order by all").fetchall()
    assert outcomes == [("superseded",), ("used_as_label",)]
    labels = warehouse.rows(con, "select is_good, weight from curated.labels")
    assert labels == [{"is_good": True, "weight": 1.0}]


def test_a_word_that_was_taken_back_counts_for_nothing(con: Connection, tmp_path: Path):
    lines = [
        logs.interaction("one", message=logs.say("a"), response_id="a"),
        logs.interaction("two", message=logs.say("b"), response_id="b"),
    ]
    feedback = [
        logs.feedback("thumb", "down", response_id="a", timestamp=1),
        logs.feedback("thumb", None, response_id="a", timestamp=2),
        logs.feedback("correction", logs.say("c"), response_id="b", timestamp=1),
        logs.feedback("correction", None, response_id="b", timestamp=2),
    ]
    curate(con, tmp_path, lines, feedback)
    learned = con.execute("select answer ->> '$.text' from curated.examples order by all")
    assert learned.fetchall() == [("a",), ("b",)]
    assert warehouse.rows(con, "from curated.labels") == []
    outcomes = con.execute("select fate, count(*) from curated.fates group by all order by all")
    assert outcomes.fetchall() == [("superseded", 2), ("withdrawn", 2)]


def test_a_correction_teaches_no_other_request_that_was_answered_under_its_id(
    con: Connection, tmp_path: Path
):
    # Ollama draws a response's id from 999 numbers.
    questions = ("Where is the station?", "Sing me a song about rain", "Who is the king of Spain?")
    lines = [
        logs.interaction(question, response_id="chatcmpl-42", timestamp=day * 86_400)
        for day, question in enumerate(questions)
    ]
    feedback = [logs.feedback("correction", logs.say("Felipe."), response_id="chatcmpl-42")]
    curate(con, tmp_path, lines, feedback)
    answers = con.execute("select distinct answer ->> '$.text' from curated.examples").fetchall()
    assert answers == [("Sunny.",)]
    assert fates(con) == {"ann": "different_prompts"}
    assert not warehouse.rows(con, "select * from curated.preferences")
    assert curations.curate(con, "weather", RULES, now=logs.NOW).feedback_ambiguous == 1


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        pytest.param({"conversation_id": "talk"}, "different_prompts", id="of-three-turns"),
        pytest.param({"conversation_id": "short talk"}, "used_as_target", id="of-one-turn"),
    ],
)
def test_a_correction_of_a_conversation_is_learned_if_that_has_one_request(
    con: Connection, tmp_path: Path, target: dict[str, Json], expected: str
):
    questions = ("Where is the station?", "Sing me a song about rain", "Who is the king of Spain?")
    lines = [
        logs.interaction(question, response_id=question, conversation_id="talk")
        for question in questions
    ]
    lines.append(logs.interaction("How old is he?", response_id="r", conversation_id="short talk"))
    given = logs.without(logs.feedback("correction", logs.say("He is 57.")), "response_id")
    curate(con, tmp_path, lines, [given | target])
    assert fates(con) == {"ann": expected}
    learned = warehouse.rows(
        con, "select * from curated.examples where answer ->> '$.text' = 'He is 57.'"
    )
    assert len(learned) == (expected == "used_as_target")


def test_an_id_that_a_client_writes_where_it_knows_none_names_no_conversation_and_no_person(
    con: Connection, tmp_path: Path
):
    questions = ("Where is the station?", "Sing me a song about rain", "Who is the king of Spain?")
    lines = [
        logs.interaction(
            question, response_id=question, conversation_id="undefined", user_id="Anonymous"
        )
        for question in questions
    ]
    disliked = logs.without(logs.feedback(conversation_id="undefined"), "response_id")
    curate(con, tmp_path, lines, [disliked])
    assert fates(con) == {"ann": "waiting"}
    clusters = con.execute("select count(distinct cluster_id) from curated.examples").fetchone()
    assert clusters == (3,)


def test_corrections_are_redacted_like_the_conversation(con: Connection, tmp_path: Path):
    asked = "Write to jane.doe@corp.com, copy to bob@corp.com"
    logged = logs.say("I wrote to bob@corp.com")
    right = logs.say("I wrote to jane.doe@corp.com")
    curate(
        con,
        tmp_path,
        [logs.interaction(asked, message=logged)],
        [logs.feedback("correction", right), logs.feedback()],
    )
    (pair,) = warehouse.rows(con, "select messages, chosen, rejected from curated.preferences")
    written = str(json.loads(str(pair["messages"]))[0]["content"])
    _, _, jane, _, _, bob = written.replace(",", "").split(" ")
    assert "corp.com" not in written
    assert json.loads(str(pair["chosen"]))["text"] == f"I wrote to {jane}"
    assert json.loads(str(pair["rejected"]))["text"] == f"I wrote to {bob}"
    (label,) = warehouse.rows(con, "select answer, is_good from curated.labels")
    assert json.loads(str(label["answer"]))["text"] == f"I wrote to {bob}"


def test_a_pair_whose_tools_can_not_be_written_again_costs_only_itself(
    con: Connection, tmp_path: Path
):
    # A number that Python reads as infinity, which can't be written again as JSON.
    limit: Json = {"type": "object", "properties": {"n": {"type": "number", "maximum": 1e999}}}
    tool: Json = {"type": "function", "function": {"name": "count", "parameters": limit}}
    request: Json = {"messages": [{"role": "user", "content": "Count."}], "tools": [tool]}
    lines = [
        logs.interaction(response_id="a", request=request),
        logs.interaction("Sing me a song about rain", response_id="b"),
    ]
    feedback = [
        logs.feedback("correction", logs.say("One, two."), response_id="a", actor_id="ann"),
        logs.feedback("correction", logs.say("Rain, rain."), response_id="b", actor_id="bob"),
    ]
    log = logs.write(tmp_path / "huge.jsonl", lines)
    log.write_text(log.read_text().replace("Infinity", "1e999"))
    logs.load(con, log, now=logs.NOW)
    curate(con, tmp_path, [], feedback)
    assert set(fates(con).values()) == {"used_as_target"}
    (pair,) = warehouse.rows(con, "select chosen from curated.preferences")
    assert json.loads(str(pair["chosen"]))["text"] == "Rain, rain."


CHOSEN = logs.call("weather", '{"city": "Rome"}')


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        pytest.param(CHOSEN, ("used_as_pair", None), id="a-call"),
        pytest.param(
            logs.say("It rains."), ("used_as_pair", None), id="a-text", marks=pytest.mark.slow
        ),
        pytest.param(
            logs.call("wether", '{"city": "Rome"}'),
            ("interaction_dropped", "unknown_tool"),
            id="a-call-of-a-tool-that-is-not-offered",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            logs.call("weather", '{"town": "Rome"}'),
            ("interaction_dropped", "breaks_schema"),
            id="a-call-against-the-schema",
        ),
        pytest.param(
            logs.say("502 Bad Gateway"), ("interaction_dropped", "error_text"), id="an-error"
        ),
        pytest.param(
            logs.say("rain " * 300_000), ("redaction_failed", None), id="a-text-longer-than-books"
        ),
    ],
)
def test_a_chosen_message_that_nobody_logged_passes_the_rules_or_is_not_learned(
    con: Connection, tmp_path: Path, chosen: dict[str, Json], expected: tuple[str, str | None]
):
    logged = logs.call("weather", '{"city": "Rom"}')
    choice: dict[str, Json] = {"chosen": chosen, "rejected": logged}
    rules = RULES.model_copy(update={"rules": Dispositions.model_validate({"repetition": "flag"})})
    lines = [logs.interaction(message=logged, tools=[logs.WEATHER])]
    curate(con, tmp_path, lines, [logs.feedback("choice", choice)], rules)
    (outcome,) = con.execute("select fate, detail from curated.fates").fetchall()
    assert outcome == expected


def test_an_older_correction_is_validated_as_the_newest_is(con: Connection, tmp_path: Path):
    lines = [logs.interaction(message=logs.say("Sunny."), tools=[logs.WEATHER])]
    old = logs.feedback("correction", logs.call("wether", "{}"), timestamp=1, actor_id="bob")
    curate(con, tmp_path, lines, [old, logs.feedback("correction", CHOSEN, timestamp=2)])
    assert fates(con) == {"bob": "interaction_dropped", "ann": "used_as_target"}


def test_a_pair_that_redaction_makes_one_is_dropped(con: Connection, tmp_path: Path):
    value: dict[str, Json] = {
        "chosen": logs.say("Mail jane@corp.com"),
        "rejected": logs.say("Mail Jane@Corp.com"),
    }
    feedback = [logs.feedback("choice", value)]
    curate(con, tmp_path, [logs.interaction()], feedback)
    (outcome,) = warehouse.rows(con, "select fate, detail from curated.fates")
    assert outcome == {"fate": "identical", "detail": "after redaction"}


def test_liked_examples_weigh_more_and_regenerated_ones_less(con: Connection, tmp_path: Path):
    names = ("liked", "unjudged", "regenerated", "corrected")
    questions = {
        "liked": "Where is the station?",
        "unjudged": "Sing me a song about rain",
        "regenerated": "How old is the king of Spain?",
        "corrected": "What do elephants eat in winter?",
    }
    lines = [logs.interaction(questions[name], response_id=name) for name in names]
    feedback = [
        logs.feedback("thumb", "up", response_id="liked"),
        logs.feedback("regenerate", True, response_id="regenerated"),
        logs.feedback("correction", logs.say("Hay."), response_id="corrected"),
    ]
    curate(con, tmp_path, lines, feedback)
    weights = con.execute(
        "select interactions.response_id, examples.weight from curated.examples as examples"
        " inner join staging.interactions as interactions"
        " on list_contains(examples.interaction_ids, interactions.interaction_id)"
    ).fetchall()
    assert dict(weights) == pytest.approx(
        {"liked": 1.5, "unjudged": 1, "regenerated": 1.5**-0.25, "corrected": 1.5}
    )


def test_a_correction_that_can_not_be_read_leaves_the_logged_answer(
    con: Connection, tmp_path: Path
):
    feedback = [logs.feedback("correction", logs.call("weather", "no JSON"))]
    curate(con, tmp_path, [logs.interaction()], feedback)
    (example,) = warehouse.rows(con, "select answer, feedback_ids from curated.examples")
    assert json.loads(str(example["answer"]))["text"] == "Sunny."
    assert example["feedback_ids"] == []
    assert fates(con) == {"ann": "unreadable_answer"}
