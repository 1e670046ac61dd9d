"""Surrogates of a workload are equal in all its turns and later runs, and differ between homes."""

import json
from pathlib import Path

import pytest

from components.curate.curate_workload import CurationTally
from components.curate.settings import Rules
from components.schema import Json
from components.store import warehouse
from components.store.warehouse import Connection
from tests.support import curations, logs, warehouses

COLUMNS = "example_id, side, messages, tools, answer, acceptable, logged_answer"
CARD = "4111 1111 1111 1111"


def load(con: Connection, folder: Path, lines: list[dict[str, Json]]) -> None:
    logs.load(con, logs.write(folder / "log.jsonl", lines), now=logs.NOW)


def curate(con: Connection, redaction: Json = None, **rules: Json) -> CurationTally:
    common: dict[str, Json] = {"holdout_share": 0.4, "split_by": "conversation"}
    settings = Rules.model_validate({"redaction": redaction or {}, **common, **rules})
    return curations.curate(con, "weather", settings, now=logs.NOW)


def examples(con: Connection) -> list[warehouse.Row]:
    return warehouse.rows(con, f"select {COLUMNS} from curated.examples order by example_id")


def talk(person: str, card: str, number: int) -> list[dict[str, Json]]:
    """Return the two turns of a conversation that reveals the name in the second only."""
    bought = ("a green umbrella", "two train tickets", "my new bicycle", "that old piano")[number]
    first: Json = {"role": "user", "content": f"Pay {bought} with {card}, {person}@acme.com"}
    asked = logs.say("Who are you?")
    name: Json = {"role": "user", "content": f"My name is {person.title()}."}
    compact: Json = {"card": card.replace(" ", ""), "mail": f"{person}@acme.com".upper()}
    turns: list[tuple[Json, Json]] = [
        ([first], asked),
        ([first, asked, name], logs.call("pay", json.dumps(compact))),
    ]
    return [
        logs.interaction(
            request={"messages": messages, "tools": [logs.tool("pay")]},
            message=message,
            response_id=f"{person}{turn}",
            conversation_id=person,
            timestamp=1_760_000_000 + 10 * number + turn,
            metadata={"acceptable": [{"name": "pay", "arguments": {"card": [card]}}]},
        )
        for turn, (messages, message) in enumerate(turns)
    ]


def people() -> list[dict[str, Json]]:
    cards = (CARD, "5500 0055 5555 5559", "4012 8888 8888 1881")
    pairs = zip(("sofia", "jonas", "aiko"), cards, strict=True)
    return [line for n, (who, card) in enumerate(pairs) for line in talk(who, card, n)]


def test_all_turns_of_a_conversation_have_one_surrogate_for_a_value(
    con: Connection, tmp_path: Path
):
    load(con, tmp_path, talk("sofia", CARD, 0))
    curate(con)
    rows = examples(con)
    longest = max(rows, key=lambda row: len(str(row["messages"])))
    first, _, name = json.loads(str(longest["messages"]))
    assert {str(json.loads(str(row["messages"]))[0]) for row in rows} == {str(first)}
    paid = str(first["content"]).removeprefix("Pay a green umbrella with ")
    card, mail = paid.split(", ")
    assert card != CARD
    (call,) = json.loads(str(longest["answer"]))["calls"]
    assert call["arguments"] == {"card": card.replace(" ", ""), "mail": mail.upper()}
    # Also the turn before has the address made of the name.
    assert str(name["content"]) == f"My name is {mail.split('@')[0].title()}."
    for row in rows:
        assert json.loads(str(row["acceptable"]))[0]["arguments"] == {"card": [card]}
        assert row["logged_answer"] == row["answer"]


def test_curating_again_makes_the_same_rows_and_another_home_has_others(
    con: Connection, tmp_path: Path
):
    load(con, tmp_path, people())
    curate(con)
    before = examples(con)
    assert CARD not in str(before)
    curate(con)
    assert examples(con) == before
    with warehouses.connect(tmp_path / "other.duckdb") as other:
        load(other, tmp_path, people())
        curate(other)
        after = examples(other)
    assert [row["example_id"] for row in after] == [row["example_id"] for row in before]
    assert all(old["messages"] != new["messages"] for old, new in zip(before, after, strict=True))


def test_a_new_conversation_does_not_change_surrogates_of_others(con: Connection, tmp_path: Path):
    load(con, tmp_path, people())
    curate(con)
    before = examples(con)
    load(con, tmp_path, talk("maria", "371449635398431", 3))
    curate(con)
    after = {str(row["example_id"]): row for row in examples(con)}
    shared = [row for row in before if str(row["example_id"]) in after]
    assert len(after) > len(shared) >= 3
    for row in shared:  # nothing is frozen, so its side may be another
        assert after[str(row["example_id"])] | {"side": row["side"]} == row


def test_rows_keep_ids_and_sides_with_any_replacement(con: Connection, tmp_path: Path):
    load(con, tmp_path, people())
    curate(con, {"replace": "placeholders"})
    placed = [(row["example_id"], row["side"]) for row in examples(con)]
    assert "<CARD_1>" in str(examples(con))
    curate(con)
    assert [(row["example_id"], row["side"]) for row in examples(con)] == placed
    assert "<CARD_1>" not in str(examples(con))


def test_a_seed_draws_the_same_in_every_home_and_keeps_no_key(con: Connection, tmp_path: Path):
    load(con, tmp_path, people())
    curate(con, {"seed": 7})
    with warehouses.connect(tmp_path / "other.duckdb") as other:
        load(other, tmp_path, people())
        curate(other, {"seed": 7})
        assert examples(other) == examples(con)
    assert warehouse.rows(con, "from curated.surrogate_keys") == []
    before = examples(con)
    curate(con, {"seed": 8})
    assert all(old["answer"] != new["answer"] or old["messages"] != new["messages"]
               for old, new in zip(before, examples(con), strict=True))  # fmt: skip


@pytest.mark.parametrize("gone", ["rows", "wish"])
def test_keys_are_deleted_with_the_raw_rows_or_by_placeholders(
    con: Connection, tmp_path: Path, gone: str
):
    load(con, tmp_path, people())
    curate(con)
    keys = {str(row["key"]) for row in warehouse.rows(con, "from curated.surrogate_keys")}
    assert len(keys) == 3
    assert all(len(key) == 64 for key in keys)
    if gone == "rows":
        con.execute("delete from raw.interactions where payload::varchar like '%sofia%'")
        curate(con)
    else:
        curate(con, {"replace": "placeholders"})
    left = {str(row["key"]) for row in warehouse.rows(con, "from curated.surrogate_keys")}
    assert left < keys
    assert len(left) == (2 if gone == "rows" else 0)


def test_requests_that_differ_in_values_only_are_near_duplicates_and_others_apart(
    con: Connection, tmp_path: Path
):
    same = [
        logs.interaction(f"Where is the parcel of {who}@acme.com now?", response_id=who)
        for who in ("sofia", "jonas", "aiko")
    ]
    other = logs.interaction("Where is the letter to my bank, sofia@acme.com?", response_id="o")
    load(con, tmp_path, [*same, other])
    assert curate(con).counts == {"kept": 2, "near_duplicate": 2}
    tally = curate(con, {"replace": "placeholders"})
    assert tally.counts == {"kept": 2, "near_duplicate": 2}


def test_conversations_without_an_id_are_identified_by_user_and_opening(
    con: Connection, tmp_path: Path
):
    lines = [logs.without(line, "conversation_id") for line in people()]
    load(con, tmp_path, [{**line, "user_id": "u"} for line in lines])
    curate(con)
    openings = {str(json.loads(str(row["messages"]))[0]) for row in examples(con)}
    assert len(openings) == 3


def test_pairs_have_the_surrogates_of_their_conversation(con: Connection, tmp_path: Path):
    asked = logs.interaction("Mail sofia@acme.com", message=logs.say("Sent to SOFIA@acme.com."))
    edited = logs.feedback("correction", logs.say("Sent to <EMAIL_1>, copy to bob@web.de."))
    logs.load_feedback(con, logs.write(tmp_path / "feedback.jsonl", [edited]), now=logs.NOW)
    load(con, tmp_path, [asked])
    curate(con)
    (row,) = examples(con)
    (pair,) = warehouse.rows(con, "from curated.preferences")
    assert pair["messages"] == row["messages"]
    mail = str(json.loads(str(row["messages"]))[0]["content"]).removeprefix("Mail ")
    mailbox, domain = mail.split("@")
    assert json.loads(str(pair["rejected"]))["text"] == f"Sent to {mailbox.upper()}@{domain}."
    right = json.loads(str(pair["chosen"]))["text"]
    assert right.startswith(f"Sent to {mail}, copy to ")
    assert right.endswith("@web.de.")
    assert json.loads(str(row["answer"]))["text"] == right


def test_replayed_rows_have_surrogates_and_none_of_a_tested_request(
    con: Connection, tmp_path: Path
):
    load(con, tmp_path, [*people(), *talk("maria", "371449635398431", 3)])
    curate(con)
    assert [row for row in examples(con) if row["side"] == "holdout"]
    own = [json.loads(str(row["payload"])) for row in warehouse.rows(con, "from raw.interactions")]
    conversations = [
        [*line["request"]["messages"], line["response"]["choices"][0]["message"]] for line in own
    ]
    other: Json = [{"role": "user", "content": f"Refund {CARD}"}, logs.say(f"To {CARD}? Sure.")]
    source = tmp_path / "replay.jsonl"
    source.write_text(
        "".join(json.dumps({"messages": messages}) + "\n" for messages in [*conversations, other])
    )
    balance: Json = {"replay": {"sources": [str(source)], "share": 0.9}}
    replayed: list[list[warehouse.Row]] = []
    for _ in range(2):
        curate(con, balance=balance)
        replayed.append([row for row in examples(con) if "replay-" in str(row["example_id"])])
    assert replayed[0] == replayed[1]
    things = {str(row["messages"]).partition(" with ")[0] for row in examples(con)
              if row["side"] == "holdout"}  # fmt: skip
    assert things.isdisjoint(str(row["messages"]).partition(" with ")[0] for row in replayed[0])
    (refund,) = [row for row in replayed[0] if "Refund" in str(row["messages"])]
    asked = str(json.loads(str(refund["messages"]))[0]["content"]).removeprefix("Refund ")
    assert asked != CARD
    assert json.loads(str(refund["answer"]))["text"] == f"To {asked}? Sure."
