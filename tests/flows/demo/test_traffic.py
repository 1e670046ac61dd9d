"""The demo's files are what an application and its users would have left, the same every time."""

import gzip
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest

from components.chat import prompt
from components.schema import Answer, Json
from components.store import manifest
from flows.demo import traffic, wheels
from flows.demo.wheels import BfclRequest
from tests.support import demo_wheels


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo_wheels.build(tmp_path_factory.mktemp("wheel") / "bfcl.whl", rows=60)


@pytest.fixture(scope="module")
def written(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("traffic")
    traffic.write_traffic(wheel, folder, seed=1)
    return folder


def logs(folder: Path) -> list[dict[str, Any]]:
    """Read all log lines, in order."""
    days = sorted((folder / "logs").iterdir())
    return [json.loads(line) for day in days for line in gzip.open(day)]


def feedback(folder: Path) -> list[dict[str, Any]]:
    """Read all feedback lines, in order."""
    lines = (folder / "feedback" / "simulated.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def answer_of(line: dict[str, Any]) -> Answer:
    """Give the answer that a log line holds."""
    return prompt.read_message(line["response"]["choices"][0]["message"])


def is_wrong(line: dict[str, Any]) -> bool:
    """Tell whether a log line's answer is another than the reference in its metadata."""
    answer = answer_of(line)
    if not line["metadata"]["acceptable"]:
        return bool(answer.calls)
    (acceptable,) = line["metadata"]["acceptable"]
    if [call.name for call in answer.calls] != [acceptable["name"]]:
        return True
    given = answer.calls[0].arguments
    return any(value != wheels_value(acceptable, name) for name, value in given.items())


def wheels_value(acceptable: dict[str, Any], name: str) -> object:
    """Give the first acceptable value, as the reference would be."""
    (value, *_) = acceptable["arguments"][name]
    return [{"lat": 1.5}] if name == "where" else value


def test_equal_seeds_write_equal_bytes(written: Path, wheel: Path, tmp_path: Path):
    traffic.write_traffic(wheel, tmp_path, seed=1)
    files = [path.relative_to(written) for path in written.rglob("*") if path.is_file()]
    assert len(files) >= 2
    assert all((written / file).read_bytes() == (tmp_path / file).read_bytes() for file in files)


def test_another_seed_writes_other_traffic(written: Path, wheel: Path, tmp_path: Path):
    traffic.write_traffic(wheel, tmp_path, seed=2)
    assert logs(tmp_path) != logs(written)


def test_every_line_has_the_five_keys_and_a_response_of_its_own(written: Path):
    lines = logs(written)
    keys = {"timestamp", "workload_id", "client_id", "request", "response", "metadata"}
    assert all(line.keys() == keys for line in lines)
    assert len({line["response"]["id"] for line in lines}) == len(lines)


def test_arguments_are_logged_as_text_by_one_client_and_as_object_by_the_other(written: Path):
    kinds = {
        (line["client_id"], type(call["function"]["arguments"]))
        for line in logs(written)
        for call in line["response"]["choices"][0]["message"].get("tool_calls", [])
    }
    assert kinds == {("demo-web", str), ("demo-mobile", dict)}


def test_every_spoiled_answer_has_a_thumb_down_and_no_right_one_has(written: Path):
    down = {line["response_id"] for line in feedback(written) if line["value"] == "down"}
    spoiled = {line["response"]["id"] for line in logs(written) if is_wrong(line)}
    assert spoiled
    assert down == spoiled


def test_corrections_are_the_reference_and_only_some_have_none(written: Path):
    by_id = {line["response"]["id"]: line for line in logs(written)}
    corrections = [line for line in feedback(written) if line["kind"] == "correction"]
    down = [line for line in feedback(written) if line["value"] == "down"]
    assert 0 < len(corrections) < len(down)
    for line in corrections:
        logged = by_id[line["response_id"]]
        corrected = {"response": {"choices": [{"message": line["value"]}]}}
        assert not is_wrong({**logged, **corrected})


def test_the_simulated_users_say_that_they_are_simulated(written: Path):
    assert all(line["actor_id"].startswith("simulated-user-") for line in feedback(written))


def test_some_requests_were_sent_twice(written: Path):
    requests = [json.dumps(line["request"]) for line in logs(written)]
    assert len(set(requests)) < len(requests)


def test_calls_and_requests_that_no_tool_fits_are_drawn_as_they_come(wheel: Path):
    chosen = traffic.choose_requests(wheels.read_requests(wheel), seed=0)[:20]
    assert len(chosen) == 20
    assert 0 < sum(request.call is None for request in chosen) < 20


def test_few_requests_offer_the_same_tools(wheel: Path):
    request = next(one for one in wheels.read_requests(wheel) if not is_held_out(one))
    alike = [replace(request, id=str(number)) for number in range(9)]
    assert len(traffic.choose_requests(alike, seed=0)) == traffic.MAX_ALIKE


def test_long_requests_are_not_drawn(wheel: Path):
    request = next(iter(wheels.read_requests(wheel)))
    words = BfclRequest(
        request.id, [{"role": "user", "content": "x" * 999}], request.tools, None, None
    )
    assert traffic.is_short(request, traffic.MAX_PROMPT)
    assert not traffic.is_short(words, traffic.MAX_PROMPT)
    assert words not in traffic.choose_requests([request, words], seed=0)


def test_what_is_to_be_held_out_was_in_no_earlier_demo_in_no_words_like_it(wheel: Path):
    (request, *_) = wheels.read_requests(wheel)
    made = [offering(request, number) for number in range(3000)]
    used = {one.id for one in traffic_of_an_earlier_version(made)}
    chosen = traffic.choose_requests(made, seed=0)
    held_out = [one for one in chosen if is_held_out(one)]
    assert len(held_out) > 20
    assert used.isdisjoint(one.id for one in held_out)
    seen = {asked(one) for one in made if one.id in used}
    assert seen.isdisjoint(map(asked, held_out))
    assert used.intersection(one.id for one in chosen), "the rest may be trained on"


@pytest.mark.slow
def test_what_was_held_out_by_the_version_before_is_held_out_no_more(wheel: Path):
    made = [saying(one, f"only {one.id} asks this") for one in distinct(wheel, 400)]
    held_out = [one for one in made if is_held_out(one)]
    assert len(held_out) > 100
    assert not any(one in traffic.choose_requests(made, seed=0) for one in held_out)


def test_what_an_earlier_demo_asked_is_not_held_out_in_other_words(wheel: Path):
    asking = "please tell me soon how warm place {} will be".format
    used = [saying(one, asking(one.id)) for one in distinct(wheel, 400)]
    # So long that no earlier version took them.
    new = [described(replace(one, id=f"new_{one.id}"), "d" * 600) for one in used]
    again = [
        saying(one, f"{asking(old.id)} in the night") for old, one in zip(used, new, strict=True)
    ]
    fresh = [saying(one, f"what does number {one.id} cost us to run") for one in new]
    assert not any(is_held_out(one) for one in traffic.choose_requests([*used, *again], seed=0))
    held_out = {
        one.id for one in traffic.choose_requests([*used, *fresh], seed=0) if is_held_out(one)
    }
    assert held_out == {one.id for one in fresh if is_held_out(one)}


def described(request: BfclRequest, text: str) -> BfclRequest:
    """Let the first tool have a longer description."""
    (tool, *others) = request.tools
    function = {**cast("dict[str, Json]", tool["function"]), "description": text}
    return replace(request, tools=[{**tool, "function": function}, *others])


def distinct(wheel: Path, count: int) -> list[BfclRequest]:
    """Make requests that share no tool."""
    (request, *_) = wheels.read_requests(wheel)
    return [offering(request, 3 * number) for number in range(count)]


def saying(request: BfclRequest, text: str) -> BfclRequest:
    return replace(request, messages=[{"role": "user", "content": text}])


def is_held_out(request: BfclRequest) -> bool:
    return traffic.is_held_out(request, traffic.HOLDOUT_SHARE)


def offering(request: BfclRequest, number: int) -> BfclRequest:
    """Make a request, some of whose words and tools others have, too."""
    tools = [
        {"type": "function", "function": {"name": f"f{one}", "description": "", "parameters": {}}}
        for one in {number, number - number % 3}
    ]
    messages: list[dict[str, Json]] = [{"role": "user", "content": f"Ask {number % 2500}"}]
    return replace(request, id=f"made_{number}", messages=messages, tools=tools, call=None)


def asked(request: BfclRequest) -> str:
    return str(request.messages[0]["content"])


def traffic_of_an_earlier_version(requests: list[BfclRequest]) -> list[BfclRequest]:
    """Choose as the version before this one did: the first 680, few of which offer the same."""
    chosen: list[BfclRequest] = []
    alike: Counter[tuple[str, ...]] = Counter()
    for request in sorted(requests, key=lambda one: manifest.digest([0, one.id])):
        if len(chosen) < 680 and alike[request.tool_names] < 4:
            chosen.append(request)
            alike[request.tool_names] += 1
    return chosen


@pytest.mark.parametrize("seed", range(20))
def test_a_spoiled_answer_is_never_the_right_one(wheel: Path, seed: int):
    draw = Random(seed)
    request = draw.choice(wheels.read_requests(wheel))
    assert traffic.spoil_answer(request, draw) != traffic.right_answer(request)
