"""Prompts rendered without transformers equal, byte for byte, those that transformers renders."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from components.chat import chat_templates
from components.schema import Json
from components.serve import plain_template
from components.serve.plain_template import PlainTemplate, TemplateFilesError
from tests.support import logs, templates, tiny

TOOLS: list[dict[str, Json]] = [logs.WEATHER]
CALLED: dict[str, Json] = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"a": 1}'}}
    ],
}
CONVERSATIONS: list[list[dict[str, Json]]] = [
    [{"role": "user", "content": "Hi"}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "<b>Grüße & 'so'</b>"},
    ],
    [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Rain in \U0001f30d?"}]},
        CALLED,
        {"role": "tool", "tool_call_id": "1", "content": '{"sky": "dry"}'},
        {"role": "assistant", "content": "Dry."},
        {"role": "user", "content": "And  in\n\nRome? "},
    ],
    [
        {"role": "user", "content": "Rain?"},
        CALLED,
        {"role": "tool", "tool_call_id": "1", "content": "dry"},
    ],
]
OTHERS = {
    "special-tokens": (
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}"
        "{% endfor %}{{ unk_token }}|{{ pad_token }}|{{ image_token }}|{{ cls_token }}"
    ),
    "loop-controls": (
        "{%- for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}\n"
        "    {%- if m.role == 'system' %}{% continue %}{% endif %}\n  {{ m.content }}\n{% endfor %}"
    ),
    "generation": (
        "{% for m in messages %}{% set x = 1 %}{% generation %}{% set x = 2 %}{{ m.content }}"
        "{{ x }}{% endgeneration %}{{ x }}{% endfor %}"
    ),
    "namespace": (
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}"
        "{{ ns.n }}{{ dict(a=1) | tojson(indent=2) }}{{ tools | tojson }}"
    ),
    "date": "{{ strftime_now('%Y') }}{{ messages[0].content }}",
    "refuses": "{% if messages | length > 1 %}{{ raise_exception('one only') }}{% endif %}ok",
    "none": "{{ tools }} {{ documents }} {{ tools is none }} {{ add_generation_prompt }}",
}
NAMED = {"tiny": tiny.TEMPLATE, "qwen": templates.QWEN, "llama": templates.LLAMA3,
         "thinking": templates.THINKING, "open thought": templates.OPEN_THOUGHT,
         "hermes": templates.HERMES, "distilled": templates.DISTILLED,
         "channels": templates.CHANNELS, **OTHERS}  # fmt: skip


def saved(
    folder: Path, template: str | dict[str, str]
) -> tuple[PreTrainedTokenizerBase, PlainTemplate]:
    """Save a tokenizer with a template; return it as both libraries read it."""
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    plain_template.read.cache_clear()
    return AutoTokenizer.from_pretrained(folder), plain_template.read(folder)


def outcome(
    tokenizer: Any, messages: Sequence[Mapping[str, Json]], tools: Sequence[Mapping[str, Json]]
) -> str:
    """Return what a request renders as; the error's message where the template refuses it."""
    try:
        text: str = tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tools=[dict(tool) for tool in tools] or None,
            tokenize=False,
            add_generation_prompt=True,
        )
    except (TemplateError, TypeError) as error:
        return f"refused: {error}"
    return text


@pytest.mark.parametrize("template", NAMED.values(), ids=NAMED)
def test_a_template_renders_as_in_transformers(tmp_path: Path, template: str):
    theirs, ours = saved(tmp_path, template)
    for messages in CONVERSATIONS:
        for tools in ([], TOOLS):
            assert outcome(ours, messages, tools) == outcome(theirs, messages, tools)
            rendered = [
                chat_templates.render(tokenizer, messages, tools)
                for tokenizer in (theirs, plain_template.as_tokenizer(ours))
            ]
            assert rendered[0] == rendered[1]
            if not template.startswith("{% if"):  # which refuses what it was rendered as
                ours_text = rendered[1].to_text(plain_template.as_tokenizer(ours))
                assert ours_text == rendered[0].to_text(theirs)


TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "tool"]), "content": TEXT}
    ),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module")
def hermes(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[PreTrainedTokenizerBase, PlainTemplate]:
    return saved(tmp_path_factory.mktemp("hermes"), templates.QWEN)


@given(messages=MESSAGES)
def test_any_text_renders_as_in_transformers(
    hermes: tuple[PreTrainedTokenizerBase, PlainTemplate], messages: list[dict[str, Json]]
):
    theirs, ours = hermes
    assert outcome(ours, messages, TOOLS) == outcome(theirs, messages, TOOLS)


def test_named_templates_are_chosen_as_in_transformers(tmp_path: Path):
    theirs, ours = saved(tmp_path, {"default": "plain", "tool_use": "with tools", "rag": "rag"})
    assert [outcome(ours, CONVERSATIONS[0], tools) for tools in ([], TOOLS)] == [
        "plain",
        "with tools",
    ]
    assert [outcome(theirs, CONVERSATIONS[0], tools) for tools in ([], TOOLS)] == [
        "plain", "with tools"
    ]  # fmt: skip


def test_special_tokens_of_older_files_are_read(tmp_path: Path):
    saved(tmp_path, OTHERS["special-tokens"])
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    for name in ("bos_token", "eos_token", "pad_token", "unk_token", "added_tokens_decoder"):
        config.pop(name, None)
    config["bos_token"] = {"__type": "AddedToken", "content": "<|im_start|>", "lstrip": False}
    config["image_token"] = "<|im_end|>"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "special_tokens_map.json").write_text(
        json.dumps({"eos_token": {"content": "<|im_end|>", "lstrip": False, "rstrip": False,
                                  "normalized": False, "single_word": False},
                    "pad_token": "<|im_end|>"})
    )  # fmt: skip
    plain_template.read.cache_clear()
    theirs, ours = AutoTokenizer.from_pretrained(tmp_path), plain_template.read(tmp_path)
    assert outcome(ours, CONVERSATIONS[0], []) == outcome(theirs, CONVERSATIONS[0], [])
    assert "<|im_start|>[user]Hi<|im_end|>" in outcome(ours, CONVERSATIONS[0], [])


def test_a_base_without_a_template_is_refused(tmp_path: Path):
    with pytest.raises(TemplateFilesError, match=r"no chat_template\.jinja"):
        plain_template.read(tmp_path)


@pytest.mark.parametrize(
    "attack",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
        "{{ messages.append(1) }}",
        "{{ dict.__globals__.os }}",
    ],
)
def test_a_template_cannot_leave_the_sandbox(attack: str):
    with pytest.raises(TemplateError):
        PlainTemplate(attack, {}).apply_chat_template([{"role": "user", "content": "Hi"}])


def test_prompts_that_differ_from_those_of_training_are_reported(tmp_path: Path):
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    theirs, _ = saved(base, templates.QWEN)
    adapter.mkdir()
    assert "has no prompt_example.json" in (plain_template.parity_problem(adapter, base) or "")
    example = chat_templates.example(theirs, base)
    (adapter / chat_templates.EXAMPLE).write_text(json.dumps(example))
    assert plain_template.parity_problem(adapter, base) is None
    # An older adapter ends the prompt's thought itself.
    theirs, _ = saved(base, templates.OPEN_THOUGHT)
    example = chat_templates.example(theirs, base)
    for ended in (example["prompt"], str(example["prompt"]).removesuffix("\n</think>\n\n")):
        (adapter / chat_templates.EXAMPLE).write_text(json.dumps({**example, "prompt": ended}))
        assert plain_template.parity_problem(adapter, base) is None
    example["prompt"] = f"{example['prompt']} "
    (adapter / chat_templates.EXAMPLE).write_text(json.dumps(example))
    assert "but training rendered" in (plain_template.parity_problem(adapter, base) or "")


REAL = Path("~/.cache/lora-flywheel/SmolLM2-135M-Instruct").expanduser()


@pytest.mark.skipif(not REAL.is_dir(), reason="the demo's base was not fetched on this machine")
def test_the_demos_base_renders_as_in_transformers():
    theirs, ours = AutoTokenizer.from_pretrained(REAL), plain_template.read(REAL)
    assert ours.chat_template == theirs.chat_template
    for messages in CONVERSATIONS[:2]:
        for tools in ([], TOOLS):
            assert outcome(ours, messages, tools) == outcome(theirs, messages, tools)
    assert chat_templates.render(theirs, CONVERSATIONS[2], TOOLS).to_text(
        theirs
    ) == chat_templates.render(plain_template.as_tokenizer(ours), CONVERSATIONS[2], TOOLS).to_text(
        plain_template.as_tokenizer(ours)
    )


def test_rendering_loads_no_model_library():
    script = (
        "import sys; import components.serve.plain_template; "
        "print([m for m in ('torch', 'transformers', 'mlflow', 'duckdb') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    assert done.stdout.strip() == "[]"
