"""Load, quantize, hash and convert a base model; attach and detach an adapter."""

import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from safetensors import safe_open

from components.models import device
from components.models.device import Half
from components.store import manifest

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch.nn import Module
    from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase


Precision: TypeAlias = Literal["nf4", "nf4-single", "fp4", "fp4-single", "bf16", "fp32"]
"""What a base's weights are held in. ``nf4`` is QLoRA's 4-bit NormalFloat, ``fp4`` its 4-bit float;
both quantize their constants, too (double quantization), unless they are ``-single``."""

CONTENT = (
    "*.safetensors",
    "config.json",
    "adapter_config.json",
    "tokenizer*",
    "*.jinja",
    "generation_config.json",
)
"""The files that decide what a model answers."""


def content_hash(path: Path) -> str:
    """Digest the model's files, names and bytes; equal for equal copies wherever they lie."""
    files = sorted({file for pattern in CONTENT for file in path.glob(pattern)})
    return manifest.digest({file.name: manifest.file_digest(file) for file in files})


def load(
    path: Path, precision: Precision, *, for_training: bool, on_host: bool = False
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Load base and tokenizer, on the process's CUDA device if there is one.

    Each use loads its own, and says which it is. Training computes as ``hardware`` says, evaluation
    and serving in the same 16 bits on CUDA and in fp32 on a CPU, where bf16 answers depend on the
    batch they stand in. There a 4-bit base is held as the numbers that its weights stand for, in
    eight times the memory: with AVX512-BF16, bitsandbytes repacks what is evaluated for a kernel
    that rounds to bf16, has no gradients, and leaves DoRA, which reads the weights, with noise.

    Args:
        path: The base's folder.
        precision: What its weights are held in.
        for_training: Whether it will be trained on, and never evaluated, or the other way round.
        on_host: Load it into the host's memory on CUDA, too: it will be split over several devices.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    cuda, compute = torch.cuda.is_available(), computes_in(precision, for_training=for_training)
    model = AutoModelForCausalLM.from_pretrained(
        path,
        dtype=compute,
        quantization_config=quantization(precision, compute),
        device_map={"": torch.cuda.current_device()} if cuda and not on_host else {"": "cpu"},
        attn_implementation=device.best_computing().attention if for_training else None,
        local_files_only=True,
    )
    model.train(for_training)
    if not cuda and not for_training:
        dequantize(model)
    return model, AutoTokenizer.from_pretrained(path, local_files_only=True)


def computes_in(precision: Precision, *, for_training: bool) -> "torch.dtype":
    """Say in what a base of this precision computes on this machine; see ``load``."""
    import torch

    on_cpu = not torch.cuda.is_available() and not for_training
    kind = compute_type(precision, on_cpu=on_cpu, half=device.best_computing().half)
    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[kind]


def compute_type(
    precision: Precision, *, on_cpu: bool, half: Half
) -> Literal["fp32", "fp16", "bf16"]:
    """Say in what a base of this precision computes, where 16 bits are ``half``; see ``load``."""
    if precision == "fp32" or (on_cpu and precision != "bf16"):
        return "fp32"
    return "bf16" if precision == "bf16" else half


def write_plain(path: Path, precision: Precision, folder: Path) -> None:
    """Write a 4-bit base as the numbers that its weights stand for, which any program can read.

    They are held in what a base of this precision computes in, as ``load`` has them when it is
    evaluated: on a CPU to the bit, and on CUDA, where bitsandbytes computes each anew when it is
    used. The tokenizer is not written.
    """
    model, _ = load(path, precision, for_training=False)
    dequantize(model)
    # transformers would say of these numbers that they are in 4 bits.
    model.hf_quantizer = None  # pyright: ignore[reportArgumentType]
    model.is_quantized = False  # pyright: ignore[reportArgumentType]
    delattr(model.config, "quantization_config")
    model.save_pretrained(folder)


def is_quantized(precision: Precision) -> bool:
    """Tell whether a base of this precision is held in 4 bits."""
    return precision not in ("bf16", "fp32")


def quantization(precision: Precision, compute: "torch.dtype") -> "BitsAndBytesConfig | None":
    """Say how weights are held in 4 bits and what computes with them; ``None`` if they aren't."""
    from transformers import BitsAndBytesConfig

    if not is_quantized(precision):
        return None
    kind, _, single = precision.partition("-")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=not single,
        bnb_4bit_compute_dtype=compute,
    )


def stored(folder: Path, name: str) -> "torch.Tensor":
    """Read one weight as the base's files hold it, before any quantization.

    Raises:
        ValueError: They hold none of this name.
    """
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            if name in tensors.keys():  # noqa: SIM118 - it is no mapping
                return tensors.get_tensor(name)
    raise ValueError(f"reading {folder}: its safetensors hold no {name}")


def dequantize(model: "Module") -> None:
    """Hold a 4-bit base's weights as the numbers they stand for, which stay NF4's.

    On a CPU, bitsandbytes computes these numbers anew in each use of each layer, twice in a step of
    a training. In 16 bits they take four times the memory. A base without such weights stays as is.

    Raises:
        ValueError: The base was evaluated.
    """
    import torch
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn.modules import Linear4bit, Params4bit

    for module in list(model.modules()):
        for name, layer in module.named_children():
            if isinstance(layer, Linear4bit) and isinstance(layer.weight, Params4bit):
                if getattr(layer.weight.quant_state, "packing_format_for_cpu", False):
                    raise ValueError(
                        "training a base that was evaluated: bitsandbytes has repacked its weights "
                        "for kernels without gradients; load it afresh"
                    )
                weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
                plain = torch.nn.Linear(1, 1, bias=False)
                plain.in_features, plain.out_features = layer.in_features, layer.out_features
                plain.weight = torch.nn.Parameter(weight, requires_grad=False)
                plain.bias = layer.bias
                setattr(module, name, plain)


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Write a GGUF file's model and tokenizer to ``folder`` as safetensors in bf16.

    The folder appears only when it is complete.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.save_pretrained(partial)
    # What is read from GGUF is dequantized but says that it is not, so it refuses to be saved.
    read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
    config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(read.state_dict())
    model.save_pretrained(partial)
    partial.replace(folder)


ADAPTER = "default"
"""How PEFT names an adapter that was given no name."""


def attach_adapter(model: "PreTrainedModel", adapter: Path) -> "PeftModel":
    """Put an adapter on the base.

    One that lacks weights for a layer would leave it as it was: PEFT's warning is an error.

    Raises:
        UserWarning: Weights are missing.
        ValueError: The base has no module that the adapter is for.
    """
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*missing adapter keys")
        warnings.filterwarnings("ignore", message="Unsupported layer type")  # norms, trained whole
        return PeftModel.from_pretrained(model, str(adapter))


def detach_adapter(adapted: "PeftModel") -> None:
    """Give the base back as it was; PEFT itself would leave it the trained ``modules_to_save``."""
    from peft.utils.other import ModulesToSaveWrapper

    for module in adapted.modules():
        if isinstance(module, ModulesToSaveWrapper):
            module.set_adapter([])
    adapted.unload()
