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
