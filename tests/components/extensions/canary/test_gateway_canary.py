"""A canary answers its share of the conversations, and goes back by itself if it is worse."""

import json
import re
import stat
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from components.extensions.canary.latency_limits import LatencyLimits
from components.extensions.canary.rollout_order import (
    HOUR,
    KindRule,
    RolloutOrder,
    RolloutPlan,
    ShareStep,
)
from components.serve import routes
from tests.support import gateways, small_disk
from tests.support.gateways import CANARY, RunningGateway, script

HALF = RolloutPlan("support", "8", "7", (ShareStep(0.5, HOUR),), deadline_seconds=HOUR)
ORDER = RolloutOrder("0123456789ab", HALF, None, "2026-11-27T16:00:00+00:00")
TINY_MARGIN = replace(HALF, margin=50.0, kinds=(KindRule("cut", 0.5),), decisive=("cut",))
NOBODY = (ShareStep(0.0, HOUR), ShareStep(0.5, HOUR))
SHADOW = replace(ORDER, plan=replace(HALF, steps=NOBODY, deadline_seconds=2 * HOUR), shadow=1.0)
BAD = {"models": {CANARY["model"]: {"say": "x", "finish": "length"}}}


def status(home: Path) -> dict[str, Any]:
    path = home / "serve" / "rollouts" / "support.json"
    content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return content


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ask(gateway: RunningGateway, name: str, content: str = "Hi", **more: Any) -> str:
    """Ask in a conversation; return the arm that answered, as the record has it."""
    answer = gateway.ask(content, metadata={"conversation_id": name}, **more)
    assert answer.status_code == 200, answer.text
    return str(gateway.served(answer).get("arm"))


def ended(home: Path) -> list[dict[str, Any]]:
    lines = (home / "serve" / "journal.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["step"] == "canary_ended"]


def route(home: Path) -> routes.Route:
    return routes.read(home / "serve" / "routes.json")["support"]


def test_conversations_keep_their_arm_and_records_say_whose_they_are(tmp_path: Path):
    with gateways.running(tmp_path, canary=ORDER, is_forked=False) as gateway:
        until(lambda: status(tmp_path).get("verdict") is not None)
        modules = gateway.get("/v1/routes").json()["status"]["modules"]
        assert {"numpy", "scipy"}.isdisjoint(modules)
        first = {name: ask(gateway, name) for name in map(str, range(40))}
        assert {*first.values()} == {"champion", "canary"}
        assert all(ask(gateway, name) == arm for name, arm in first.items())
        gateway.stop()
        for record in gateway.records():
            served, name = record["served"], record["conversation_id"]
            assert served["arm"] == served["drawn"] == first[name]
            assert (served["rollout"], served["share"]) == (ORDER.id, 0.5)
            assert len(served["conversation"]) == 32
            assert served["version"] == {"champion": "7", "canary": "8"}[first[name]]
            assert record["response"]["model"] == f"support@{served['version']}"


ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}], "logprobs": True},
    "/v1/completions": {"prompt": "Hi"},
    "/v1/responses": {"input": "Hi"},
}
OWN = re.compile(r"[A-Za-z0-9._]{27}-support|_[0-9a-f]{24}|\b1\d{9}\b|'date', '[^']*'")
"""What each answer has of its own: ids and times."""


@pytest.mark.parametrize("is_streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("path", ASKED)
def test_no_client_can_tell_which_arm_answers_while_a_canary_runs(
    tmp_path: Path, path: str, is_streamed: bool
):
    seen = dict[str, set[tuple[str, str]]](champion=set(), canary=set())
    with gateways.running(tmp_path, canary=ORDER) as gateway:
        for number in range(16):
            answer = gateway.post(
                path,
                json={"model": "support", "stream": is_streamed, **ASKED[path]},
                headers={"x-conversation-id": str(number)},
            )
            assert answer.status_code == 200
            head = OWN.sub("*", repr(sorted(answer.headers.items())))
            seen[gateway.served(answer)["arm"]].add((head, OWN.sub("*", answer.text)))
    assert len(seen["champion"]) == 1
    assert seen["canary"] == seen["champion"]
    assert all('"model":"support"' in text for _, text in seen["champion"])


def test_named_conversations_are_drawn_whatever_their_requests_begin_with(tmp_path: Path):
    messages = [
        {"role": "user", "content": "good"},
        {"role": "assistant", "content": "positive"},
        {"role": "user", "content": "bad"},
    ]
    arms = Counter[str]()
    with gateways.running(tmp_path, canary=ORDER) as gateway:
        for number in range(40):
            answer = gateway.post(
                "/v1/chat/completions",
                json={"model": "support", "messages": messages},
                headers={"x-conversation-id": str(number)},
            )
            arms[gateway.served(answer)["arm"]] += 1
        for number in range(40):
            asked = [*messages[:2], {"role": "user", "content": str(number)}]
            answer = gateway.post(
                "/v1/chat/completions", json={"model": "support", "messages": asked}
            )
            arms[gateway.served(answer)["arm"]] += 1
    assert 20 < arms["canary"] < 60


def test_a_canary_that_has_drawn_one_conversation_only_says_so(tmp_path: Path):
    with gateways.running(tmp_path, canary=ORDER) as gateway:
        for _ in range(25):
            ask(gateway, "the same")
        until(lambda: "one conversation, which one arm has" in status(tmp_path).get("reason", ""))
        ask(gateway, "another")
        until(lambda: "one conversation" not in status(tmp_path)["reason"])


def test_a_canary_that_is_faster_is_not_called_drawn_unevenly(tmp_path: Path):
    slow = script(models={CANARY["model"]: {"wait": 0}}, wait=4)
    with gateways.running(tmp_path, canary=ORDER) as gateway, ThreadPoolExecutor(40) as pool:
        asked = [pool.submit(ask, gateway, str(number), slow) for number in range(40)]
        time.sleep(2.5)  # the canary has answered, the champion has not
        shown = status(tmp_path)
        assert {answer.result() for answer in asked} == {"champion", "canary"}
    assert shown["state"] == "running", shown["reason"]
    assert sum(shown["verdict"]["conversations"].values()) == 40


def test_a_worse_canary_goes_back_by_itself_and_never_begins_again(tmp_path: Path):
    with gateways.running(tmp_path, canary=ORDER) as gateway:
        arms = Counter[str]()
        for number in range(400):
            arms[ask(gateway, str(number), script(**BAD))] += 1
            if status(tmp_path).get("state") == "roll back":
                break
            time.sleep(0.01)
        shown = status(tmp_path)
        assert shown["state"] == "roll back", shown
        assert shown["reason"].startswith("cut: ")
        assert 5 <= arms["canary"] < 60
        until(lambda: route(tmp_path).canary is None)
        assert [(line["id"], line["outcome"]) for line in ended(tmp_path)] == [
            (ORDER.id, "roll back")
        ]
        assert shown["verdict"]["plan"]["version"] == "8"
        assert shown["history"]
        assert {ask(gateway, str(number), "Hi") for number in range(20)} == {"champion"}
        gateway.kill()
        # Killed between the journal and the routes: the journal counts.
        table = routes.read(tmp_path / "serve" / "routes.json")
        now = table["support"]
        canary = routes.CanaryRoute(gateways.served(tmp_path / "base", **CANARY), ORDER.to_text())
        table.with_route("support", replace(now, canary=canary)).write(
            tmp_path / "serve" / "routes.json"
        )
        with gateways.resumed(gateway) as again:
            assert {ask(again, str(number), "Hi") for number in range(20)} == {"champion"}
            until(lambda: route(tmp_path).canary is None)
            assert status(tmp_path)["state"] == "roll back"
            assert len(ended(tmp_path)) == 1


@pytest.mark.slow
def test_a_sound_canary_is_held_at_its_share_until_control_moves_the_champion(tmp_path: Path):
    order = replace(ORDER, plan=TINY_MARGIN)
    both = script(say="x", finish="length")  # as bad as its champion is within any margin
    with gateways.running(tmp_path, canary=order) as gateway:
        for number in range(60):
            ask(gateway, str(number), both)
        until(lambda: status(tmp_path).get("state") == "hold")
        assert route(tmp_path).canary is not None
        assert {ask(gateway, f"later {n}") for n in range(20)} == {"champion", "canary"}
        assert [line["outcome"] for line in ended(tmp_path)] == ["hold"]
        gateway.kill()
        with gateways.resumed(gateway) as again:
            assert {ask(again, f"later {n}") for n in range(20)} == {"champion", "canary"}
            until(lambda: status(tmp_path)["state"] == "hold")
            assert len(ended(tmp_path)) == 1


@pytest.mark.slow
def test_undecided_at_the_deadline_keeps_its_share_and_is_still_rolled_back(tmp_path: Path):
    plan = replace(HALF, steps=(ShareStep(0.5, 0.1),), deadline_seconds=0.1)
    with gateways.running(tmp_path, canary=replace(ORDER, plan=plan)) as gateway:
        until(lambda: status(tmp_path).get("state") == "undecided")
        assert {ask(gateway, str(number)) for number in range(20)} == {"champion", "canary"}
        for number in range(100):
            ask(gateway, f"bad {number}", script(**BAD))
        until(lambda: status(tmp_path)["state"] == "roll back")


@pytest.mark.slow
def test_failed_answers_count_against_the_canary_and_the_champion_answers(tmp_path: Path):
    failing = script(models={CANARY["model"]: {"status": 500}})
    with gateways.running(tmp_path, canary=ORDER) as gateway:
        arms = [ask(gateway, str(number), failing) for number in range(60)]
        assert {*arms} == {"champion", "fallback"}
        until(lambda: status(tmp_path).get("state") == "roll back")
        assert status(tmp_path)["reason"].startswith("error: ")
        gateway.stop()
        fallbacks = [r for r in gateway.records() if r["served"]["arm"] == "fallback"]
        assert {(r["served"]["version"], r["served"]["drawn"]) for r in fallbacks} == {
            ("7", "canary")
        }


def test_a_request_that_either_arm_would_refuse_counts_against_neither(tmp_path: Path):
    # One client with too long prompts would hide what fails at the canary alone.
    too_long = script(status=400, message="the maximum context length is 10 tokens")
    with gateways.running(tmp_path, canary=ORDER) as gateway:
        until(lambda: status(tmp_path).get("verdict") is not None)
        for number in range(10):
            answer = gateway.ask(too_long, metadata={"conversation_id": str(number)})
            assert answer.status_code == 400
        assert gateway.ask(script(status=500)).status_code == 502
    text = (tmp_path / "serve" / "rollouts" / f"{ORDER.id}.jsonl").read_text()
    shown = [line.get("b", []) for line in map(json.loads, text.splitlines()) if "c" in line]
    assert shown == [[]] * 20 + [[], ["error"]]  # a draw and an answer each


@pytest.mark.parametrize("is_streamed", [True, False], ids=["streamed", "whole"])
def test_answers_that_take_too_long_are_errors_of_their_arm(tmp_path: Path, is_streamed: bool):
    hanging = script(models={CANARY["model"]: {"say": "one two three", "delay": 0.6}})
    limits = {"limits": {"answer_seconds": 1.0}}
    evidence = tmp_path / "serve" / "rollouts" / f"{ORDER.id}.jsonl"
    kinds = set[tuple[str, ...]]()
    with gateways.running(tmp_path, limits, canary=ORDER) as gateway:
        for number in range(40):  # until both arms were drawn
            metadata = {"conversation_id": str(number)}
            gateway.ask(hanging, metadata=metadata, stream=is_streamed)
            lines = [json.loads(line) for line in evidence.read_text().splitlines()]
            kinds = {(line["a"], *line.get("b", [])) for line in lines if "a" in line}
            if len(kinds) > 2:
                break
    assert kinds == {("canary",), ("canary", "error"), ("champion",)}


def test_an_answer_for_which_its_client_would_not_wait_is_slow(tmp_path: Path):
    order = replace(ORDER, limits=LatencyLimits((64,), (100.0, 300.0)))
    hanging = script(models={CANARY["model"]: {"say": "x", "wait": 30}})
    evidence = tmp_path / "serve" / "rollouts" / f"{ORDER.id}.jsonl"

    def kinds() -> list[list[str]]:
        lines = [json.loads(line) for line in evidence.read_text().splitlines()]
        return [line["b"] for line in lines if line.get("a") == "canary" and "b" in line]

    with gateways.running(tmp_path, canary=order) as gateway:
        for number in range(40):
            body = {
                "model": "support",
                "messages": [{"role": "user", "content": hanging}],
                "metadata": {"conversation_id": str(number)},
            }
            try:
                gateway.post("/v1/chat/completions", json=body, timeout=1)
            except httpx.ReadTimeout:  # it is the canary's
                until(lambda: bool(kinds()))
                break
    assert kinds() == [["slow"]]


@pytest.mark.slow
def test_slow_answers_and_dislikes_count(tmp_path: Path):
    order = replace(ORDER, limits=LatencyLimits((), (1000.0,)))
    slow = script(models={CANARY["model"]: {"say": "x", "wait": 1.2}})
    with gateways.running(tmp_path, canary=order) as gateway:
        for number in range(10):
            arm = ask(gateway, str(number), slow)
        liked = gateway.ask("Hi", metadata={"conversation_id": "0"}).json()["id"]
        body = {"response_id": liked, "kind": "thumb", "value": "down"}
        assert gateway.post("/v1/feedback", json=body).status_code == 200
        foreign = {**body, "response_id": f"chatcmpl-{'A' * 27}-support"}
        assert gateway.post("/v1/feedback", json=foreign).status_code == 404
        arm = ask(gateway, "0")

        def kinds() -> dict[str, dict[str, int]]:
            verdict = status(tmp_path).get("verdict") or {"kinds": []}
            return {each["kind"]: each for each in verdict["kinds"]}

        until(lambda: bool(kinds()) and kinds()["disliked"][arm] == 1)
        assert kinds()["slow"]["canary"] > 0
        assert kinds()["slow"]["champion"] == 0


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses"])
def test_dislikes_count_for_the_arm_that_gave_the_answer_whatever_its_api(
    tmp_path: Path, path: str
):
    text = {"chat/completions": "messages", "completions": "prompt", "responses": "input"}
    name = text[path.removeprefix("/v1/")]
    ids = dict[str, list[str]](canary=[], champion=[])
    with gateways.running(tmp_path, canary=ORDER) as gateway:
        for number in range(80):
            asked = [{"role": "user", "content": "Hi"}] if name == "messages" else "Hi"
            answer = gateway.post(
                path,
                json={"model": "support", name: asked},
                headers={"x-conversation-id": str(number)},
            )
            ids[gateway.served(answer)["arm"]].append(answer.json()["id"])
        for answer_id in ids["canary"]:
            body = {"response_id": answer_id, "kind": "thumb", "value": "down"}
            assert gateway.post("/v1/feedback", json=body).status_code == 200
        until(lambda: status(tmp_path).get("state") == "roll back")
    assert status(tmp_path)["reason"].startswith("disliked: ")


@pytest.mark.slow
def test_killed_gateway_comes_to_the_same_verdict_and_moves_no_conversation(tmp_path: Path):
    with gateways.running(tmp_path, canary=ORDER) as gateway:
        first = {name: ask(gateway, name, script(**BAD)) for name in map(str, range(8))}
        until(lambda: (status(tmp_path).get("verdict") or {}).get("conversations") is not None)
        time.sleep(0.5)
        before = status(tmp_path)["verdict"]
        gateway.kill()
        evidence = tmp_path / "serve" / "rollouts" / f"{ORDER.id}.jsonl"
        with evidence.open("ab") as file:
            file.write(b'{"t":1.0,"c":"cut off')
        with gateways.resumed(gateway) as again:
            assert {name: ask(again, name, script(**BAD)) for name in first} == first
            until(lambda: status(tmp_path)["verdict"]["elapsed"] != before["elapsed"])
            after = status(tmp_path)["verdict"]
            assert after["kinds"] == before["kinds"]
            assert after["conversations"] == before["conversations"]


@pytest.mark.slow
def test_full_disk_loses_no_answer_and_no_evidence(tmp_path: Path):
    (tmp_path / "serve").mkdir()
    with small_disk.mounted(tmp_path / "serve" / "rollouts", "256k") as disk:
        evidence = disk / f"{ORDER.id}.jsonl"
        with gateways.running(tmp_path, canary=ORDER) as gateway:
            ask(gateway, "before")
            ballast = small_disk.fill(disk)
            size = evidence.stat().st_size
            room = -size % 4096  # what is left of its last page
            names = [str(number) for number in range(20 + room // 100)]
            assert {ask(gateway, name) for name in names} == {"champion", "canary"}
            assert evidence.stat().st_size <= size + room
            ballast.unlink()
            ask(gateway, "after")
            gateway.stop()
            assert len(gateway.records()) == len(names) + 2
        lines = [json.loads(line) for line in evidence.read_text().splitlines()]
        assert len([line for line in lines if "r" in line]) == len(names) + 2


@pytest.mark.slow
def test_a_canary_whose_order_is_damaged_answers_nobody(tmp_path: Path):
    with gateways.running(tmp_path, canary=ORDER) as gateway:
        gateway.kill()
        path = tmp_path / "serve" / "routes.json"
        content = json.loads(path.read_text())
        content["routes"]["support"]["canary"]["order"] = '{"id": "../../x"}'
        path.write_text(json.dumps(content))
        with gateways.resumed(gateway) as again:
            assert {ask(again, str(number)) for number in range(20)} == {"champion"}
            until(lambda: status(tmp_path).get("state") == "void")
            until(lambda: route(tmp_path).canary is None)


def test_evidence_is_readable_by_its_owner_only_and_has_no_texts(tmp_path: Path):
    with gateways.running(tmp_path, canary=ORDER) as gateway:
        ask(gateway, "a secret name", "a secret question")
        evidence = tmp_path / "serve" / "rollouts" / f"{ORDER.id}.jsonl"
        assert stat.S_IMODE(evidence.stat().st_mode) == 0o600
        assert "secret" not in evidence.read_text()


def test_a_shadow_is_asked_for_nobody_logged_nowhere_and_found_worse(tmp_path: Path):
    number = 0
    with gateways.running(tmp_path, canary=SHADOW) as gateway:
        for number in range(60):
            assert ask(gateway, str(number), script(**BAD)) == "champion"
            if status(tmp_path).get("state") == "roll back":
                break
            time.sleep(0.02)
        until(lambda: status(tmp_path)["state"] == "roll back")
        shown = status(tmp_path)
        assert shown["reason"].startswith("in its shadow, cut: ")
        shadow = shown["shadow"]
        assert shadow["kinds"]["cut"]["canary"] >= 5
        assert shadow["kinds"]["cut"]["champion"] == 0
        assert shadow["asked"] <= number + 1
        page = gateway.get("/metrics").text
        assert 'flywheel_serve_rollout_shadows_total{result="asked",workload="support"}' in page
        asked = [request["body"]["model"] for request in gateway.seen()["requests"]]
        assert Counter(asked)[CANARY["model"]] >= shadow["asked"]
        gateway.stop()
        assert len(gateway.records()) == number + 1
        assert {record["served"]["version"] for record in gateway.records()} == {"7"}


def test_shadows_are_shed_before_anybody_waits(tmp_path: Path):
    slow = script(models={CANARY["model"]: {"say": "x", "wait": 60}})
    settings = {"limits": {"open_requests": 40}}  # busy from 2 on
    with gateways.running(tmp_path, settings, canary=SHADOW) as gateway:
        for number in range(3):
            ask(gateway, str(number), slow)
        # A shadow that is shed before it has asked the engine is not cancelled there.
        until(lambda: len(gateway.seen()["requests"]) == 6)
        with ThreadPoolExecutor(3) as pool:
            waiting = [pool.submit(ask, gateway, f"w{n}", script(wait=1.0)) for n in range(3)]
            assert {answer.result() for answer in waiting} == {"champion"}
        until(lambda: gateway.seen()["cancelled"] >= 1)
        page = gateway.get("/metrics").text
        assert re.search(r'rollout_shadows_total\{result="shed",workload="support"\} [1-9]', page)


@pytest.mark.slow
def test_requests_that_are_not_stored_are_not_shadowed(tmp_path: Path):
    with gateways.running(tmp_path, canary=SHADOW) as gateway:
        for number in range(5):
            ask(gateway, str(number), script(say="x"), store=False)
        ask(gateway, "stored", script(say="x"))
        until(lambda: len(gateway.seen()["requests"]) == 7)
        models = Counter(request["body"]["model"] for request in gateway.seen()["requests"])
        assert models[CANARY["model"]] == 1
