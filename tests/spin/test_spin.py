"""The spin's parts: who asks, who answers at first, who judges, and what is counted of it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import httpx
import pytest

from components.schema import AcceptableCall, Answer, Call, Json
from flows.demo import traffic
from flows.demo.wheels import BfclRequest
from tests.spin import people, sealed_score, spin_page, spin_record, spin_requests, stand_in
from tests.spin.people import AppAnswer, SentReaction
from tests.spin.spin_plan import SpinError
from tests.spin.spin_record import SpinState, SpinTurn, WarehouseAnswer
from tests.spin.stand_in import StandIn
from tests.support import tiny

SECONDS = 30.0


def request(key: str, *tools: str, call: str | None = None) -> BfclRequest:
    offered: list[dict[str, Json]] = [
        {"type": "function", "function": {"name": name, "description": "", "parameters": {}}}
        for name in tools
    ]
    return BfclRequest(
        key,
        [{"role": "user", "content": f"Do {key}"}],
        offered,
        Call(call, {"unit": "C"}) if call else None,
        AcceptableCall(call, {"unit": ["C", "celsius"]}) if call else None,
    )


WEATHER = request("weather", "get_weather", "get_time", call="get_weather")
CHAT = request("chat", "get_weather")


def call(name: str, **arguments: Json) -> Answer:
    return Answer(calls=(Call(name, arguments),))


@pytest.mark.parametrize(
    ("asked", "answer", "is_right", "by_name"),
    [
        pytest.param(WEATHER, call("get_weather", unit="celsius"), True, True, id="acceptable"),
        pytest.param(WEATHER, call("get_weather", unit="F"), False, True, id="argument"),
        pytest.param(WEATHER, call("get_time", unit="C"), False, False, id="other-tool"),
        pytest.param(WEATHER, Answer("It is warm."), False, False, id="no-call"),
        pytest.param(WEATHER, None, False, False, id="unreadable"),
        pytest.param(CHAT, Answer("No tool fits."), True, True, id="refrains"),
        pytest.param(CHAT, Answer(""), False, False, id="says-nothing"),
        pytest.param(CHAT, call("get_weather"), False, False, id="needless-call"),
    ],
)
def test_people_know_what_is_right(
    asked: BfclRequest, answer: Answer | None, is_right: bool, by_name: bool
) -> None:
    read = people.answer_in(stand_in.message_of(answer)) if answer else None
    assert people.is_right(asked, read) == is_right
    assert people.is_right(asked, read, by_name=True) == by_name


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(None, id="none"),
        pytest.param({"tool_calls": [{"function": {"name": "a", "arguments": "{"}}]}, id="cut"),
        pytest.param({"tool_calls": [{"id": "x"}]}, id="no-function"),
    ],
)
def test_a_message_that_cannot_be_read_is_no_answer(message: Json) -> None:
    assert people.answer_in(message) is None


def test_every_wrong_answer_is_disliked_and_the_seed_decides_who_says_so() -> None:
    def reactions(answer: Answer, asked: BfclRequest) -> list[traffic.Reaction | None]:
        return [people.react(asked, answer, Random(f"0 {number}")) for number in range(200)]

    wrong = reactions(Answer("No."), WEATHER)
    assert {reaction.thumb for reaction in wrong if reaction} == {"down"}
    assert None not in wrong
    corrected = [r.correction for r in wrong if r and r.correction]
    assert all(correction == traffic.right_answer(WEATHER) for correction in corrected)
    assert 120 < len(corrected) < 190
    right = reactions(Answer("No."), CHAT)
    assert 10 < sum(reaction is not None for reaction in right) < 60
    assert wrong == reactions(Answer("No."), WEATHER)


def test_no_request_that_is_sent_offers_a_tool_of_a_sealed_one() -> None:
    requests = [request(f"{n}", f"tool_{n % 150}", call=f"tool_{n % 150}") for n in range(300)]
    chosen = spin_requests.choose_requests(requests, seed=0)
    sealed = {name for r in chosen.sealed for name in r.tool_names}
    assert len(chosen.sealed) == len(sealed) == spin_requests.SEALED
    assert sealed.isdisjoint(name for r in chosen.sent for name in r.tool_names)
    assert len(chosen.sent) == 2 * (150 - spin_requests.SEALED)
    assert chosen == spin_requests.choose_requests(requests[::-1], seed=0)


def test_a_sealed_request_is_asked_again_where_the_stand_in_answered() -> None:
    models, asked = iter(["production", "spin@2", "spin@2"]), list[str]()

    def ask(sent: BfclRequest) -> dict[str, Json]:
        asked.append(sent.id)
        message = stand_in.message_of(call("get_weather", unit="C"))
        return {"model": next(models), "choices": [{"message": message}]}

    assert sealed_score.score([WEATHER], "2", ask, busy_seconds=0) == {WEATHER.id: True}
    assert sealed_score.score([CHAT], "2", ask, busy_seconds=0) == {CHAT.id: False}
    assert asked == [WEATHER.id, WEATHER.id, CHAT.id]


def test_no_other_version_stands_for_the_one_that_is_scored() -> None:
    with pytest.raises(SpinError, match="asking version 2: spin@1 answered"):
        sealed_score.score([WEATHER], "2", lambda _: {"model": "spin@1", "choices": []})


@pytest.fixture
def server(tmp_path: Path) -> StandIn:
    tiny.tokenizer().save_pretrained(tmp_path / "base")
    return StandIn([WEATHER, CHAT], tmp_path / "base")


def test_the_stand_in_answers_with_the_reference_and_counts_tokens(server: StandIn) -> None:
    with stand_in.serving(server, 0) as url:
        body = {"model": "x", "messages": WEATHER.messages, "tools": WEATHER.tools}
        answer = httpx.post(f"{url}/chat/completions", json=body).json()
        unknown = httpx.post(f"{url}/chat/completions", json={**body, "tools": []})
    (choice,) = answer["choices"]
    assert people.answer_in(choice["message"]) == call("get_weather", unit="C")
    assert (answer["model"], choice["finish_reason"]) == ("production", "tool_calls")
    texts = json.dumps([WEATHER.messages, WEATHER.tools])
    assert answer["usage"]["prompt_tokens"] == len(texts.encode())
    assert unknown.status_code == 404


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_application_asks_on_where_it_was_ended(tmp_path: Path, server: StandIn) -> None:
    requests, answers = tmp_path / "requests.jsonl", tmp_path / "answers.jsonl"
    asked = [request("unknown"), WEATHER, CHAT]
    lines = [{"id": r.id, "messages": r.messages, "tools": r.tools} for r in asked]
    requests.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with stand_in.serving(server, 0) as url:
        for _ in range(2):
            count = len(people.read_answers(answers)) + 5
            command = [sys.executable, "-m", "tests.spin.application", url, "x"]
            command += [str(requests), str(answers), "--first", "100", "--pace", "60"]
            process = subprocess.Popen(command, env=os.environ | {"OPENAI_API_KEY": "k"})
            try:
                until(lambda count=count: len(people.read_answers(answers)) >= count)
                process.send_signal(signal.SIGTERM)
                assert process.wait(SECONDS) == 0
            finally:
                process.kill()
    read = sorted(people.read_answers(answers), key=lambda answer: answer.number)
    assert [answer.number for answer in read] == [*range(len(read))]
    assert [answer.status for answer in read[:4]] == [404, 200, 200, 404]
    assert people.answer_in(read[1].message) == call("get_weather", unit="C")
    assert read[0].error
    assert read[0].sent_at <= read[0].ended_at


def answered(number: int, model: str, sent: float, took: float = 1.0) -> AppAnswer:
    return AppAnswer(number, "weather", sent, sent + took, 200, f"r{number}", model)


def logged(*answers: AppAnswer) -> dict[str, WarehouseAnswer]:
    """Return what the gateway logs of these answers."""
    return {
        answer.id: WarehouseAnswer(
            answer.id,
            answer.model,
            answer.model.removeprefix("spin@") if "@" in answer.model else None,
            "champion" if "@" in answer.model else "fallback",
        )
        for answer in answers
    }


JOURNAL: list[dict[str, Json]] = [
    {
        "at": f"1970-01-01T00:{minute}:00.000+00:00",
        "step": step,
        "workload": workload,
        "model": model,
    }
    for minute, step, workload, model in (
        ("05", "flipped", "other", "other.v9-abababababab"),
        ("10", "proved", "spin", "spin.v1-abababababab"),
        ("10", "flipped", "spin", "spin.v1-abababababab"),
        ("20", "flipped", "spin", "spin.v2-cdcdcdcdcdcd"),
        ("25", "canary_began", "spin", "spin.v3-efefefefefef"),
        ("30", "canary_ended", "spin", "spin.v3-efefefefefef"),
    )
]


@pytest.mark.parametrize(
    ("answer", "is_wrong"),
    [
        pytest.param(answered(0, "production", 300), False, id="stand-in-first"),
        pytest.param(answered(0, "spin@1", 500), True, id="before-its-flip"),
        pytest.param(answered(0, "spin@1", 599.5), False, id="during-the-flip"),
        pytest.param(answered(0, "production", 590, took=60), False, id="began-before-the-flip"),
        pytest.param(answered(0, "spin@1", 900), False, id="serves"),
        pytest.param(answered(0, "spin@1", 1150, took=90), False, id="began-with-the-first"),
        pytest.param(answered(0, "spin@1", 1210), True, id="after-the-second"),
        pytest.param(answered(0, "spin@2", 1210), False, id="the-second"),
        pytest.param(answered(0, "spin@9", 1210), True, id="unknown"),
        pytest.param(answered(0, "production", 1210), False, id="fallback"),
        pytest.param(answered(0, "spin@3", 1400), True, id="before-its-canary"),
        pytest.param(answered(0, "spin@3", 1600), False, id="canary"),
        pytest.param(answered(0, "spin@2", 1600), False, id="beside-a-canary"),
        pytest.param(answered(0, "spin@3", 1810), True, id="after-its-canary"),
    ],
)
def test_an_answer_comes_from_who_served_when_it_was_given(
    answer: AppAnswer, is_wrong: bool
) -> None:
    promises = spin_record.check_answers("spin", [answer], logged(answer), [], JOURNAL)
    assert bool(promises.wrong_version) == is_wrong
    assert promises.fallbacks == (answer.model == "production" and answer.sent_at > 1000)


@pytest.mark.parametrize(("version", "is_wrong"), [("2", False), ("3", False), ("1", True)])
def test_an_answer_during_a_canary_is_held_against_its_record(version: str, is_wrong: bool) -> None:
    hidden = answered(0, "spin", 1600)
    records = logged(replace(hidden, model=f"spin@{version}"))
    (answer,) = spin_record.name_versions("spin", [hidden], records)
    promises = spin_record.check_answers("spin", [answer], records, [], JOURNAL)
    assert bool(promises.wrong_version) == is_wrong


def test_what_failed_was_lost_or_is_logged_otherwise_is_named() -> None:
    good, lost, other = (answered(n, "spin@2", 1300) for n in range(3))
    failed = replace(answered(3, "", 1300), status=502, id="", error="the engine failed")
    records = logged(good, replace(other, model="spin@1"))
    sent = [SentReaction(0, "up", False, [200]), SentReaction(1, "down", True, [200, 404])]
    promises = spin_record.check_answers(
        "spin", [good, lost, other, failed], records, sent, JOURNAL
    )
    assert promises.answered == 4
    assert promises.failed == ["request 3: 502 the engine failed"]
    assert promises.lost == ["request 1: r1"]
    assert promises.wrong_version == ["request 2: spin@2, logged as spin@1"]
    assert promises.refused_feedback == ["on request 1: [200, 404]"]
    rows = spin_page.promise_rows(promises, [], None)
    assert [is_kept for _, is_kept, _ in rows] == [False, False, False, False, True, False]


def turns(*scores: str) -> list[SpinTurn]:
    """Write turns of a version each, with the sealed requests that it answers right."""
    return [
        SpinTurn(n, "approved", 10 * n, str(n), {key: key in score for key in "abcdefghij"})
        for n, score in enumerate(scores, start=1)
    ]


def test_each_turn_is_counted_with_its_own_requests(tmp_path: Path) -> None:
    spun = turns("abc", "abcdefgh")
    answers = [answered(n, "production", 1) for n in range(12)]
    answers += [answered(n, "spin@1", 1) for n in range(12, 20)]
    feedback = [SentReaction(n, "down", False, [200]) for n in (1, 12, 13)]
    feedback.append(SentReaction(15, "up", False, [200]))
    prices = {"production": 0.001, "spin@1": 0.0001}
    first, second = spin_page.figures("spin", spun, answers, feedback, prices)
    assert (first.adapter_share, second.adapter_share) == (0.0, 0.8)
    assert first.cost == pytest.approx(0.001)
    assert second.cost == pytest.approx((2 * 0.001 + 8 * 0.0001) / 10)
    assert (first.feedback_share, second.feedback_share, second.down_share) == (0.1, 0.3, 0.2)
    assert spin_page.figures("spin", spun, answers, feedback, {})[0].cost is None
    rows = spin_page.table([first, second], "USD")
    assert rows[1][2:6] == ["version 2", "80.0%", "10", "80.0%"]
    spin_page.draw([first, second], "USD", tmp_path / "p.png")
    page = spin_page.as_html(
        [first, second], "USD", [("a promise", False, "<b>broken</b>")], tmp_path / "p.png"
    )
    assert "&lt;b&gt;broken" in page
    assert 'src="http' not in page


def test_the_last_version_is_compared_with_the_first_request_by_request() -> None:
    lead = spin_page.gain(turns("abc", "abdefgh"))
    assert lead is not None
    assert (lead.counts.wins, lead.counts.losses, lead.counts.n) == (5, 1, 10)
    assert lead.low < 0.4 < lead.high
    assert lead.is_shown
    perfect = spin_page.gain(turns("abcdefghij", "abcdefghij"))
    assert perfect is not None
    assert perfect.is_shown
    worse = spin_page.gain(turns("ab", "a"))
    assert worse is not None
    assert not worse.is_shown
    assert spin_page.gain([SpinTurn(1, "fail", 10, None, {})]) is None


def test_a_spin_goes_on_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    assert spin_record.read_state(path) == SpinState()
    state = SpinState().started("run-1")
    state.write(path)
    assert spin_record.read_state(path).run == "run-1"
    (turn,) = turns("abc")
    state.ended(turn).write(path)
    read = spin_record.read_state(path)
    assert (read.turns, read.run) == ([turn], None)
