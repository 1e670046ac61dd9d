"""Trace the memory of a training step on fake tensors, without weights."""

import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 - this module is itself imported late
from accelerate.utils import convert_outputs_to_fp32
from bitsandbytes.functional import quantize_4bit  # noqa: TID253 - as above
from bitsandbytes.nn.modules import Linear4bit, Params4bit  # noqa: TID253 - as above
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: TID253 - as above
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: TID253 - as above
from torch.utils._pytree import tree_leaves  # noqa: TID253 - as above
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: TID253 - as above
from transformers.integrations.bitsandbytes import (  # noqa: TID253 - as above
    replace_with_bnb_linear,
)
from transformers.quantizers.base import get_keys_to_not_convert  # noqa: TID253 - as above

from components.models import base as bases
from components.models.device import Computing, Products, best_computing
from components.train import device_engine, fit, peft_model
from components.train.micro_batches import collate
from components.train.plan import estimate
from components.train.plan.estimate import Device, ParameterCounts, StepMemory
from components.train.recipe import Recipe
from components.train.sft_trainer import CompletionTrainer
from components.train.training_examples import TrainingExample

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import BitsAndBytesConfig, PretrainedConfig, PreTrainedModel

    from components.train.micro_batches import Batch, MicroBatch
    from components.train.recipe import Objective


NO_FOLDER = Path()  # a checkpoint to resume from, so that initial weights are not computed

ON_GPU = Computing("bf16", "sdpa", fuses=False, widens=False)  # as most GPUs compute

TYPES: dict[Products, torch.dtype] = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
}


def adapted_without_weights(
    config: "PretrainedConfig", recipe: Recipe, computing: Computing
) -> "tuple[PeftModel, ParameterCounts]":
    """Build the dequantized base with an untrained adapter on ``meta``, and count its parameters.

    Attention is ``eager`` if it is computed so, otherwise transformers' default.
    """
    dtype = TYPES[bases.compute_type(recipe.precision, computing.products)]
    model = build_without_weights(
        config, dtype, "eager" if computing.attention == "eager" else None
    )
    quantized = _quantize(model, bases.quantization(recipe.precision, dtype))
    if recipe.init_lora_weights == "eva":
        recipe = recipe.model_copy(update={"init_lora_weights": True})  # of the same shapes
    with torch.device("meta"):
        adapted = peft_model.attach_trainable(
            model, recipe, checkpoint=NO_FOLDER, computing=computing
        )
    bases.dequantize(adapted)  # on a CPU it already is
    return adapted, estimate.count_parameters(adapted, quantized, dtype.itemsize)


def build_without_weights(
    config: "PretrainedConfig", dtype: torch.dtype, attention: str | None = None
) -> "PreTrainedModel":
    """Build a base on ``meta``, in training mode."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    return model.train()


def _quantize(
    model: "PreTrainedModel", quantization: "BitsAndBytesConfig | None"
) -> dict[str, int]:
    """Quantize the base in place as ``bases.load`` does; return each quantized weight's size."""
    if quantization is None:
        return {}
    # Fills bitsandbytes' cached tables with real values; on meta tensors they would have none.
    quantize_4bit(torch.zeros(64), compress_statistics=True)
    replace_with_bnb_linear(model, get_keys_to_not_convert(model), quantization)
    sizes: dict[str, int] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, Linear4bit):
            sizes[name] = layer.in_features * layer.out_features
            with torch.device("meta"):
                _quantize_layer(layer, quantization.bnb_4bit_compute_dtype)
    vars(model)["is_loaded_in_4bit"] = True  # as from_pretrained sets it
    return sizes


def _quantize_layer(layer: Linear4bit, dtype: torch.dtype) -> None:
    quantized: Any = layer
    make_params: Any = Params4bit
    kind = {name: getattr(layer.weight, name) for name in ("compress_statistics", "quant_type")}
    packed, state = quantize_4bit(quantized.weight.data.to(dtype), **kind)
    quantized.quant_state = state
    quantized.weight = make_params(
        packed, quant_state=state, module=layer, bnb_quantized=True, **kind
    )


class LiveTensors(TorchDispatchMode):
    """Counts the bytes of live tensors created within it: ``now``, and at their peak, ``most``.

    Tensors whose last dimension is ``vocab_size`` count as logits. ``known`` tensors don't count.
    """

    def __init__(self, known: Iterable[torch.Tensor], vocab_size: int) -> None:
        super().__init__()
        self._vocab_size = vocab_size
        self._storages: dict[int, object] = {_address(tensor): tensor for tensor in known}
        self.now = {"activations": 0, "logits": 0}
        self.most = dict(self.now)

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._track(leaf)
        return result

    def _track(self, tensor: torch.Tensor) -> None:
        storage, address = tensor.untyped_storage(), _address(tensor)
        if address in self._storages:
            return
        is_logits = tensor.dim() > 0 and tensor.shape[-1] == self._vocab_size
        kind, size = "logits" if is_logits else "activations", storage.nbytes()

        def untrack(_: object) -> None:
            del self._storages[address]
            self.now[kind] -= size

        self._storages[address] = weakref.ref(storage, untrack)
        self.now[kind] += size
        if sum(self.now.values()) > sum(self.most.values()):
            self.most = dict(self.now)


def use_fake_tensors(*models: torch.nn.Module | None) -> FakeTensorMode:
    """Replace the models' ``meta`` tensors by fake CPU tensors, in place; tied ones stay tied."""
    fakes: dict[int, torch.nn.Parameter] = {}
    with FakeTensorMode() as mode:
        for module in (module for model in filter(None, models) for module in model.modules()):
            for name, weight in list(module.named_parameters(recurse=False)):
                if id(weight) not in fakes:
                    # torch's fake product of experts takes no other type, unlike its real one
                    is_expert = type(module).__name__.endswith("Experts")
                    dtype = torch.bfloat16 if is_expert else weight.dtype
                    fake = torch.empty(weight.shape, dtype=dtype)
                    fakes[id(weight)] = torch.nn.Parameter(fake, weight.requires_grad)
                module.register_parameter(name, fakes[id(weight)])
            for name, buffer in list(module.named_buffers(recurse=False)):
                setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))
    return mode


def trace_step(
    adapted: torch.nn.Module,
    batch: "Batch",
    objective: "Objective",
    teacher: "PreTrainedModel | None",
    *,
    vocab_size: int,
    checkpointing: bool,
    products: Products,
) -> StepMemory:
    """Return the peak memory of a step with one micro-batch.

    Args:
        adapted: The base with its adapter; with fake tensors, call within their mode.
        batch: Of ``micro_batches.collate``, or of ``fake_batch`` with fake tensors.
        objective: The training's.
        teacher: A distillation's.
        vocab_size: The last dimension of logits.
        checkpointing: Whether activations are recomputed in the backward pass.
        products: The type of products.
    """
    prepared: Any = adapted  # as the trainer does
    if checkpointing:
        prepared.enable_input_require_grads()
        prepared.gradient_checkpointing_enable({"use_reentrant": False})
    if products != "fp32":
        mixed = torch.autocast("cpu", dtype=TYPES[products])(prepared.forward)
        prepared.forward = convert_outputs_to_fp32(mixed)
    trainer = CompletionTrainer.__new__(CompletionTrainer)  # only its loss is used
    trainer.objective, trainer.teacher = objective, teacher
    trained = [weight for weight in adapted.parameters() if weight.requires_grad]
    models = [adapted] if teacher is None else [adapted, teacher]
    known = [tensor for model in models for tensor in (*model.parameters(), *model.buffers())]
    live = LiveTensors(known, vocab_size)
    with live:
        torch.autograd.grad(trainer.batch_loss(adapted, batch), trained)
    return StepMemory(**live.most)


def fake_batch(batch: "Batch", mode: FakeTensorMode) -> "Batch":
    """Return the batch with fake tensors, except for those whose values the code reads."""
    return {
        name: [_fake_micro_batch(micro_batch, mode) for micro_batch in micro_batches]
        for name, micro_batches in batch.items()
    }


def _fake_micro_batch(micro_batch: "MicroBatch", mode: FakeTensorMode) -> dict[str, Any]:
    return {
        **{name: mode.from_tensor(tensor) for name, tensor in micro_batch.items()},
        **{name: micro_batch[name].numpy() for name in ("blocks", "row_sizes")},
    }


def _address(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]


def step_memory(
    config: "PretrainedConfig", examples: Sequence[TrainingExample], recipe: Recipe, device: Device
) -> tuple[ParameterCounts, StepMemory]:
    """Trace a step's largest micro-batch and scale by the tokens of those that run in parallel.

    On a CPU, the training uses threads and eager attention.
    """
    computing = best_computing() if device == "cpu" else ON_GPU
    adapted, parameters = adapted_without_weights(config, recipe, computing)
    teacher, objective = None, recipe.objective
    if objective.kind == "distillation":
        folder = fit.base_of_teacher(objective.teacher_model_name_or_path)
        teacher_config = AutoConfig.from_pretrained(folder, local_files_only=True)
        kind = bases.type_on_cpu("bf16") if device == "cpu" else "bf16"  # as it is loaded
        teacher = build_without_weights(teacher_config, TYPES[kind]).eval()
        size = sum(weight.nbytes for weight in teacher.parameters())
        parameters = replace(parameters, teacher_bytes=size)
    mode = use_fake_tensors(adapted, teacher)
    threads = 1
    if engine := device_engine.for_device(device):
        cached = engine.prepare(adapted, caches_head=computing.products != "fp32")
        unquantized = parameters.unquantized_bytes + cached
        parameters = replace(parameters, unquantized_bytes=unquantized)
        threads = engine.thread_count(adapted)
    batch = collate(
        [asdict(example) for example in examples], fit.batch_layout(recipe, threads=threads)
    )
    micro_batches = sorted(batch["micro_batches"], key=_token_count, reverse=True)
    parallel = micro_batches[:threads]
    largest = fake_batch(batch | {"micro_batches": micro_batches[:1]}, mode)
    with mode:
        traced = trace_step(
            adapted,
            largest,
            objective,
            teacher,
            vocab_size=config.get_text_config().vocab_size,
            checkpointing=recipe.gradient_checkpointing,
            products=computing.products,
        )
    # Threads keep each micro-batch's gradients until all can be added; without threads they are
    # accumulated one after the other.
    keeps_all = threads > 1 and len(micro_batches) > 1
    earlier = len(micro_batches) - len(parallel)
    scaled = StepMemory(
        activations=round(traced.activations * _ratio_to_largest(map(_token_count, parallel))),
        logits=round(traced.logits * _ratio_to_largest(len(batch["labels"]) for batch in parallel)),
        gradient_sets=len(micro_batches) + 1 if keeps_all else 1,
        sets_before=earlier if keeps_all else min(earlier, 1),
    )
    return parameters, scaled


def _token_count(micro_batch: "MicroBatch") -> int:
    return len(micro_batch["input_ids"])


def _ratio_to_largest(sizes: Iterable[int]) -> float:
    largest, *others = sizes
    return (largest + sum(others)) / largest
