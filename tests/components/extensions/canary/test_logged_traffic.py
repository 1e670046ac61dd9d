"""What a canary may count on is read from the gateway's logged answers."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from components.extensions.canary import logged_traffic
from components.extensions.canary.logged_traffic import LoggedAnswer
from components.schema import Json
from components.store import warehouse
from tests.support import logs, warehouses

START = 1_760_000_000.0
HOUR = 3600.0


def answer(
    number: int,
    *,
    model: str = "weather@2",
    finish: str = "stop",
    message: Json = None,
    **more: Json,
) -> dict[str, Json]:
    """Write the record of an answer of the gateway."""
    line = logs.interaction(
        f"Weather in town {number}?",
        message=message or logs.call("weather", '{"city": "Rome"}'),
        tools=[logs.WEATHER],
        response_id=f"r{number}",
        timestamp=START + 60 * number,
    )
    response = line["response"]
    assert isinstance(response, dict)
    usage: Json = {"prompt_tokens": 40, "completion_tokens": 5}
    served: Json = {"arm": "champion"}
    whole: Json = {**response, "model": model, "usage": usage}
    return (
        line
        | {"response": whole}
        | {"served": served, "finish": finish, "duration_ms": 100.0 + number % 20}
        | more
    )


def read(
    folder: Path, lines: list[dict[str, Json]], votes: list[dict[str, Json]]
) -> list[LoggedAnswer]:
    """Load a log, and read it as a start does."""
    with warehouses.connect(folder / "w.duckdb") as con:
        logs.load(con, logs.write(folder / "log.jsonl", lines), now=logs.NOW)
        if votes:
            logs.load_feedback(con, logs.write(folder / "votes.jsonl", votes), now=logs.NOW)
        return [
            *warehouse.read(
                con,
                "marts/served_answers",
                LoggedAnswer,
                workload_id="weather",
                since=datetime.fromtimestamp(START, UTC),
                model_name="weather@2",
                most=1000,
            )
        ]


def test_traffic_is_counted_by_conversation_and_kind(tmp_path: Path) -> None:
    lines = [answer(number) for number in range(120)]
    lines[3] = answer(3, message=logs.call("weather", '{"town": "Rome"}'))  # not its schema
    lines[4] = answer(4, message=logs.call("snow", "{}"))  # not offered
    lines[5] = answer(5, finish="length")
    lines[6] = answer(6, finish="upstream_cut")
    lines[7] = answer(7, finish="client_gone", message=logs.call("snow", "{}"))
    lines[8] = answer(8, message=logs.say('<tool_call>{"name": "weather", "arguments": {'))
    lines[9] = answer(9, duration_ms=5000.0)
    lines += [logs.interaction("elsewhere", response_id="other", timestamp=START)]
    votes = [
        logs.feedback(response_id="r10"),
        logs.feedback("correction", {"text": "no"}, response_id="r10"),
        logs.feedback(value="up", response_id="r11"),
        logs.feedback("correction", None, response_id="r13"),
        logs.feedback(response_id="r12", workload_id="billing"),
    ]
    answers = read(tmp_path, lines, votes)
    traffic = logged_traffic.measure(answers, START + 2 * HOUR)
    assert (traffic.answers, traffic.hours, traffic.conversations_an_hour) == (120, 2.0, 60.0)
    slow = traffic.risks["slow"]
    assert traffic.risks == pytest.approx(
        {"cut": 1 / 120, "disliked": 1 / 120, "error": 1 / 120, "invalid": 3 / 120, "slow": slow}
    )
    assert 0 < slow <= 0.06
    assert traffic.limits is not None
    assert traffic.limits.is_slow(40, 5000.0)
    assert not traffic.limits.is_slow(40, 100.0)


def test_it_is_learned_how_late_people_dislike_after_a_conversation_began(tmp_path: Path) -> None:
    lines = [answer(number, conversation_id=f"c{number // 2}") for number in range(60)]
    votes = [
        logs.feedback(response_id=f"r{number}", timestamp=START + 60 * number + 30)
        for number in range(1, 60, 2)
    ]
    votes.append(logs.feedback("regenerate", True, response_id="r1", timestamp=START + 9_000))
    read_all = read(tmp_path, lines, votes)
    assert logged_traffic.measure(read_all, START + HOUR).dislike_seconds == 90.0
    assert logged_traffic.measure(read_all[:20], START + HOUR).dislike_seconds is None


def test_turns_of_a_conversation_are_one(tmp_path: Path) -> None:
    lines = [answer(number, conversation_id=f"c{number % 3}") for number in range(6)]
    traffic = logged_traffic.measure(read(tmp_path, lines, []), START + HOUR)
    assert traffic.conversations_an_hour == 3.0


def test_risks_are_the_champions_once_it_has_given_a_few_answers(tmp_path: Path) -> None:
    lines = [answer(n, model="weather@1", finish="length") for n in range(10)]
    answers = read(tmp_path, [*lines, *(answer(n) for n in range(10, 20))], [])
    traffic = logged_traffic.measure(answers, START + HOUR)
    assert traffic.limits is None
    assert traffic.risks == {"cut": 0.5}
    own = [
        replace(each, answered_at=each.answered_at + n)
        for n in range(3)
        for each in answers
        if each.is_champion
    ]
    assert logged_traffic.measure([*answers, *own], START + HOUR).risks.get("cut") is None


def test_what_cannot_be_read_counts_for_nothing() -> None:
    broken = LoggedAnswer(START, "app", None, '{"messages": 3}', "[]", "stop", None, None, True)
    traffic = logged_traffic.measure([broken], START + HOUR)
    assert (traffic.answers, traffic.risks) == (1, {})
    assert logged_traffic.measure([], START).conversations_an_hour == 0
