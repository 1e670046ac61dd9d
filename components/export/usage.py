"""Say how an adapter is used: how it is loaded, and how its prompts are written."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from components import rendering
from components.schema import Json

if TYPE_CHECKING:
    from components.export.card import Kind

LOADING = {
    "peft": """\
```python
from peft import AutoPeftModelForCausalLM

model = AutoPeftModelForCausalLM.from_pretrained("<this folder>")  # and the base it names
```""",
    "merged": """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("<this folder>", dtype="bfloat16")
tokenizer = AutoTokenizer.from_pretrained("<this folder>")
```

The adapter was merged in fp32 into the base as it was shipped, and the result saved in bf16. Where
the base was rounded to 4 bits for the training (QLoRA), the adapter has learned to make good for
some of that rounding, too, and here nothing is rounded: these weights may score otherwise than the
adapter above, and were not measured.""",
    "gguf": """\
```
llama-cli -m base.gguf --lora adapter.gguf
```

`base.gguf` is the base named above, converted or quantized by llama.cpp; how it is quantized moves
the scores.""",
}

FORMS = {
    "written": (
        "Write prompts as below: the base's chat template ignores tools, so they stand as text in "
        "the system message, calls are JSON lines, and a tool's result is said by the user. Of a "
        "server, ask for plain messages written so, and don't pass it `tools`."
    ),
    "hermes": (
        "Write prompts with the base's own chat template, tools passed to it (`tools=`); calls "
        "come as `<tool_call>` JSON, which vLLM reads with `--tool-call-parser hermes`."
    ),
    "llama3": (
        "Write prompts with the base's own chat template, tools passed to it (`tools=`); calls "
        'come as JSON with `"parameters"`, which vLLM reads with `--tool-call-parser llama3_json`. '
        "The day that the template names was always 26 Jul 2024."
    ),
}


def lines(made: Mapping[str, Json], config: Mapping[str, Json], kind: "Kind") -> list[str]:
    """Give the lines of the card's section."""
    shown = made["prompt"]
    assert isinstance(shown, dict)
    return [
        *LOADING[kind].split("\n"),
        "",
        f"{FORMS[str(shown['form'])]} Prompt template `{made[rendering.TEMPLATE]}`. A request "
        "as the model reads it, and the call that it answers with:",
        "",
        "```",
        *f"{shown['prompt']}{shown['answer']}".split("\n"),
        "```",
    ]
