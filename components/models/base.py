"""Load, quantize, hash and convert a base model; attach and detach an adapter."""

import shutil
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import safe_open

from components.models import cpu_products, device
from components.models.cpu_products import CpuType
from components.models.device import Attention, Products
from components.schema import Precision
from components.store import manifest

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch.nn import Module
    from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase


CONTENT = (
    "*.safetensors",
    "config.json",
    "adapter_config.json",
    "tokenizer*",
    "*.jinja",
    "generation_config.json",
)
"""The files that determine a model's answers, if its weights are safetensors."""

PREFERRED = ("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")
"""Without any of these, transformers and PEFT load weights from ``PICKLES``."""

PICKLES = ("*.bin", "*.bin.index.json")


def content_files(path: Path) -> list[Path]:
    """List the files that determine a model's answers, sorted."""
    has_preferred = any((path / name).exists() for name in PREFERRED)
    patterns = CONTENT if has_preferred else (*CONTENT, *PICKLES)
    return sorted({file for pattern in patterns for file in path.glob(pattern)})


def content_hash(path: Path) -> str:
    """Digest the names and bytes of the model's files; independent of the folder's path."""
    return manifest.digest({file.name: manifest.file_digest(file) for file in content_files(path)})


def load(
    path: Path, precision: Precision, *, for_training: bool, on_host: bool = False
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Load base and tokenizer, on the process's CUDA device if there is one.

    Training computes in the type that ``device`` chooses; evaluation and serving in the same 16
    bits on CUDA and in fp32 on a CPU, where bf16 answers depend on the rest of their batch; a base
    in bf16 in the type of ``cpu_products`` there. On a
    CPU a 4-bit base is dequantized for evaluation, which takes eight times the memory: with
    AVX512-BF16, bitsandbytes repacks evaluated weights for a kernel that rounds to bf16, has no
    gradients, and adds noise to DoRA, which reads the weights.

    ``for_training`` loads it for training only, otherwise for evaluation only. ``on_host`` loads it
    into the host's memory even with CUDA, to split it over several devices.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    cuda, compute = torch.cuda.is_available(), compute_dtype(precision, for_training=for_training)
    best = device.best_computing()
    if is_quantized(precision) and (on_host or not cuda):
        import_module("components.extensions.cpu.cpu_quantization").install()
    model = AutoModelForCausalLM.from_pretrained(
        path,
        dtype=compute,
        quantization_config=quantization(precision, compute),
        device_map={"": torch.cuda.current_device()} if cuda and not on_host else {"": "cpu"},
        attn_implementation=training_attention(path, best.attention) if for_training else None,
        local_files_only=True,
    )
    model.train(for_training)
    if not cuda and not for_training:
        dequantize(model)
    return model, AutoTokenizer.from_pretrained(path, local_files_only=True)


def training_attention(path: Path, preferred: Attention) -> Attention:
    """Return the attention to train a base with: ``eager`` where it has no other (Gemma 2)."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if preferred == "eager":
        return preferred
    config = AutoConfig.from_pretrained(path, local_files_only=True)
    try:
        with torch.device("meta"):
            AutoModelForCausalLM.from_config(config, attn_implementation=preferred)
    except ValueError:
        return "eager"
    return preferred


def compute_dtype(precision: Precision, *, for_training: bool) -> "torch.dtype":
    """Return the dtype in which a base of this precision computes here; see ``load``."""
    import torch

    if for_training or torch.cuda.is_available():
        kind = compute_type(precision, device.best_computing().products)
    else:
        kind = type_on_cpu(precision)
    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[kind]


def compute_type(precision: Precision, products: Products) -> Products:
    """Return the type in which a base computes where the device multiplies in ``products``."""
    if "fp32" in (precision, products):
        return "fp32"
    return "bf16" if precision == "bf16" else products


def type_on_cpu(precision: Precision) -> CpuType:
    """Return the type in which a base is evaluated and served on a CPU."""
    return cpu_products.cpu_type() if precision == "bf16" else "fp32"


def write_dequantized(path: Path, precision: Precision, folder: Path) -> None:
    """Write a 4-bit base with dequantized weights, without its tokenizer.

    The weights have the compute dtype and are those that an evaluation computes with: identical on
    a CPU; on CUDA bitsandbytes dequantizes them at each use.
    """
    model, _ = load(path, precision, for_training=False)
    dequantize(model)
    # Otherwise transformers would record these weights as 4-bit.
    model.hf_quantizer = None  # pyright: ignore[reportArgumentType]
    model.is_quantized = False  # pyright: ignore[reportArgumentType]
    delattr(model.config, "quantization_config")
    model.save_pretrained(folder)


def end_tokens(
    model: "PreTrainedModel | PeftModel", tokenizer: "PreTrainedTokenizerBase"
) -> list[int]:
    """Return the tokens that end an answer: the tokenizer's and the generation config's."""
    default = getattr(model.generation_config, "eos_token_id", None)
    ends = [tokenizer.eos_token_id, *(default if isinstance(default, list) else [default])]
    return list(dict.fromkeys(end for end in ends if isinstance(end, int)))


def is_quantized(precision: Precision) -> bool:
    """Return whether a base of this precision has 4-bit weights."""
    return precision not in ("bf16", "fp32")


def quantization(precision: Precision, compute: "torch.dtype") -> "BitsAndBytesConfig | None":
    """Return the 4-bit quantization with this compute dtype; ``None`` for other precisions."""
    from transformers import BitsAndBytesConfig

    if not is_quantized(precision):
        return None
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=precision,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )


def read_weight(folder: Path, name: str) -> "torch.Tensor":
    """Read one weight from the base's files, before any quantization."""
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            if name in tensors.keys():  # noqa: SIM118 - it is not a mapping
                return tensors.get_tensor(name)
    raise ValueError(f"reading {folder}: its safetensors have no weight {name}")


def dequantize(model: "Module") -> None:
    """Replace 4-bit weights by their dequantized values, in place.

    On a CPU, bitsandbytes would dequantize each layer at each use, twice in a training step. In 16
    bits the weights take four times the memory. A base without 4-bit weights stays as it is.

    Raises:
        ValueError: The base was evaluated, so its weights are repacked.
    """
    if "bitsandbytes" not in sys.modules:  # nothing is in 4 bits, and it takes 50 MB
        return
    import torch
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn.modules import Linear4bit, Params4bit

    for module in list(model.modules()):
        for name, layer in module.named_children():
            if isinstance(layer, Linear4bit) and isinstance(layer.weight, Params4bit):
                if getattr(layer.weight.quant_state, "packing_format_for_cpu", False):
                    raise ValueError(
                        "training a base that was evaluated: bitsandbytes has repacked its weights "
                        "for kernels without gradients; load it again"
                    )
                weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
                linear = torch.nn.Linear(1, 1, bias=False)
                linear.in_features, linear.out_features = layer.in_features, layer.out_features
                linear.weight = torch.nn.Parameter(weight, requires_grad=False)
                linear.bias = layer.bias
                setattr(module, name, linear)


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Write a GGUF file's model and tokenizer to ``folder`` as safetensors in bf16, atomically."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.save_pretrained(partial)
    # A model loaded from GGUF is dequantized but marked as quantized, so it can't be saved.
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
    config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(loaded.state_dict())
    model.save_pretrained(partial)
    partial.replace(folder)


ADAPTER = "default"  # PEFT's default name of an adapter


def attach_adapter(model: "PreTrainedModel", adapter: Path) -> "PeftModel":
    """Attach an adapter to the base.

    Raises:
        UserWarning: The adapter lacks weights for a layer, which PEFT would leave unadapted.
        ValueError: The base lacks a module that the adapter targets.
    """
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*missing adapter keys")
        warnings.filterwarnings("ignore", message="Unsupported layer type")  # norms, trained whole
        return PeftModel.from_pretrained(model, str(adapter))
