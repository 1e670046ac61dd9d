"""A base's own template is used if it renders the whole request; otherwise our format is."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from components.chat import chat_templates, dialects, prompt
from components.chat.dialects import Dialect
from components.schema import Answer, Call, Json
from tests.support import templates, tiny

TOOL: dict[str, Json] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the weather.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "at_hour": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
OSLO = {"name": "get_weather", "arguments": {"city": "Oslo", "at_hour": 7}}
CALLED: dict[str, Json] = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"function": {"name": "get_weather", "arguments": '{"city": "Oslo", "at_hour": 7}'}}
    ],
}
ASKED: list[dict[str, Json]] = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Rain in Oslo?"}]},
    CALLED,
    {"role": "tool", "tool_call_id": "1", "content": '{"sky": "dry"}'},
    {"role": "user", "content": "And in Rome?"},
]
CALL = Answer(calls=(Call("get_weather", {"city": "Rome"}),))
TWO = Answer(calls=(*CALL.calls, Call("get_weather", {"city": "Bonn", "at_hour": 9})))


def two_results() -> list[dict[str, Json]]:
    calls: list[Json] = [
        {"function": {"name": call.name, "arguments": json.dumps(call.arguments)}}
        for call in TWO.calls
    ]
    return [
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "1", "content": "dry"},
        {"role": "tool", "tool_call_id": "2", "content": "wet"},
    ]


def tokenizer_with(template: str) -> PreTrainedTokenizerBase:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize(
    ("template", "form"),
    [
        pytest.param(tiny.TEMPLATE, "written", id="ignores-tools"),
        pytest.param(templates.QWEN, "hermes", id="qwen-2.5"),
        pytest.param(templates.THINKING, "hermes", id="qwen-3"),
        pytest.param(templates.LLAMA3, "llama3", id="llama-3"),
        pytest.param(
            templates.QWEN.replace("<tool_call>", "<call>"), "written", id="calls-we-cannot-read"
        ),
        pytest.param(
            templates.QWEN.replace("{{- message.content }}", ""), "written", id="drops-results"
        ),
        pytest.param("{{ raise_exception('no system') }}", "written", id="refuses"),
    ],
)
def test_a_template_is_used_only_if_it_renders_tools_calls_and_results(
    template: str, form: Dialect
):
    assert chat_templates.form_of(tokenizer_with(template)) == form


@pytest.mark.parametrize("template", [templates.QWEN, templates.LLAMA3], ids=["qwen", "llama"])
def test_a_prompt_contains_every_message_and_tool(template: str):
    tokenizer = tokenizer_with(template)
    rendered = chat_templates.render(tokenizer, ASKED, [TOOL])
    text = rendered.to_text(tokenizer)
    assert rendered.form != "written"
    assert "Tools:" not in text
    for part in ("Be brief.", "Rain in Oslo?", "get_weather", "at_hour", "Oslo", "And in Rome?"):
        assert part in text
    assert '{"sky": "dry"}' in text or json.dumps('{"sky": "dry"}') in text
    turns: list[Any] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Rain in Oslo?"},
        {"role": "assistant", "content": "", "tool_calls": [{"function": OSLO}]},
        {"role": "tool", "content": '{"sky": "dry"}'},
        {"role": "user", "content": "And in Rome?"},
    ]
    assert text == tokenizer.apply_chat_template(
        turns,
        tools=[TOOL],
        chat_template=template.replace('strftime_now("%d %b %Y")', '"26 Jul 2024"'),
        tokenize=False,
        add_generation_prompt=True,
    )


def test_a_template_that_ignores_tools_falls_back_to_our_format():
    tokenizer = tokenizer_with(tiny.TEMPLATE)
    rendered = chat_templates.render(tokenizer, ASKED, [TOOL])
    assert (rendered.form, rendered.tools) == ("written", [])
    assert rendered.messages == prompt.render_prompt(ASKED, [TOOL])


def test_a_request_that_the_template_truncates_falls_back_to_our_format():
    cuts = templates.QWEN.replace(
        '(message.role == "user")', "(message.role == \"user\" and 'rude' not in message.content)"
    )
    tokenizer = tokenizer_with(cuts)
    assert chat_templates.render(tokenizer, ASKED, [TOOL]).form == "hermes"
    rude: list[dict[str, Json]] = [{"role": "user", "content": "Be rude."}]
    assert chat_templates.render(tokenizer, rude, [TOOL]).form == "written"


ALTERNATING = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
"""As Gemma 2 has it: no system message, and user and assistant alternate."""

WITH_SYSTEM = (
    "{% if messages[0].role == 'system' %}[system]{{ messages[0].content }}"
    "{% set messages = messages[1:] %}{% endif %}" + ALTERNATING
)
"""As Mistral has it."""


@pytest.mark.parametrize(
    ("template", "messages", "text"),
    [
        pytest.param(
            WITH_SYSTEM,
            [{"role": "system", "content": "Short."}, *two_results()],
            "[system]Short.[user]Rain?[assistant]CALLS[user]Result: dry\n\nResult: wet[assistant]",
            id="results of parallel calls",
        ),
        pytest.param(
            WITH_SYSTEM,
            [{"role": "user", "content": "Hi."}, {"role": "user", "content": "Rain?"}],
            "[user]Hi.\n\nRain?[assistant]",
            id="two messages of a user",
        ),
        pytest.param(
            WITH_SYSTEM,
            [{"role": "assistant", "content": "Welcome!"}, {"role": "user", "content": "Hi."}],
            "[user][assistant]Welcome![user]Hi.[assistant]",
            id="a greeting first",
        ),
        pytest.param(
            ALTERNATING,
            [{"role": "system", "content": "Short."}, {"role": "user", "content": "Hi."}],
            "[user]Short.\n\nHi.[assistant]",
            id="no system message",
        ),
    ],
)
def test_a_template_whose_roles_must_alternate_renders_any_conversation(
    template: str, messages: list[dict[str, Json]], text: str
):
    tokenizer = tokenizer_with(template)
    rendered = chat_templates.render(tokenizer, messages, [])
    assert rendered.form == "written"
    calls = prompt.render_answer(TWO)
    assert rendered.to_text(tokenizer).replace(calls, "CALLS") == text


@pytest.mark.parametrize(
    ("template", "model_begins", "answer_begins"),
    [
        pytest.param(templates.QWEN, "assistant\n", "assistant\n", id="no thoughts"),
        pytest.param(
            templates.THINKING, "assistant\n", "assistant\n<think>\n\n</think>\n\n", id="qwen-3"
        ),
        *(
            pytest.param(template, *["assistant\n<think>\n\n</think>\n\n"] * 2, id=name)
            for name, template in (
                ("qwen-3.5", templates.OPEN_THOUGHT),
                ("deepseek-r1", templates.DISTILLED),
                ("nemotron-3", templates.EMPTY_THOUGHT),
            )
        ),
        pytest.param(
            templates.CHANNELS, *["assistant<|channel|>final<|message|>"] * 2, id="gpt-oss"
        ),
    ],
)
def test_a_prompt_ends_a_thought_and_names_the_channel_where_the_model_would_not(
    template: str, model_begins: str, answer_begins: str
):
    tokenizer = tokenizer_with(template)
    for messages in ([{"role": "user", "content": "Rain?"}], ASKED):
        rendered = chat_templates.render(tokenizer, messages, [])
        assert rendered.to_text(tokenizer).endswith(model_begins)
        assert rendered.before_answer(tokenizer).endswith(answer_begins)


def test_a_thinking_base_ends_the_thought_of_a_request_that_it_is_asked_in_our_form():
    cuts = templates.THINKING.replace(
        '(message.role == "user")', "(message.role == \"user\" and 'rude' not in message.content)"
    )
    tokenizer = tokenizer_with(cuts)
    rude = chat_templates.render(tokenizer, [{"role": "user", "content": "Be rude."}], [])
    assert rude.form == "written"
    assert rude.to_text(tokenizer).endswith("<think>\n\n</think>\n\n")


def test_a_result_after_which_the_template_writes_an_answer_elsewhere_falls_back_to_our_format():
    tokenizer = tokenizer_with(templates.HERMES)
    results = two_results()
    assert chat_templates.render(tokenizer, results[:1], [TOOL]).form == "hermes"
    assert chat_templates.render(tokenizer, results, [TOOL]).form == "written"
    assert chat_templates.render(tokenizer_with(templates.QWEN), results, [TOOL]).form == "hermes"


def test_a_prompt_is_the_same_on_any_day():
    tokenizer = tokenizer_with(templates.LLAMA3)
    text = chat_templates.render(tokenizer, ASKED, []).to_text(tokenizer)
    assert "Today Date: 26 Jul 2024\n" in text


@pytest.mark.parametrize("form", ["written", "hermes", "llama3"])
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(CALL, id="call"),
        pytest.param(TWO, id="two-calls"),
        pytest.param(Answer("No tool fits."), id="text"),
        pytest.param(Answer("Let me see.", CALL.calls), id="both"),
        pytest.param(Answer(calls=(Call("f", {}),)), id="no-arguments"),
    ],
)
def test_a_rendered_answer_parses_to_the_same_answer(form: Dialect, answer: Answer):
    text = dialects.write_answer(form, answer)
    assert dialects.read_answer(form, text, offers_tools=True) == answer
    assert dialects.answer_problem(form, text) is None


@pytest.mark.parametrize(
    ("form", "text", "answer"),
    [
        pytest.param(
            "hermes",
            '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>',
            CALL,
            id="hermes",
        ),
        pytest.param(
            "hermes",
            '<think>\n\n</think>\n\n<tool_call>{"name": "get_weather", "arguments": '
            '{"city": "Rome"}}</tool_call>',
            CALL,
            id="after-thoughts",
        ),
        pytest.param("hermes", "<think>Hm {</think>\n\nNo.", Answer("No."), id="only-thoughts-go"),
        pytest.param(
            "llama3", '{"name": "get_weather", "parameters": {"city": "Rome"}}', CALL, id="llama-3"
        ),
        pytest.param(
            "llama3",
            '{"type": "function", "name": "get_weather", "arguments": {"city": "Rome"}}',
            CALL,
            id="llama-3-with-arguments",
        ),
        pytest.param(
            "written",
            '{"name": "get_weather", "parameters": {"city": "Rome"}}',
            Answer('{"name": "get_weather", "parameters": {"city": "Rome"}}'),
            id="no-call-in-our-form",
        ),
    ],
)
def test_a_bases_own_call_syntax_is_parsed(form: Dialect, text: str, answer: Answer):
    assert dialects.read_answer(form, text, offers_tools=True) == answer


@pytest.mark.parametrize(
    ("form", "text", "problem"),
    [
        pytest.param("hermes", "<tool_call>", "<tool_call> was written, and no call", id="begun"),
        pytest.param("hermes", '<tool_call>\n{"name": "f"', "a call was begun", id="broken-off"),
        pytest.param("hermes", "<think>\nWell, {", "it was still thinking", id="thinking"),
        pytest.param("llama3", '{"name": "f"}', "the JSON has not the form", id="no-parameters"),
    ],
)
def test_a_failed_call_in_a_bases_own_syntax_has_a_problem(form: Dialect, text: str, problem: str):
    reported = dialects.answer_problem(form, text)
    assert reported is not None
    assert reported.startswith(problem)


def test_copies_have_equal_hashes_and_other_templates_do_not(tmp_path: Path):
    tiny.tokenizer().save_pretrained(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    tokenizer_with(templates.QWEN).save_pretrained(tmp_path / "other")
    one, copy, other = (
        chat_templates.template_hash(tmp_path / n) for n in ("one", "copy", "other")
    )
    assert one == copy != other


def test_a_template_in_the_tokenizer_config_is_hashed(tmp_path: Path):
    hashes: list[str] = []
    for name, template in (("one", tiny.TEMPLATE), ("other", templates.QWEN)):
        (tmp_path / name).mkdir()
        config = json.dumps({"chat_template": template})
        (tmp_path / name / "tokenizer_config.json").write_text(config)
        hashes.append(chat_templates.template_hash(tmp_path / name))
    assert hashes[0] != hashes[1]


@pytest.mark.parametrize("recorded", ["a1", None])
def test_a_template_mismatch_names_both_hashes(recorded: str | None):
    with pytest.raises(
        chat_templates.TemplateChangedError, match=r"scoring: .*(a1|not recorded).* with b2"
    ):
        chat_templates.require_same(recorded, "b2", "scoring")
    chat_templates.require_same("b2", "b2", "scoring")
