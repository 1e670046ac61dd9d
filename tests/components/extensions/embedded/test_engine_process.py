"""The engine's HTTP: what vLLM's clients send and read, and what it refuses."""

import asyncio
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.support import lora_adapters, tiny
from tests.support.embedded_engine import EngineProcess, running

PROMPT = "Which intent? I lost my card"
TOKENS = tiny.tokenizer().encode(PROMPT)


@pytest.fixture(scope="module")
def served(
    tiny_base: Path, adapters: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Generator[EngineProcess]:
    folder = tmp_path_factory.mktemp("engine")
    with running(tiny_base, folder, "--slots", "4", "--queue", "4") as engine:
        for name in ("first", "second", "rank-8"):
            engine.load(name, adapters[name])
        yield engine


def test_an_adapters_answer_is_that_of_transformers(
    served: EngineProcess, tiny_base: Path, adapters: dict[str, Path]
) -> None:
    alone = lora_adapters.load(tiny_base, adapters["first"])
    expected = lora_adapters.generate(alone, TOKENS, 16)
    answer = served.complete("first", PROMPT, ignore_eos=True, logprobs=0)
    choice = answer["choices"][0]
    tokens = [tiny.tokenizer().decode([token]) for token in expected]
    assert choice["logprobs"]["tokens"] == tokens
    text = str(tiny.tokenizer().decode(expected, skip_special_tokens=True))
    assert choice["text"] == text.rstrip("\ufffd")
    assert answer["model"] == "first"
    assert choice["finish_reason"] == "length"
    assert answer["usage"] == {
        "prompt_tokens": len(TOKENS),
        "completion_tokens": 16,
        "total_tokens": len(TOKENS) + 16,
    }


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="greedy"),
        pytest.param({"temperature": 1.0, "seed": 7}, id="sampled"),
        pytest.param({"temperature": 0.8, "top_p": 0.7, "seed": 7, "logprobs": 2}, id="logprobs"),
        pytest.param({"temperature": 1.3, "seed": 3, "stop": ["a", "e"]}, id="stops"),
        pytest.param({"echo": True, "logprobs": 0}, id="echo"),
    ],
)
def test_a_streamed_answer_is_the_whole_one(served: EngineProcess, fields: dict[str, Any]) -> None:
    whole = served.complete("second", PROMPT, max_tokens=40, **fields)
    counted = {"stream_options": {"include_usage": True}}
    *chunks, last = served.stream("second", PROMPT, max_tokens=40, **fields, **counted)
    assert last["usage"] == whole["usage"]
    choice = whole["choices"][0]
    pieces = [chunk["choices"][0] for chunk in chunks]
    assert "".join(piece["text"] for piece in pieces) == choice["text"]
    assert [piece["finish_reason"] for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert pieces[-1]["finish_reason"] == choice["finish_reason"]
    if "logprobs" in fields:
        for key, values in choice["logprobs"].items():
            assert [v for piece in pieces for v in piece["logprobs"][key]] == values


def test_a_seed_answers_alike_beside_other_requests(served: EngineProcess) -> None:
    sampled = {"temperature": 1.2, "seed": 11, "max_tokens": 30}
    alone = served.text("first", PROMPT, **sampled)
    with ThreadPoolExecutor(6) as pool:
        others = [
            pool.submit(served.text, name, f"{PROMPT} {n}", temperature=1.0, max_tokens=20)
            for n, name in enumerate(("second", "base", "rank-8"))
        ]
        again = [pool.submit(served.text, "first", PROMPT, **sampled) for _ in range(2)]
        assert {answer.result() for answer in again} == {alone}
        assert all(other.result() is not None for other in others)
    assert served.text("first", PROMPT, **sampled | {"seed": 12}) != alone


def test_a_prompts_log_probabilities_are_those_of_transformers(
    served: EngineProcess, tiny_base: Path, adapters: dict[str, Path]
) -> None:
    alone = lora_adapters.load(tiny_base, adapters["rank-8"])
    expected = lora_adapters.logprobs(alone, TOKENS).tolist()
    first, *rest = served.complete("rank-8", TOKENS, max_tokens=1, prompt_logprobs=0)["choices"][0][
        "prompt_logprobs"
    ]
    assert first is None
    scored = [entry[str(token)]["logprob"] for entry, token in zip(rest, TOKENS[1:], strict=True)]
    assert scored == pytest.approx(expected, abs=1e-4)
    echoed = served.complete("rank-8", TOKENS, max_tokens=0, echo=True, logprobs=1)
    choice = echoed["choices"][0]
    assert choice["text"] == PROMPT
    assert choice["logprobs"]["token_logprobs"][1:] == pytest.approx(expected, abs=1e-4)
    assert choice["logprobs"]["text_offset"] == list(range(len(PROMPT)))


def test_answers_match_their_grammar(served: EngineProcess) -> None:
    lark = 'start: "yes" | "no"'
    for outputs, fits in (
        ({"choice": ["card_lost", "card_stolen"]}, {"card_lost", "card_stolen"}),
        ({"grammar": lark}, {"yes", "no"}),
    ):
        for fields in ({}, {"temperature": 2.0, "seed": 1}):
            answer = served.complete("first", PROMPT, structured_outputs=outputs, **fields)
            assert answer["choices"][0]["text"] in fits
            assert answer["choices"][0]["finish_reason"] == "stop"
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"]}
    text = served.text(
        "first",
        PROMPT,
        structured_outputs={"json": schema | {"additionalProperties": False}},
        temperature=1.0,
        seed=2,
        max_tokens=200,
    )
    assert json.loads(text)["n"] in (1, 2)


def test_a_closed_connection_cancels_its_request(served: EngineProcess) -> None:
    before = served.metric("embedded_answers_total")
    stream = served.stream("first", PROMPT, max_tokens=1900, ignore_eos=True)
    next(stream)
    assert served.metric("embedded_requests_running") == 1
    stream.close()
    served.wait_for("embedded_requests_running", 0)
    with pytest.raises(httpx.ReadTimeout):
        served.http.post(
            "/v1/completions",
            json={"model": "first", "prompt": "x", "max_tokens": 1900, "ignore_eos": True},
            timeout=0.3,
        )
    served.wait_for("embedded_requests_running", 0)
    assert served.metric("embedded_answers_total") == before


def test_more_requests_than_there_is_room_for_are_refused(served: EngineProcess) -> None:
    body = {"model": "base", "prompt": "x", "max_tokens": 1500, "ignore_eos": True}

    async def ask() -> list[httpx.Response | BaseException]:
        transport = httpx.AsyncHTTPTransport(uds=str(served.socket))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://engine", timeout=60
        ) as client:
            tasks = [
                asyncio.ensure_future(client.post("/v1/completions", json=body)) for _ in range(10)
            ]
            async with asyncio.timeout(30):
                while sum(task.done() for task in tasks) < 2:
                    await asyncio.sleep(0.01)
            done = [task for task in tasks if task.done()]
            assert len(done) == 2, [task.result().text for task in done]
            open_ = [task for task in tasks if not task.done()]
            for task in open_:
                task.cancel()
            await asyncio.gather(*open_, return_exceptions=True)
            return [task.result() for task in done]

    for refused in asyncio.run(ask()):
        assert isinstance(refused, httpx.Response)
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert "8 requests" in refused.json()["error"]["message"]
    served.wait_for("embedded_requests_running", 0)
    served.wait_for("embedded_requests_waiting", 0)
    assert served.text("base", "x", max_tokens=1) is not None


def test_one_users_requests_leave_room_for_another_users(served: EngineProcess) -> None:
    long = {"max_tokens": 1900, "ignore_eos": True, "user": "crowd"}
    with ExitStack() as stack:
        for _ in range(4):
            next(stack.enter_context(closing(served.stream("base", PROMPT, **long))))
        body = {"model": "base", "prompt": PROMPT, **long}
        refused = served.http.post("/v1/completions", json=body)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert "4 requests of this user are running" in refused.json()["error"]["message"]
        assert len(served.complete("base", PROMPT, max_tokens=2, user="shop")["choices"]) == 1
        assert served.metric("embedded_requests_running") == 4  # so it waited for none of them
    served.wait_for("embedded_requests_running", 0)


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        pytest.param({"model": "nobody"}, 404, "`nobody` does not exist", id="unknown-model"),
        pytest.param({"prompt": ""}, 400, "the prompt is empty", id="empty"),
        pytest.param({"prompt": []}, 400, "expected one prompt, found a list of 0", id="no-prompt"),
        pytest.param({"prompt": ["a", "b"]}, 400, "found a list of 2", id="two-prompts"),
        pytest.param({"prompt": [99999]}, 400, "token id 99999 is out of the", id="token-id"),
        pytest.param({"prompt": [-1]}, 400, "prompt", id="negative-token"),
        pytest.param(
            {"max_tokens": 3000},
            400,
            r"maximum context length is 2048 tokens. However, you requested 3001 tokens "
            r"\(1 in the prompt, 3000 in the completion\)",
            id="context",
        ),
        pytest.param({"prompt": "x" * 2048, "max_tokens": None}, 400, "2049", id="full"),
        pytest.param(
            {"prompt": "x " * 100_000},
            400,
            "at most 32768 bytes of text. However, the prompt has 200000",
            id="far-too-long",
        ),
        pytest.param({"stop": ["a"] * 65}, 400, "`stop` has 65 texts; at most 64", id="stops"),
        pytest.param({"repetition_penalty": 1e-300}, 400, "repetition_penalty", id="penalty"),
        pytest.param(
            {"structured_outputs": {"grammar": "x" * 4_000_001}}, 400, "grammar", id="long-grammar"
        ),
        pytest.param({"n": 2}, 400, "n: Input should be 1", id="n"),
        pytest.param({"top_k": 5}, 400, "top_k", id="top-k"),
        pytest.param({"logit_bias": {"5": 1}}, 400, "logit_bias", id="logit-bias"),
        pytest.param({"temperature": -1}, 400, "temperature", id="temperature"),
        pytest.param({"logprobs": 21}, 400, "logprobs", id="logprobs"),
        pytest.param({"prompt_logprobs": 0, "stream": True}, 400, "not available", id="stream"),
        pytest.param({"structured_outputs": {}}, 400, "exactly one of", id="no-grammar"),
        pytest.param(
            {"structured_outputs": {"grammar": "start: ("}}, 400, "grammar", id="bad-grammar"
        ),
        pytest.param(
            {"structured_outputs": {"json": {"minimum": 5, "maximum": 1, "type": "integer"}}},
            400,
            "constraining",
            id="bad-schema",
        ),
        pytest.param(b"{", 400, "is not JSON", id="no-json"),
        pytest.param(b'{"temperature": NaN}', 400, "is not JSON", id="nan"),
        pytest.param(b'{"prompt": "\\ud800"}', 400, "is not JSON", id="half-a-character"),
        pytest.param(b"[1]", 400, "expected a JSON object, found list", id="no-object"),
        pytest.param(b"[" * 100_000, 400, "is not JSON", id="deep"),
        pytest.param(b" " * (16 * 2**20 + 1), 413, "longer than", id="too-long"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_the_reason(
    served: EngineProcess, body: object, status: int, reason: str
) -> None:
    if isinstance(body, dict):
        body = {"model": "base", "prompt": "x", "max_tokens": 1} | body
    refused, error = served.refusal("/v1/completions", body)
    assert (refused, error["code"]) == (status, status)
    assert re.search(reason, error["message"]), error


def test_a_prompt_with_many_errors_is_refused_at_once(served: EngineProcess) -> None:
    process = psutil.Process(served.process.pid)
    before = process.cpu_times().user
    for prompt in ([1] * 1_000_000 + [-1], ["a"] * 1_000_000 + [1]):
        assert served.refusal("/v1/completions", {"model": "base", "prompt": prompt})[0] == 400
    assert process.cpu_times().user - before < 4


def test_fields_that_change_nothing_are_taken(served: EngineProcess) -> None:
    neutral = {"n": 1, "presence_penalty": 0.0, "top_k": -1, "logit_bias": {}, "user": "u"}
    assert served.text("base", PROMPT, **neutral) == served.text("base", PROMPT)


def test_adapters_come_and_go_while_others_answer(
    served: EngineProcess, tiny_base: Path, adapters: dict[str, Path]
) -> None:
    texts = {name: served.text(name, PROMPT) for name in ("first", "second", "base")}
    stop = threading.Event()
    wrong: list[str] = []

    def ask(name: str) -> int:
        count = 0
        while not stop.is_set():
            if served.text(name, PROMPT) != texts[name]:
                wrong.append(name)
            count += 1
        return count

    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask, name) for name in texts]
        for kind in ("third", "rslora", "one-layer", "patterns"):
            served.load(f"{kind}.v1", adapters[kind])
            listed = served.http.get("/v1/models").json()["data"]
            [entry] = [model for model in listed if model["id"] == f"{kind}.v1"]
            assert (entry["root"], entry["parent"]) == (str(adapters[kind]), "base")
            alone = lora_adapters.load(tiny_base, adapters[kind])
            expected = lora_adapters.generate(alone, TOKENS, 5)
            tokens = served.complete(
                f"{kind}.v1", PROMPT, max_tokens=5, ignore_eos=True, logprobs=0
            )["choices"][0]["logprobs"]["tokens"]
            assert tokens == [tiny.tokenizer().decode([token]) for token in expected]
            body = {"lora_name": f"{kind}.v1"}
            assert served.http.post("/v1/unload_lora_adapter", json=body).status_code == 200
            assert (
                served.refusal("/v1/completions", {"model": f"{kind}.v1", "prompt": "x"})[0] == 404
            )
        stop.set()
        assert all(asked.result() > 0 for asked in asking)
    assert not wrong


def test_adapters_that_cannot_be_loaded_are_refused(
    served: EngineProcess, adapters: dict[str, Path], tmp_path: Path
) -> None:
    def load(name: str, path: object) -> tuple[int, str]:
        body = {"lora_name": name, "lora_path": str(path)}
        status, error = served.refusal("/v1/load_lora_adapter", body)
        return status, error["message"]

    status, message = load("first", adapters["third"])
    assert status == 400
    assert "has already been loaded" in message
    status, message = load("base", adapters["third"])
    assert status == 400
    assert "has already been loaded" in message
    status, message = load("new", tmp_path / "nowhere")
    assert status == 404
    assert "No adapter found" in message
    status, message = load("new", "/" + "x" * 5000)
    assert status == 400
    assert "File name too long" in message
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "use_dora": true}')
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    status, message = load("new", tmp_path)
    assert status == 400
    assert "LoRA with use_dora" in message
    assert served.refusal("/v1/load_lora_adapter", {"lora_name": "new"})[0] == 400
    assert served.refusal("/v1/unload_lora_adapter", {"lora_name": "new"})[0] == 404
    for number in range(5):
        served.load(f"more-{number}", adapters["third"])
    status, message = load("more-5", adapters["third"])
    assert status == 400
    assert "8 adapters are loaded" in message
    for number in range(5):
        body = {"lora_name": f"more-{number}"}
        assert served.http.post("/v1/unload_lora_adapter", json=body).status_code == 200


def test_an_adapter_that_was_unloaded_meanwhile_leaves_no_stored_prefix(
    served: EngineProcess, adapters: dict[str, Path]
) -> None:
    before = served.metric("embedded_stored_prefix_bytes")
    for name in ("one-name", "another-name"):  # of the same files, so of the same stored prefixes
        served.load(name, adapters["third"])
    stream = served.stream("one-name", PROMPT, max_tokens=1900, ignore_eos=True)
    next(stream)
    assert served.metric("embedded_stored_prefix_bytes") > before
    for name in ("one-name", "another-name"):
        body = {"lora_name": name}
        assert served.http.post("/v1/unload_lora_adapter", json=body).status_code == 200
    stream.close()
    served.wait_for("embedded_requests_running", 0)
    assert served.metric("embedded_stored_prefix_bytes") == before


def test_its_state_can_be_watched(served: EngineProcess) -> None:
    assert served.http.get("/version").json()["engine"] == "embedded"
    started = psutil.Process(served.process.pid).create_time()
    assert math.isclose(served.metric("process_start_time_seconds"), started, abs_tol=2)
    before = served.metric("embedded_answer_tokens_total")
    served.complete("base", PROMPT, max_tokens=7, ignore_eos=True)
    assert served.metric("embedded_answer_tokens_total") == before + 7
    assert served.http.get("/nowhere").json()["error"]["code"] == 404
    base = served.http.get("/v1/models").json()["data"][0]
    assert (base["id"], base["parent"]) == ("base", None)


@pytest.mark.slow
def test_sigterm_answers_open_requests_and_leaves_nothing(tiny_base: Path, tmp_path: Path) -> None:
    with running(tiny_base, tmp_path) as engine:
        stream = engine.stream("base", PROMPT, max_tokens=500, ignore_eos=True)
        chunks = [next(stream)]
        engine.process.send_signal(signal.SIGTERM)
        chunks += stream
        assert chunks[-1]["choices"][0]["finish_reason"] == "length"
        assert engine.process.wait(30) == 0
        assert not engine.socket.exists()


CHILD = """
import os, subprocess, sys, time
options = [*sys.argv[1:], "--die-with-parent", str(os.getpid())]
child = subprocess.Popen([sys.executable, "-m", "components.extensions.embedded", *options])
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [None, 0.0, 0.05, 1.0])  # importing, starting, and after
def test_it_ends_when_its_parent_was_killed(
    tiny_base: Path, tmp_path: Path, seconds: float | None
) -> None:
    options = ["--base", str(tiny_base), "--listen", "127.0.0.1:0"]
    with (tmp_path / "log").open("wb") as log:
        parent = subprocess.Popen(
            [sys.executable, "-c", CHILD, *options], stdout=subprocess.PIPE, stderr=log
        )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    if seconds is not None:
        assert b"listening on 127.0.0.1:" in parent.stdout.readline()
        assert os.getpgid(child.pid)
        time.sleep(seconds)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + (20 if seconds is not None else 60)  # torch is imported first
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.1)
