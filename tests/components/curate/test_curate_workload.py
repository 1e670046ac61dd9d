import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from components.curate.curate_workload import CurationTally
from components.curate.settings import NearDuplicates, Overlap, Rules
from components.curate.split import SplitChangedError
from components.schema import Json
from components.store import warehouse
from components.store.warehouse import Connection
from tests.support import curations, logs

HALF = Rules(holdout_share=0.5, validation_share=0)


def load(
    con: Connection,
    folder: Path,
    lines: Sequence[dict[str, Json]],
    feedback: Sequence[dict[str, Json]] = (),
) -> None:
    logs.load(con, logs.write(folder / "log.jsonl", lines), now=logs.NOW)
    logs.load_feedback(con, logs.write(folder / "feedback.jsonl", feedback), now=logs.NOW)


def curate(con: Connection, rules: Rules | None = None) -> CurationTally:
    return curations.curate(con, "weather", rules or Rules(), now=logs.NOW)


def examples(con: Connection) -> list[warehouse.Row]:
    return warehouse.rows(con, "select * from curated.examples order by example_id")


def requests_held_out(con: Connection) -> set[str]:
    return {str(row["example_id"]) for row in examples(con) if row["side"] == "holdout"}


def at_length(word: str) -> dict[str, Json]:
    """Return an answer longer than a label."""
    return logs.say(f"{word}: a day without rain, and in the evening a light wind from the sea")


def answers(con: Connection) -> list[str]:
    """Return the answers to learn, only the first word of longer ones."""
    texts = (json.loads(str(row["answer"]))["text"] for row in examples(con))
    return sorted(text.partition(":")[0] for text in texts)


def test_a_correction_replaces_the_answer_and_is_traced(con: Connection, tmp_path: Path):
    feedback = [logs.feedback(), logs.feedback("correction", logs.say("Rainy."))]
    load(con, tmp_path, [logs.interaction()], feedback)
    assert curate(con).counts == {"kept": 1}
    assert answers(con) == ["Rainy."]
    stored = con.execute("select feedback_id from raw.feedback order by all").fetchall()
    assert examples(con)[0]["feedback_ids"] == [feedback_id for (feedback_id,) in stored]


def test_the_newest_correction_and_the_newest_thumb_count(con: Connection, tmp_path: Path):
    lines = [logs.interaction("one"), logs.interaction("two", response_id="r2")]
    feedback = [
        logs.feedback("correction", logs.say("old"), timestamp=1),
        logs.feedback("correction", logs.say("new"), timestamp=2, actor_id="bob"),
        logs.feedback("thumb", "down", timestamp=1, response_id="r2"),
        logs.feedback("thumb", "up", timestamp=2, response_id="r2"),
    ]
    load(con, tmp_path, lines, feedback)
    assert curate(con).counts == {"kept": 2}
    assert answers(con) == ["Sunny.", "new"]


@pytest.mark.parametrize(
    ("count", "different", "conflicting"),
    [
        pytest.param(60, 60, 0, id="a-chat"),
        pytest.param(60, 10, 1, id="labels"),
        pytest.param(10, 10, 1, id="too-few-to-tell"),
        pytest.param(180, 30, 1, id="many-labels"),
    ],
)
def test_short_answers_that_do_not_recur_are_no_labels_that_conflict(
    con: Connection, tmp_path: Path, count: int, different: int, conflicting: int
):
    said = [(f"{n} {n * n} {n} is it so?", f"So, {n % different}.") for n in range(count)]
    lines = [
        logs.interaction(asked, message=logs.say(answer), response_id=f"r{n}")
        for n, (asked, answer) in enumerate([*said, ("Hi", "Hello"), ("Hi", "Hi there")])
    ]
    load(con, tmp_path, lines)
    counts = curate(con).counts
    assert counts.get("conflicting_answer", 0) == conflicting
    assert counts["kept"] == count + 1


def test_the_same_json_does_not_conflict_however_it_is_written(con: Connection, tmp_path: Path):
    answers = ('{"to": "Oslo", "seats": 2}', '{"seats":2.0,"to":"Oslo"}', '{"to": "Rome"}')
    lines = [
        logs.interaction("A trip?", message=logs.say(text), response_id=f"r{n}")
        for n, text in enumerate(answers)
    ]
    load(con, tmp_path, lines)
    assert curate(con).counts == {"kept": 1, "duplicate": 1, "conflicting_answer": 1}


@pytest.mark.slow
def test_a_thumbs_down_without_a_correction_leaves_the_answer_out(con: Connection, tmp_path: Path):
    load(con, tmp_path, [logs.interaction()], [logs.feedback()])
    assert curate(con).counts == {"thumbs_down": 1}


def test_feedback_counts_for_the_client_that_logged_the_response_only(
    con: Connection, tmp_path: Path
):
    load(con, tmp_path, [logs.interaction()], [logs.feedback(client_id="somebody else")])
    tally = curate(con)
    assert tally.counts == {"kept": 1}
    assert tally.feedback_waiting == 1


def test_early_feedback_waits_for_its_response(con: Connection, tmp_path: Path):
    load(con, tmp_path, [], [logs.feedback()])
    assert curate(con) == CurationTally("weather", 0, 0, 0, {}, feedback_waiting=1)
    load(con, tmp_path, [logs.interaction()])
    assert curate(con) == CurationTally("weather", 1, 0, 0, {"thumbs_down": 1}, 0, judged=1)


def test_equal_requests_are_one_example_with_every_id(con: Connection, tmp_path: Path):
    lines = [
        logs.interaction(response_id="a", message=at_length("corrected"), timestamp=1),
        logs.interaction(response_id="b", message=at_length("old"), timestamp=2),
        logs.interaction(response_id="c", message=at_length("new"), timestamp=3),
        logs.interaction(response_id="d", tools=[logs.WEATHER]),
    ]
    load(con, tmp_path, lines)
    assert curate(con).counts == {"duplicate": 2, "kept": 2}
    assert answers(con) == ["Sunny.", "new"]
    feedback = [logs.feedback("correction", at_length("right"), response_id="a")]
    load(con, tmp_path, [], feedback)
    assert curate(con).counts == {"duplicate": 2, "kept": 2}
    assert answers(con) == ["Sunny.", "right"]
    ids = [row["interaction_ids"] for row in examples(con)]
    assert sorted(
        len(interaction_ids) for interaction_ids in ids if isinstance(interaction_ids, list)
    ) == [1, 3]


LONG = "I would like to know what the weather is going to be like in the old town of Rome tomorrow"


def test_one_near_duplicate_is_kept_and_names_the_others(con: Connection, tmp_path: Path):
    lines = [
        logs.interaction(f"{LONG}.", response_id="a", message=at_length("liked"), timestamp=1),
        logs.interaction(
            f"{LONG}, please!", response_id="b", message=at_length("new"), timestamp=3
        ),
        logs.interaction(
            f"{LONG}, please!", response_id="c", message=at_length("old"), timestamp=2
        ),
        logs.interaction("And in Paris?", response_id="d", message=logs.say("other")),
    ]
    load(con, tmp_path, lines)
    assert curate(con).counts == {"duplicate": 1, "kept": 2, "near_duplicate": 1}
    assert answers(con) == ["new", "other"]
    load(con, tmp_path, [], [logs.feedback("thumb", "up", response_id="a")])
    assert curate(con).counts == {"kept": 2, "near_duplicate": 2}
    assert answers(con) == ["liked", "other"]
    load(con, tmp_path, [], [logs.feedback("correction", at_length("right"), response_id="c")])
    assert curate(con).counts == {"duplicate": 1, "kept": 2, "near_duplicate": 1}
    assert answers(con) == ["other", "right"]
    ids = [row["interaction_ids"] for row in examples(con)]
    assert sorted(
        len(interaction_ids) for interaction_ids in ids if isinstance(interaction_ids, list)
    ) == [1, 3]


def test_near_requests_share_a_side(con: Connection, tmp_path: Path):
    lines: list[dict[str, Json]] = []
    for n in range(20):
        words = " ".join(f"{word}{n}" for word in LONG.split())
        for name, asked in (("Ann", f"{words}?"), ("Bob", f"Well, {words}")):
            messages: Json = [
                {"role": "system", "content": f"You serve {name}."},
                {"role": "user", "content": asked},
            ]
            lines.append(logs.interaction(request={"messages": messages}, response_id=asked))
    load(con, tmp_path, lines)
    assert curate(con, Rules(holdout_share=0.5, split_by="conversation")).counts == {"kept": 40}
    sides = warehouse.rows(
        con,
        "select cluster_id, count(distinct interaction_id) as rows, count(distinct side) as sides"
        " from curated.standings group by all",
    )
    assert [(row["rows"], row["sides"]) for row in sides] == [(2, 1)] * 20


def test_a_held_out_request_stays_when_a_better_twin_arrives(con: Connection, tmp_path: Path):
    asked = [" ".join(f"{word}{n}" for word in LONG.split()) for n in range(8)]
    answer = at_length("told")
    load(
        con,
        tmp_path,
        [logs.interaction(question, response_id=question, message=answer) for question in asked],
    )
    curate(con, HALF)
    curations.freeze(con, tmp_path, "weather", rules=HALF, now=logs.NOW)
    held = requests_held_out(con)
    twins = [
        logs.interaction(f"Hi! {question}", response_id=f"new {question}") for question in asked
    ]
    right = [
        logs.feedback("correction", at_length("right"), response_id=f"new {question}")
        for question in asked
    ]
    load(con, tmp_path, twins, right)
    curate(con, HALF)
    assert held <= requests_held_out(con)
    assert answers(con).count("right") == len(asked) - len(held)


def test_requests_of_the_holdout_or_a_guard_task_are_not_trained_on(
    con: Connection, tmp_path: Path
):
    asked = [" ".join(f"{word}{n}" for word in LONG.split()) for n in range(20)]
    tools = [[logs.tool(f"one_{n}") for n in range(20)], [logs.tool(f"two_{n}") for n in range(20)]]
    lines = [
        logs.interaction(question, response_id=f"{question} {kind[0]}", tools=[kind[n]])
        for n, question in enumerate(asked)
        for kind in tools
    ]
    load(con, tmp_path, lines)
    guard = tmp_path / "guard.jsonl"
    guard.write_text(
        "".join(json.dumps({"text": f"Well! {question}?"}) + "\n" for question in asked[:10])
    )
    tally = curate(con, HALF.model_copy(update={"overlap": Overlap(guards=(str(guard),))}))
    assert tally.counts["overlaps_guard"] > 0
    assert tally.counts["overlaps_holdout"] > 0
    trained, held_out = (
        {
            str(json.loads(str(row["messages"]))[0]["content"])
            for row in examples(con)
            if row["side"] == side
        }
        for side in ("train", "holdout")
    )
    assert trained
    assert not trained & held_out
    assert not trained & set(asked[:10])
    marks = warehouse.rows(
        con, "select distinct mark from curated.verdicts where objection = 'overlaps_guard'"
    )
    assert {str(row["mark"]).split(":")[0] for row in marks} == {"guard.jsonl"}


@pytest.mark.slow
def test_the_near_threshold_is_configurable(con: Connection, tmp_path: Path):
    lines = [logs.interaction(LONG), logs.interaction(f"{LONG} or later", response_id="b")]
    load(con, tmp_path, lines)
    assert curate(con).counts == {"kept": 1, "near_duplicate": 1}
    strict = Rules(near=NearDuplicates(jaccard=1.0), validation_share=0)
    assert curate(con, strict).counts == {"kept": 2}


def test_a_disliked_answer_gives_way_to_a_good_one_of_the_same_request(
    con: Connection, tmp_path: Path
):
    lines = [
        logs.interaction(message=logs.say("good"), response_id="a", timestamp=1),
        logs.interaction(message=logs.say("bad"), response_id="b", timestamp=2),
    ]
    load(con, tmp_path, lines, [logs.feedback(response_id="b")])
    assert curate(con).counts == {"kept": 1, "thumbs_down": 1}
    assert answers(con) == ["good"]


@pytest.mark.slow
def test_no_tool_of_the_holdout_is_trained_on(con: Connection, tmp_path: Path):
    offers = [[f"t{n}"] for n in range(30)] + [[f"t{n}", f"t{n + 1}"] for n in range(29)]
    lines = [
        logs.interaction(f"ask {names}", tools=[logs.tool(name) for name in names])
        for names in offers
    ]
    load(con, tmp_path, lines)
    tally = curate(con, HALF)
    offered: dict[object, set[object]] = {"train": set(), "holdout": set()}
    for row in examples(con):
        assert isinstance(row["tool_names"], list)
        offered[row["side"]].update(row["tool_names"])
    assert offered["train"]
    assert offered["holdout"]
    assert not offered["train"] & offered["holdout"]
    assert tally.counts["offers_holdout_tool"] > 0
    assert tally.train + tally.holdout == tally.counts["kept"]


def test_no_tool_of_the_validation_side_is_trained_on(con: Connection, tmp_path: Path):
    offers = [[f"t{n}"] for n in range(30)] + [[f"t{n}", f"t{n + 1}"] for n in range(29)]
    lines = [
        logs.interaction(f"ask {names}", tools=[logs.tool(name) for name in names])
        for names in offers
    ]
    load(con, tmp_path, lines)
    tally = curate(con, Rules(holdout_share=0.1, validation_share=0.3))
    offered: dict[object, set[object]] = {"train": set(), "validation": set(), "holdout": set()}
    for row in examples(con):
        assert isinstance(row["tool_names"], list)
        offered[row["side"]].update(row["tool_names"])
    assert all(offered.values())
    assert not offered["train"] & offered["validation"]
    assert not (offered["train"] | offered["validation"]) & offered["holdout"]
    assert tally.counts["offers_validation_tool"] > 0


def test_rows_that_overlap_with_validation_are_not_trained_on(con: Connection, tmp_path: Path):
    def words(name: str) -> str:
        return " ".join(f"{name}{number}" for number in range(14))

    pairs = [
        (f"p{n}", f"{words(f'both{n}x')} {words(f'{letter}{n}x')}")
        for n in range(40)
        for letter in "ab"
    ]
    load(con, tmp_path, [logs.interaction(text) for _, text in pairs])
    tally = curate(con, Rules(holdout_share=0.3, validation_share=0.3))
    sides: dict[str, set[object]] = {}
    for row in examples(con):
        (asked,) = json.loads(str(row["messages"]))
        sides.setdefault(asked["content"].split("x")[0], set()).add(row["side"])
    assert {"validation"} in sides.values()
    assert all(len(pair_sides) == 1 for pair_sides in sides.values())
    assert tally.counts["overlaps_validation"] > 0
    assert tally.counts["overlaps_holdout"] > 0


def test_an_agent_of_fixed_tools_can_be_split_by_conversation(con: Connection, tmp_path: Path):
    lines = [logs.interaction(f"ask {n}", tools=[logs.WEATHER]) for n in range(40)]
    load(con, tmp_path, lines)
    by_tools = curate(con, HALF)
    assert 0 in (by_tools.train, by_tools.holdout)
    tally = curate(con, Rules(holdout_share=0.5, split_by="conversation"))
    assert tally.train > 5
    assert tally.holdout > 5
    assert tally.counts == {"kept": 40}


@pytest.mark.slow
def test_curating_twice_changes_nothing(con: Connection, tmp_path: Path):
    load(con, tmp_path, [logs.interaction(f"ask {n}") for n in range(20)], [logs.feedback()])
    first = curate(con), examples(con)
    assert (curate(con), examples(con)) == first


def test_workloads_do_not_touch_each_other(con: Connection, tmp_path: Path):
    load(con, tmp_path, [logs.interaction(), logs.interaction(workload_id="other")])
    curate(con)
    curations.curate(con, "other", Rules(), now=logs.NOW)
    workloads = con.execute("select workload_id from curated.examples order by all").fetchall()
    assert workloads == [("other",), ("weather",)]


def test_a_frozen_split_can_not_use_another_criterion(con: Connection, tmp_path: Path):
    load(con, tmp_path, [logs.interaction(f"ask {n}") for n in range(20)])
    curate(con, HALF)
    curations.freeze(con, tmp_path, "weather", rules=HALF, now=logs.NOW)
    with pytest.raises(SplitChangedError, match="split by tools, but split_by is conversation"):
        curate(con, Rules(split_by="conversation"))
    assert len(examples(con)) == 20


def test_an_interaction_that_is_kept_twice_is_named_before_it_fills_the_memory(
    con: Connection, tmp_path: Path
):
    load(con, tmp_path, [logs.interaction()])
    con.execute("insert into raw.interactions from raw.interactions")
    with pytest.raises(warehouse.CheckFailedError, match="interactions_are_distinct"):
        curate(con)


def test_a_failed_check_keeps_the_old_verdicts(con: Connection, tmp_path: Path):
    load(con, tmp_path, [logs.interaction()], [logs.feedback("correction", logs.say("Rainy."))])
    curate(con)
    con.execute("insert into raw.feedback from raw.feedback")
    with pytest.raises(warehouse.CheckFailedError, match="one_fate"):
        curate(con)
    assert len(examples(con)) == 1


def several(name: str, *answers: dict[str, Json]) -> dict[str, Json]:
    """Log a request for several answers."""
    choices: Json = [
        {"index": place, "message": answer, "finish_reason": "stop"}
        for place, answer in enumerate(answers)
    ]
    return logs.interaction(
        f"What is {name}?", response_id=name, response={"id": name, "choices": choices}
    )


def test_of_several_answers_none_is_learned_unless_they_agree_or_somebody_corrects_them(
    con: Connection, tmp_path: Path
):
    rome, oslo = (logs.call("weather", {"city": city}) for city in ("Rome", "Oslo"))
    lines = [
        several("one", logs.say("Sunny."), logs.say("Rain.")),
        several("two", logs.say("Sunny."), logs.say(" Sunny.")),
        several("three", rome, oslo),
        several("four", rome, logs.call("weather", {"city": "Rome"})),
        several("five", logs.say("Sunny."), logs.say("Rain.")),
    ]
    said = [
        logs.feedback("correction", logs.say("Hail."), response_id="five"),
        logs.feedback("thumb", "up", response_id="one"),
    ]
    load(con, tmp_path, lines, said)
    tally = curate(con, Rules.model_validate({"rules": {"unknown_tool": "ignore"}}))
    assert tally.counts == {"kept": 3, "several_answers": 2}
    assert con.execute("select count(*) from curated.labels").fetchall() == [(0,)]
