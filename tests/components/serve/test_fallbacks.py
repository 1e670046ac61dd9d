"""Who answers when a replica does not: as the file says, logged as such, and never the base."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from components.receive import client_tokens
from tests.support import gateways, logs
from tests.support.gateways import script

DEAD = "http://127.0.0.1:9"  # the port `discard`, where nothing listens
FAILS = script(status=500, only=["one"])


def served_by(records: list[dict[str, Any]]) -> list[tuple[str, str, str | None]]:
    return [
        (record["served"]["arm"], record["served"]["replica"], record["served"]["version"])
        for record in records
    ]


def test_another_replica_answers(tmp_path: Path):
    both = {"replicas": ("one", "two")}
    with gateways.running(tmp_path, engines=("one", "two"), champion=both) as gateway:
        answers = [gateway.ask(f"{number} {FAILS}", stream=number % 2 == 1) for number in range(6)]
        page = gateway.get("/metrics").text
        gateway.stop()
        records = gateway.records()
    assert {answer.status_code for answer in answers} == {200}
    assert set(served_by(records)) == {("champion", "two", "7")}
    assert any(record["served"].get("failed") == ["one"] for record in records)
    assert 'flywheel_serve_upstream_errors_total{replica="one",status="500"}' in page


def test_a_replica_that_nothing_listens_at_is_passed_over(tmp_path: Path):
    both = {"replicas": ("dead", "one")}
    with gateways.running(tmp_path, urls={"dead": DEAD}, champion=both) as gateway:
        assert {gateway.ask().status_code for _ in range(6)} == {200}


def test_without_fallbacks_the_error_is_the_answer(tmp_path: Path):
    both = {"replicas": ("one", "two")}
    settings = {"fallbacks": []}
    with gateways.running(tmp_path, settings, engines=("one", "two"), champion=both) as gateway:
        statuses = {gateway.ask(script(status=500)).status_code for _ in range(2)}
    assert statuses == {502}


def test_requests_are_shared_among_replicas(tmp_path: Path):
    both = {"replicas": ("one", "two")}
    with gateways.running(tmp_path, engines=("one", "two"), champion=both) as gateway:
        for number in range(10):
            gateway.ask(f"{number} {script(say='x')}")
        shares = [len(gateway.seen(name)["requests"]) for name in ("one", "two")]
    assert shares == [5, 5]


def test_the_previous_version_answers_under_its_own_name(tmp_path: Path):
    settings = {"fallbacks": ["replica", "previous"]}
    previous = {"replicas": ("two",)}
    with gateways.running(tmp_path, settings, engines=("one", "two"), previous=previous) as gateway:
        answer = gateway.ask(FAILS)
        asked = gateway.seen("two")["requests"][-1]["body"]["model"]
        gateway.stop()
        records = gateway.records()
    assert answer.json()["model"] == "support@6"
    assert answer.headers["x-flywheel-version"] == "6"
    assert answer.headers["x-flywheel-arm"] == "fallback"
    assert asked == "support.v6-cdcdcdcdcdcd"
    assert served_by(records) == [("fallback", "two", "6")]
    assert records[0]["response"]["model"] == "support@6"


def test_nobody_is_asked_with_a_prompt_that_training_did_not_know(tmp_path: Path):
    with gateways.running(tmp_path) as gateway:
        assert gateway.ask().status_code == 200
        gateway.kill()
        template = tmp_path / "base" / "chat_template.jinja"
        template.write_text(template.read_text() + "\n")  # while it was down
        with gateways.resumed(gateway) as again:
            assert again.ask().status_code == 503
            again.stop()
            assert len(again.records()) == 1


@pytest.mark.parametrize("is_streamed", [True, False], ids=["streamed", "whole"])
def test_another_server_answers_under_its_own_name(tmp_path: Path, is_streamed: bool):
    with gateways.scripted_engine("teacher") as teacher:
        settings = {"fallbacks": [{"url": f"{teacher}/v1", "model": "gpt-x"}]}
        with gateways.running(tmp_path, settings) as gateway:
            answer = gateway.ask(FAILS, stream=is_streamed, metadata={"a": "b"})
            stored = answer.text if is_streamed else answer.json()
            with gateway.openai.chat.completions.stream(
                model="support",
                messages=[{"role": "user", "content": FAILS}],
                tools=[logs.WEATHER],  # type: ignore[list-item]
            ) as stream:
                calls = stream.get_final_completion().choices[0].message.tool_calls
            feedback = {
                "response_id": stored["id"]  # type: ignore[index]
                if not is_streamed
                else json.loads(answer.text.partition("\n")[0].removeprefix("data: "))["id"],
                "kind": "thumb",
                "value": "down",
            }
            assert gateway.post("/v1/feedback", json=feedback).status_code == 200
            gateway.stop()
            first, second = gateway.records()
        asked = gateways_seen(teacher)
    assert "x-flywheel-version" not in answer.headers
    assert answer.headers["x-flywheel-arm"] == "fallback"
    assert first["response"]["model"] == "gpt-x-2026"
    assert first["response"]["choices"][0]["message"]["content"] == "The teacher says: dry."
    assert (first["served"]["engine"], first["served"]["version"]) == ("openai", None)
    assert calls is not None
    assert second["response"]["choices"][0]["message"]["tool_calls"][0]["id"] == calls[0].id
    assert asked[0]["body"]["model"] == "gpt-x"
    assert asked[0]["body"]["metadata"] == {"a": "b"}


@pytest.mark.parametrize("is_streamed", [True, False], ids=["streamed", "whole"])
def test_another_gateways_version_does_not_pass_for_our_own(tmp_path: Path, is_streamed: bool):
    with gateways.scripted_engine("support@7") as other:
        settings = {"fallbacks": [{"url": f"{other}/v1", "model": "support"}]}
        with gateways.running(tmp_path, settings) as gateway:
            assert gateway.ask(FAILS, stream=is_streamed).status_code == 200
            gateway.stop()
            (record,) = gateway.records()
    assert record["response"]["model"] == "support"
    assert (record["served"]["arm"], record["served"]["version"]) == ("fallback", None)


def test_another_server_answers_a_workload_that_has_no_champion_yet(tmp_path: Path):
    with gateways.scripted_engine("teacher") as teacher:
        fresh = {"fallbacks": ["replica", {"url": f"{teacher}/v1", "model": "gpt-x"}]}
        with gateways.running(tmp_path, {"workloads": {"fresh": fresh}}) as gateway:
            answers = [gateway.ask(model="fresh", stream=stream) for stream in (False, True)]
            half = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a'}}
            history = [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": None, "tool_calls": [half]},  # models write such
                {"role": "tool", "tool_call_id": "1", "content": "not JSON"},
            ]
            answers.append(gateway.ask(model="fresh", messages=history))
            vote = {"response_id": answers[0].json()["id"], "kind": "thumb", "value": "up"}
            voted = gateway.post("/v1/feedback", json=vote)
            names = [model["id"] for model in gateway.get("/v1/models").json()["data"]]
            model = gateway.get("/v1/models/fresh")
            unknown = gateway.ask(model="stale")
            routes = gateway.get("/v1/routes").json()["routes"]
            gateway.stop()
            records = gateway.records()
    assert [answer.status_code for answer in answers] == [200] * 3
    assert [answer.headers["x-flywheel-arm"] for answer in answers] == ["fallback"] * 3
    assert answers[0].json()["model"] == "gpt-x-2026"
    assert (voted.status_code, voted.json()["workload"]) == (200, "fresh")
    assert names == ["fresh", "support"]
    assert (model.status_code, model.json()["owned_by"]) == (200, "flywheel")
    assert unknown.status_code == 404
    assert [*routes] == ["support"]
    assert served_by(records) == [("fallback", f"{teacher}/v1", None)] * 3
    assert [record["workload_id"] for record in records] == ["fresh"] * 3


def test_what_all_workloads_fall_back_to_does_not_answer_for_unknown_ones(tmp_path: Path):
    settings = {"fallbacks": [{"url": DEAD, "model": "x"}]}
    with gateways.running(tmp_path, settings) as gateway:
        assert gateway.ask(model="fresh").status_code == 404


def gateways_seen(url: str) -> list[dict[str, Any]]:
    requests: list[dict[str, Any]] = httpx.get(f"{url}/requests").json()["requests"]
    return requests


def test_when_nobody_answers_the_client_is_told_and_nothing_is_logged(tmp_path: Path):
    settings = {"fallbacks": ["replica", "previous", {"url": DEAD, "model": "x"}]}
    with gateways.running(tmp_path, settings, previous={"replicas": ("one",)}) as gateway:
        for is_streamed in (True, False):
            answer = gateway.ask(script(status=503, message="busy"), stream=is_streamed)
            assert answer.status_code == 502
            assert "127.0.0.1" not in answer.text
        gateway.stop()
        assert gateway.records() == []


def test_the_client_is_told_to_wait_as_long_as_the_last_who_was_asked_wants(tmp_path: Path):
    with gateways.running(tmp_path) as gateway:
        waits = [
            gateway.ask(script(status=429, retry_after=said)).headers["retry-after"]
            for said in (20, 0, "Wed, 21 Oct 2015 07:28:00 GMT", "-5", "9" * 30)
        ]
    assert waits == ["20", "1", "1", "1", "1"]


@pytest.mark.slow
def test_a_replica_that_says_nothing_is_given_up(tmp_path: Path):
    both = {"replicas": ("one", "two")}
    with gateways.running(tmp_path, engines=("one", "two"), champion=both) as gateway:
        answers = [gateway.ask(script(wait=30, only=["one"]), stream=True) for _ in range(2)]
    assert {answer.status_code for answer in answers} == {200}


def test_a_refused_request_is_not_sent_again(tmp_path: Path):
    both = {"replicas": ("one", "two")}
    with gateways.running(tmp_path, engines=("one", "two"), champion=both) as gateway:
        answer = gateway.ask(
            script(status=400, message="This model's maximum context length is 2048 tokens.")
        )
        asked = [len(gateway.seen(name)["requests"]) for name in ("one", "two")]
    assert (answer.status_code, sorted(asked)) == (400, [0, 1])
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert "2048" in answer.json()["error"]["message"]


def test_another_replica_answers_whatever_status_is_not_the_requests_fault(tmp_path: Path):
    statuses = (302, 401, 403, 405, 410, 501, 520, 529)  # 529: overloaded, as some providers say
    both = {"replicas": ("one", "two")}
    with gateways.running(tmp_path, engines=("one", "two"), champion=both) as gateway:
        answered = {
            status: {
                gateway.ask(f"{number} {script(status=status, only=['one'])}").status_code
                for number in range(2)
            }
            for status in statuses
        }
        by_nobody = gateway.ask(script(status=405)).status_code
    assert answered == {status: {200} for status in statuses}
    assert by_nobody == 502  # which says that it was not the request's fault either


def test_a_refused_key_of_the_gateways_is_not_the_clients_fault(tmp_path: Path):
    with gateways.running(tmp_path) as gateway:
        answer = gateway.ask(script(status=401, message="Incorrect API key provided: sk-abc"))
    assert answer.status_code == 502
    assert "sk-abc" not in answer.text


def test_another_servers_login_is_in_no_record_and_no_metric(tmp_path: Path):
    with gateways.scripted_engine("teacher") as teacher:
        url = f"{teacher}/v1".replace("//", "//team:sesame@")
        settings = {"fallbacks": [{"url": DEAD.replace("//", "//team:sesame@"), "model": "x"}]}
        settings["fallbacks"] += [{"url": url, "model": "gpt-x"}]
        with gateways.running(tmp_path, settings) as gateway:
            assert gateway.ask(FAILS).status_code == 200
            page = gateway.get("/metrics").text
            gateway.stop()
            (record,) = gateway.records()
        (seen,) = gateways_seen(teacher)
    assert seen["headers"]["authorization"].startswith("Basic ")
    assert "sesame" not in page + json.dumps(record)


def test_a_rule_leads_no_token_out_of_its_scope(tmp_path: Path):
    settings = {"routing": [{"workload": "support", "client": "*"}]}
    with gateways.running(tmp_path, settings) as gateway:
        token = client_tokens.add_token(
            tmp_path / "tokens.json", "app", now=datetime.now(UTC), workloads=["shop"]
        )
        header = {"authorization": f"Bearer {token}"}
        body = {"model": "shop", "messages": [{"role": "user", "content": script(say="x")}]}
        answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=body, headers=header)
        asked = gateway.seen()["requests"]
    assert (answer.status_code, asked) == (403, [])


def test_a_rule_chooses_the_workload(tmp_path: Path):
    settings = {
        "routing": [
            {"workload": "nowhere", "header": "x-request-type", "equals": "odd*"},
            {"workload": "support", "metadata": "task", "equals": "help"},
            {"workload": "support", "client": "ap?", "model": "gpt-*"},
        ]
    }
    with gateways.running(tmp_path, settings) as gateway:
        body = {"model": "other", "messages": [{"role": "user", "content": "Hi"}]}
        odd = gateway.post("/v1/chat/completions", json=body, headers={"X-Request-Type": "odd-1"})
        assert "'nowhere' does not exist" in odd.json()["error"]["message"]
        assert gateway.ask(model="other").status_code == 404
        assert gateway.ask(model="other", metadata={"task": "help"}).status_code == 200
        assert gateway.ask(model="gpt-4o").json()["model"] == "support@7"
