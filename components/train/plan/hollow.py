"""Build a base and its adapter without their weights, so that any size can be planned anywhere.

On torch's ``meta`` device a tensor has a shape and a type and no memory. There the base is
quantized and the adapter attached by the very code that trains, so what is counted is what a
training has.
Imported late, since it loads torch.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 - this module is itself imported late
from bitsandbytes.functional import quantize_4bit  # noqa: TID253 - as above
from bitsandbytes.nn.modules import Linear4bit, Params4bit  # noqa: TID253 - as above
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: TID253 - as above
from transformers.integrations.bitsandbytes import (  # noqa: TID253 - as above
    replace_with_bnb_linear,
)
from transformers.quantizers.base import get_keys_to_not_convert  # noqa: TID253 - as above

from components import base as bases
from components.train import adapter
from components.train import teacher as teachers
from components.train.plan import parameters
from components.train.plan.parameters import Parameters
from components.train.recipe import Recipe

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import BitsAndBytesConfig, PretrainedConfig, PreTrainedModel

NOWHERE = Path()
"""A checkpoint to go on from: the first weights, which the base's may decide, are not computed."""


def adapted(
    config: "PretrainedConfig", recipe: Recipe, attention: str | None
) -> "tuple[PeftModel, Parameters]":
    """Build the base as it computes, its 4-bit weights written out, with the untrained adapter.

    Args:
        config: The base's.
        recipe: The adapter's.
        attention: The implementation's name; ``None`` is what transformers takes by itself.
    """
    model = build(config, attention)
    quantized = _quantize(model, bases.quantization(recipe.precision, torch.bfloat16))
    if recipe.init_lora_weights == "eva":
        recipe = recipe.model_copy(update={"init_lora_weights": True})  # of the same shapes
    with torch.device("meta"):
        found = adapter.attach(model, recipe, checkpoint=NOWHERE)
    bases.dequantize(found)  # on a CPU it is already
    return found, parameters.count(found, quantized)


def build(config: "PretrainedConfig", attention: str | None = None) -> "PreTrainedModel":
    """Build a base in bf16."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16, attn_implementation=attention
        )
    return model.train()


def teacher(path: Path) -> "PreTrainedModel":
    """Build the model that a distillation learns from: a folder's, or the base of an adapter's."""
    folder = teachers.model_folder(path)
    return build(AutoConfig.from_pretrained(folder, local_files_only=True)).eval()


def _quantize(
    model: "PreTrainedModel", quantization: "BitsAndBytesConfig | None"
) -> dict[str, int]:
    """Hold the base in 4 bits as ``bases.load`` does; give the size of each weight that is."""
    if quantization is None:
        return {}
    quantize_4bit(torch.zeros(64), compress_statistics=True)  # else its tables would have no values
    replace_with_bnb_linear(model, get_keys_to_not_convert(model), quantization)
    sizes: dict[str, int] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, Linear4bit):
            sizes[name] = layer.in_features * layer.out_features
            with torch.device("meta"):
                _quantize_layer(layer)
    vars(model)["is_loaded_in_4bit"] = True  # as from_pretrained sets it
    return sizes


def _quantize_layer(layer: Linear4bit) -> None:
    given: Any = layer.weight
    kind = {"compress_statistics": given.compress_statistics, "quant_type": given.quant_type}
    packed, state = quantize_4bit(given.data.bfloat16(), **kind)
    made: Any = Params4bit
    quantized: Any = layer
    quantized.quant_state = state
    quantized.weight = made(packed, quant_state=state, module=layer, bnb_quantized=True, **kind)
