"""Constrained answers of random models: every call fits, and text that calls nothing is free."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator

from components.chat import answer_grammar, dialects
from components.chat.dialects import Dialect
from components.models import constrained
from components.models.constrained import GrammarMasks, Matcher, Vocabulary
from components.schema import Json
from tests.support import tiny

TOKENIZER = cast("Any", tiny.tokenizer())  # its methods return unions
END: int = TOKENIZER.eos_token_id
VOCABULARY = Vocabulary(TOKENIZER, len(TOKENIZER) + 5)
FORMS: st.SearchStrategy[Dialect] = st.sampled_from(["written", "hermes", "llama3"])

STRINGS: st.SearchStrategy[Json] = st.sampled_from(
    [
        {"type": "string"},
        {"type": "string", "maxLength": 3, "minLength": 1},
        {"type": "string", "pattern": "^a[0-9]{1,3}$"},
        {"type": "string", "format": "date"},
        {"enum": ["x", 'quo"te', "é\n", 5, None, {"a": [1]}]},
        {"const": "{"},
    ]
)
NUMBERS: st.SearchStrategy[Json] = st.sampled_from(
    [
        {"type": "integer", "minimum": -3, "maximum": 40},
        {"type": "number", "exclusiveMinimum": 0},
        {"type": ["boolean", "null"]},
        {"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": 2}]},
    ]
)
NAMES = st.sampled_from(["a", "b", "name", "arguments", 'k"\\', "é{}", "c d"])


@st.composite
def objects(draw: st.DrawFn, values: st.SearchStrategy[Json]) -> dict[str, Json]:
    """Return schemas of objects."""
    properties = draw(st.dictionaries(NAMES, values, min_size=1, max_size=3))
    required: list[Json] = [*draw(st.lists(st.sampled_from([*properties]), unique=True))]
    more: Json = draw(st.sampled_from([None, False, {"type": "integer"}]))
    extra: dict[str, Json] = {} if more is None else {"additionalProperties": more}
    return {"type": "object", "properties": properties, "required": required, **extra}


def arrays(values: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    """Return schemas of arrays."""

    def array(items: Json, least: int) -> Json:
        return {"type": "array", "items": items, "minItems": least, "maxItems": 3}

    return st.builds(array, values, st.integers(0, 2))


SCHEMAS = objects(st.recursive(STRINGS | NUMBERS, lambda v: objects(v) | arrays(v), max_leaves=3))


def grammar_of(
    form: Dialect,
    tools: Sequence[Mapping[str, Json]],
    tool_choice: Json = None,
    response_format: Json = None,
) -> str:
    """Return the grammar of a request that has one."""
    grammar = answer_grammar.of_request(form, tools, tool_choice, response_format)
    assert grammar is not None
    return grammar


def answer_at_random(grammar: str, seed: int, most: int = 600) -> tuple[str, bool]:
    """Return what a model of random logits writes, and whether it came to an end."""
    draw = np.random.default_rng(seed)
    # Else it would write strings for ever.
    likelier = [*TOKENIZER.convert_tokens_to_ids(['"', "}", "]"]), END]
    matcher = VOCABULARY.start(grammar)
    tokens: list[int] = []
    while len(tokens) < most and not matcher.is_over:
        logits = torch.from_numpy(draw.normal(size=(1, VOCABULARY.n_vocab)))
        logits[0, likelier] += 5
        tokens += constrained.greedy(logits, [matcher])
    assert matcher.problem is None
    return TOKENIZER.decode(tokens[:-1] if matcher.is_over else tokens), matcher.is_over


def tool(name: str, parameters: Json) -> dict[str, Json]:
    """Return an OpenAI tool."""
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


PATIENT = settings(deadline=None, suppress_health_check=cast("list[HealthCheck]", [*HealthCheck]))


@pytest.mark.slow
@PATIENT
@given(schemas=st.lists(SCHEMAS, min_size=1, max_size=2), form=FORMS, seed=st.integers(0, 10**6))
def test_every_finished_call_of_a_random_model_fits_its_schema(
    schemas: list[dict[str, Json]], form: Dialect, seed: int
):
    tools = [tool(f"tool {number}", schema) for number, schema in enumerate(schemas)]
    text, is_over = answer_at_random(grammar_of(form, tools, "required"), seed)
    assume(is_over)
    calls = dialects.read_answer(form, text, offers_tools=True).calls
    assert calls
    assert dialects.answer_problem(form, text) is None
    for call in calls:
        Draft202012Validator(schemas[int(call.name.removeprefix("tool "))]).validate(call.arguments)


@PATIENT
@given(schema=SCHEMAS, seed=st.integers(0, 10**6))
def test_every_finished_answer_of_a_random_model_fits_its_response_format(
    schema: dict[str, Json], seed: int
):
    asked: Json = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    text, is_over = answer_at_random(grammar_of("written", [], None, asked), seed)
    assume(is_over)
    Draft202012Validator(schema).validate(json.loads(text))


PARAMETERS: dict[str, Json] = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
}
GRAMMARS: dict[Dialect, str] = {
    form: grammar_of(form, [tool("get", PARAMETERS)]) for form in ("written", "hermes", "llama3")
}
PIECES = st.sampled_from(
    [
        *(
            '{"name": "get", "',
            '{"name": "',
            '{"arguments": {',
            '"arguments": {"a": 1}',
            '{"a": 1}',
        ),
        *(
            '"parameters": {"a": 1}',
            "{",
            "}",
            '"',
            ", ",
            ": ",
            '"name": "bad"',
            "get",
            "text",
            "[",
            "]",
        ),
        *('\\"', "\\u0061rguments", '{"name": "get", "arguments": {"a": 1}}', "\n", " ", "a", "1"),
        *("<tool_call>", "</tool_call>", "<|python_tag|>", "<think>", "</think>", '"x": '),
        '{"name": "bad", "arguments": {"a": 1}}',
    ]
)


def follow(form: Dialect, text: str) -> bool:
    """Return whether the grammar lets a whole text be written, and end there."""
    matcher = VOCABULARY.start(GRAMMARS[form])
    for token in TOKENIZER.encode(text, add_special_tokens=False):
        if not matcher.allows(token):
            return False
        matcher.consume(token)
    return matcher.may_end


@PATIENT
@given(pieces=st.lists(PIECES, max_size=9), form=FORMS)
def test_whatever_the_grammar_lets_pass_is_read_as_calls_that_fit(pieces: list[str], form: Dialect):
    text = "".join(pieces)
    assume(follow(form, text))
    for call in dialects.read_answer(form, text, offers_tools=True).calls:
        assert call.name == "get"
        Draft202012Validator(PARAMETERS).validate(call.arguments)


SIGNS = ('"name"', "arguments", "parameters", "tool_call>", "python_tag", "<think>", "\\u0061")


@PATIENT
@given(text=st.lists(PIECES | st.text(max_size=8), max_size=9).map("".join), form=FORMS)
def test_text_without_any_sign_of_a_call_is_free(text: str, form: Dialect):
    assume(not any(sign in text for sign in (*SIGNS, *tiny.SPECIAL)))
    assert follow(form, text)


def test_bytes_that_are_no_text_are_free():
    matcher = VOCABULARY.start(GRAMMARS["hermes"])
    for token in TOKENIZER.encode("é", add_special_tokens=False)[:1] * 3:
        assert matcher.allows(token)
        matcher.consume(token)
    assert matcher.may_end


def test_rows_without_a_matcher_stay_and_the_others_keep_what_may_come():
    grammar = answer_grammar.of_labels(["ab", "cd"])
    logits = torch.randn(3, VOCABULARY.n_vocab)
    masked = logits.clone()
    constrained.apply(masked, [None, VOCABULARY.start(grammar), None])
    assert torch.equal(masked[[0, 2]], logits[[0, 2]])
    allowed = TOKENIZER.convert_tokens_to_ids(["a", "c"])
    assert masked[1].isfinite().nonzero().flatten().tolist() == sorted(allowed)
    assert torch.equal(masked[1, allowed], logits[1, allowed])


@pytest.mark.parametrize("seed", range(5))
def test_the_likeliest_token_is_the_one_that_masks_leave(seed: int):
    draw = np.random.default_rng(seed)
    by_masks, by_choice = (VOCABULARY.start(GRAMMARS["written"]) for _ in range(2))
    for token in TOKENIZER.encode('{"name": "', add_special_tokens=False):
        by_masks.consume(token)
        by_choice.consume(token)
    for _ in range(40):
        logits = torch.from_numpy(draw.normal(size=(1, VOCABULARY.n_vocab)))
        (token,) = constrained.greedy(logits.clone(), [by_choice])
        constrained.apply(logits, [by_masks])
        assert int(logits.argmax()) == token
        by_masks.consume(token)
        if by_masks.is_over:
            return


def test_the_end_may_come_only_where_the_grammar_ends_and_nothing_comes_after_it():
    matcher = VOCABULARY.start(answer_grammar.of_labels(["ab"]))
    (a, b) = TOKENIZER.encode("ab", add_special_tokens=False)
    matcher.consume(a)
    assert not matcher.allows(END)
    matcher.consume(b)
    assert [matcher.allows(token) for token in (END, a)] == [True, False]
    matcher.consume(END)
    assert matcher.is_over
    assert matcher.problem is None


def test_every_token_that_ends_an_answer_may_end_it():
    other = TOKENIZER.convert_tokens_to_ids("<|endoftext|>")
    vocabulary = Vocabulary(TOKENIZER, len(TOKENIZER), [other])
    matcher = vocabulary.start(answer_grammar.of_labels(["ab"]))
    for token in TOKENIZER.encode("ab", add_special_tokens=False):
        matcher.consume(token)
    assert [matcher.allows(end) for end in (END, other)] == [True, True]


def test_special_tokens_are_no_text():
    matcher = VOCABULARY.start(GRAMMARS["written"])
    assert not matcher.allows(TOKENIZER.convert_tokens_to_ids("<|im_start|>"))


def test_the_forms_marks_are_text_though_they_are_special_tokens():
    tokenizer = cast("Any", tiny.tokenizer())
    tokenizer.add_special_tokens({"additional_special_tokens": ["<tool_call>", "</tool_call>"]})
    vocabulary = Vocabulary(tokenizer, len(tokenizer))
    matcher = vocabulary.start(GRAMMARS["hermes"])
    text = '<tool_call>\n{"name": "get", "arguments": {"a": 1}}\n</tool_call>'
    for token in tokenizer.encode(text, add_special_tokens=False):
        assert matcher.allows(token)
        matcher.consume(token)
    assert matcher.may_end


def test_generate_keeps_each_row_within_its_own_grammar(tmp_path: Path):
    from components.models import base

    loaded, tokenizer = base.load(tiny.build(tmp_path), "fp32", for_training=False)
    model = cast("Any", loaded)
    vocabulary = constrained.vocabulary_of(model, tokenizer)
    grammars = [answer_grammar.of_labels(["ab", "a"]), None, answer_grammar.of_labels(["xyz"])]
    matchers: list[Matcher | None] = [
        None if grammar is None else vocabulary.start(grammar) for grammar in grammars
    ]
    prompts = torch.tensor([tokenizer.encode("hello")] * 3)
    free = model.generate(prompts, max_new_tokens=6, do_sample=False)[:, prompts.shape[1] :]
    rows = model.generate(
        prompts, max_new_tokens=6, do_sample=False, logits_processor=[GrammarMasks(matchers)]
    )[:, prompts.shape[1] :]
    texts = [tokenizer.decode(row, skip_special_tokens=True) for row in rows]
    assert texts[0] in ("ab", "a")
    assert texts[2] == "xyz"
    assert torch.equal(rows[1], free[1])
    assert [matcher.is_over for matcher in matchers if matcher] == [True, True]
