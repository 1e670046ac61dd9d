"""What an answer may be reaches the engine as a grammar."""

import asyncio
import json
import tracemalloc
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import pytest

from components.chat import answer_grammar
from components.schema import Json
from components.serve import chat_request
from components.serve.request_grammars import RequestGrammars
from components.serve.settings import WorkloadServing
from tests.support import gateways, tiny
from tests.support.gateways import RunningGateway, script

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "weather", "parameters": PARAMETERS},
}
RECORD = {"type": "object", "propertyNames": {"type": "string"}}  # as zod's `z.record`
SET = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}  # as Python's `set[str]`


def tool_of(a: Any, b: Any) -> dict[str, Any]:
    # The last property has the name of a keyword.
    parameters = {"type": "object", "properties": {"a": a, "b": b, "not": {"type": "string"}}}
    return {"type": "function", "function": {"name": "x", "parameters": parameters}}


NO_GRAMMAR = tool_of(RECORD, SET)
LOOSER = tool_of({"type": "object"}, {"type": "array", "items": {"type": "string"}})
LABELS = ("card", "loan")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningGateway]:
    champion = {"constrained": True, "labels": LABELS}
    with gateways.running(tmp_path_factory.mktemp("labels"), champion=champion) as running:
        yield running


def grammar(gateway: RunningGateway, **request: Any) -> str | None:
    """Ask; return the grammar that the engine was sent."""
    answer = gateway.ask(script(say="x"), **request)
    assert answer.status_code == 200, answer.text
    sent = gateway.seen()["requests"][-1]["body"]
    return sent.get("structured_outputs", {}).get("grammar")


def test_answers_are_held_to_the_labels_of_the_evaluation(classifier: RunningGateway):
    assert grammar(classifier) == answer_grammar.of_labels(LABELS)


def test_a_request_that_may_not_call_is_one_without_tools(classifier: RunningGateway):
    assert grammar(classifier, tools=[TOOL], tool_choice="none") == grammar(classifier)


def test_calls_are_held_to_the_offered_tools_as_in_the_evaluation(classifier: RunningGateway):
    assert grammar(classifier, tools=[TOOL]) == answer_grammar.of_request("written", [TOOL])


def test_calls_whose_schema_is_no_grammar_are_free_as_in_the_evaluation(
    classifier: RunningGateway,
):
    assert grammar(classifier, tools=[NO_GRAMMAR]) is None
    assert grammar(classifier, tools=[NO_GRAMMAR]) is None


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "x"}}])
def test_a_call_that_must_come_is_held_to_what_of_its_schema_is_a_grammar(
    classifier: RunningGateway, choice: Any
):
    sent = grammar(classifier, tools=[NO_GRAMMAR], tool_choice=choice)
    assert sent == answer_grammar.of_request("written", [LOOSER], choice)


KINDS = [{"type": "object", "properties": {name: {"type": "integer"}}} for name in "ab"]
UNION = {"oneOf": KINDS}  # that only one may match can't be seen, as in Pydantic's with `$ref`
DECIMAL = {"type": "string", "pattern": r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"}  # as Pydantic 2.10's
CODE = {"type": "string", "pattern": "^[A-Z]{2}$"}


@pytest.mark.parametrize(
    ("given", "looser"),
    [
        pytest.param(UNION, {"anyOf": KINDS}, id="union"),
        pytest.param(DECIMAL, {"type": "string"}, id="decimal"),
    ],
)
def test_unions_and_decimals_of_pydantic_can_be_asked_for(
    classifier: RunningGateway, given: Any, looser: Any
):
    asked, held = (
        {
            "type": "json_schema",
            "json_schema": {"schema": tool_of(each, CODE)["function"]["parameters"]},
        }
        for each in (given, looser)
    )
    sent = grammar(classifier, response_format=asked)
    assert sent == answer_grammar.of_request("written", [], None, cast("Json", held))
    called = grammar(classifier, tools=[tool_of(given, CODE)], tool_choice="required")
    assert called == answer_grammar.of_request("written", [tool_of(looser, CODE)], "required")


def test_json_is_held_to_what_of_its_schema_is_a_grammar(classifier: RunningGateway):
    asked, looser = (
        {"type": "json_schema", "json_schema": {"schema": tool["function"]["parameters"]}}
        for tool in (NO_GRAMMAR, LOOSER)
    )
    sent = grammar(classifier, response_format=asked)
    assert sent == answer_grammar.of_request("written", [], None, cast("Json", looser))


def test_a_schema_that_nothing_could_be_is_refused_where_it_is_asked_for(
    classifier: RunningGateway,
):
    nothing = {"type": "string", "minLength": 5, "maxLength": 2}
    parameters = {"type": "object", "properties": {"not": nothing}, "required": ["not"]}
    tool = {"type": "function", "function": {"name": "x", "parameters": parameters}}
    refused = classifier.ask("Hi", tools=[tool], tool_choice="required")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "tools")
    assert "change the schema" in refused.json()["error"]["message"]


def test_a_version_that_was_measured_free_answers_freely(gateway: RunningGateway):
    assert grammar(gateway) is None
    assert grammar(gateway, tools=[TOOL]) is None
    assert grammar(gateway, tools=[TOOL], tool_choice="required") is not None


@pytest.mark.parametrize(
    ("labels", "expected"),
    [([], None), (["yes", "no"], answer_grammar.of_labels(("yes", "no")))],
    ids=["free", "other-labels"],
)
def test_the_file_says_otherwise(tmp_path: Path, labels: list[str], expected: str | None):
    own = {"labels": labels, "constrained": False}
    champion = {"constrained": True, "labels": LABELS}
    settings = {"workloads": {"support": own}}
    with gateways.running(tmp_path, settings, champion=champion) as running:
        assert grammar(running) == expected
        assert grammar(running, tools=[TOOL]) is None


def test_long_descriptions_of_many_clients_do_not_stay_in_memory(tmp_path: Path):
    tiny.tokenizer().save_pretrained(tmp_path)
    served, own = gateways.served(tmp_path, constrained=True), WorkloadServing()

    async def constrain() -> None:
        grammars = RequestGrammars()
        for number in range(20):
            function = {**TOOL["function"], "description": f"{number} {'x' * 2**20}"}
            body = {"messages": [{"role": "user", "content": "Hi"}], "model": "support"}
            body |= {"tools": [{"type": "function", "function": function}]}
            request = chat_request.read_chat(json.dumps(body).encode())
            assert await grammars.of_request("shop", request, own, served, "written") is not None
        held.append(tracemalloc.get_traced_memory()[0])
        await grammars.close()

    held = list[int]()
    tracemalloc.start()
    asyncio.run(constrain())
    tracemalloc.stop()
    assert held[0] < 10 * 2**20  # of 20 MiB that were sent, the last one's
