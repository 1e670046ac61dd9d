"""Chat templates like those of families of models, for tokenizers that have none of their own."""

from pathlib import Path

_FOLDER = Path(__file__).with_name("chat_templates")

QWEN = (_FOLDER / "qwen.jinja").read_text()
"""As Qwen 2.5 has it."""

LLAMA3 = (_FOLDER / "llama3.jinja").read_text()
"""As Llama 3.1 to 3.3 have it, without what is for their built-in tools."""

_PLAIN = ' or (message.role == "assistant" and not message.tool_calls)'
_OPENED = "{{- '<|im_start|>' + message.role }}\n        {%- if message.content %}"

THINKING = QWEN.replace(_PLAIN, "").replace(
    _OPENED,
    _OPENED.replace(
        "{%- if",
        "{%- if loop.last %}{{- '\\n<think>\\n\\n</think>\\n' }}{%- endif %}\n        {%- if",
    ),
)
"""As Qwen 3 has it: the last answer begins with what was thought, which may be nothing."""

_END = "{{- '<|im_end|>\\n' }}\n        {%- endif %}\n    {%- endif %}\n{%- endfor %}"

HERMES = QWEN.replace(_END, _END.replace("\\n'", "' + ('' if loop.last else '\\n')"))
"""As Hermes 2 Pro and 3 have it: a newline ends a tool's result only if another turn follows it."""

_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\nBEGIN{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)

OPEN_THOUGHT = _CHATML.replace(
    "BEGIN", "{% if loop.last and m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
)
"""As Qwen 3.5 has it: a prompt ends within a thought."""

DISTILLED = _CHATML.replace("BEGIN", "")
"""As the distilled DeepSeek-R1 have it: so too, and an answer has no thought."""

EMPTY_THOUGHT = _CHATML.replace("BEGIN", "{% if m.role == 'assistant' %}<think></think>{% endif %}")
"""As Nemotron 3 has it: so too, and an answer has an empty thought of another form."""

CHANNELS = (
    "{% for m in messages %}<|start|>{{ m.role }}"
    "{% if m.role == 'assistant' %}<|channel|>final{% endif %}<|message|>{{ m.content }}"
    "{{ '<|return|>' if loop.last and m.role == 'assistant' else '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
"""As gpt-oss has it: the model names the channel that it writes to."""
