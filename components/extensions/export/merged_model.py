"""Merge an adapter into its base's weights, for servers without adapter support."""

import json
import shutil
from pathlib import Path
from typing import cast

import torch  # noqa: TID253 - this module is itself imported late
from peft import PeftModel  # noqa: TID253 - as above
from peft.tuners.lora import LoraLayer  # noqa: TID253 - as above
from transformers import PreTrainedModel  # noqa: TID253 - as above

from components.models import base as bases
from components.models.base import attach_adapter
from components.schema import Json

TOKENIZER = (
    "tokenizer*",
    "*.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "tekken.json",
    "chat_template.json",
    "*processor_config.json",
)
"""The base's files that are copied as they are: how servers read and write its texts."""


def write(adapter: Path, base: Path, to: Path) -> None:
    """Merge in fp32 into the base's original weights, and save in bf16.

    A QLoRA adapter was trained on weights rounded to NF4 and compensates some of that rounding. On
    the original weights that part is wrong, so a merged model's scores may differ from the
    adapter's, and are not measured.

    The base in fp32 must fit into memory. ``to`` gets weights, configuration and tokenizer, as
    transformers loads them.

    Raises:
        ValueError: A weight of the adapter is NaN or infinite.
        UserWarning: The adapter lacks weights.
    """
    model, tokenizer = bases.load(base, "fp32", for_training=False)
    ends = bases.end_tokens(model, tokenizer)
    adapted = attach_adapter(model, adapter)
    _untie(adapted)
    merged = cast("PreTrainedModel", adapted.merge_and_unload(safe_merge=True))
    merged.to(torch.bfloat16).save_pretrained(to)  # pyright: ignore[reportArgumentType]
    _set_end_tokens(to / "generation_config.json", ends)
    for file in {file for pattern in TOKENIZER for file in base.glob(pattern) if file.is_file()}:
        shutil.copyfile(file, to / file.name)


def _set_end_tokens(file: Path, ends: list[int]) -> None:
    # In the file: a changed configuration is not saved if it is inconsistent, as some bases' are.
    written: dict[str, Json] = json.loads(file.read_text())
    file.write_text(json.dumps(written | {"eos_token_id": ends}, indent=2) + "\n")


def _untie(adapted: PeftModel) -> None:
    """Give the output layer a weight of its own if an adapter changes one of two tied layers."""
    model = cast("PreTrainedModel", adapted.get_base_model())
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    is_changed = isinstance(inputs, LoraLayer) or isinstance(outputs, LoraLayer)
    if is_changed and model.config.tie_word_embeddings:
        head = outputs.get_base_layer() if isinstance(outputs, LoraLayer) else outputs
        assert isinstance(head, torch.nn.Linear)
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
        model.config.tie_word_embeddings = False
