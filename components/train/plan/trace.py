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
from components.train import cpu_engine, fit, micro_batches, peft_model
from components.train import fit as teachers
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


NO_FOLDER = Path()
"""A checkpoint to go on from: the first weights, which the base's may decide, are not computed."""


def adapted_without_weights(
    config: "PretrainedConfig", recipe: Recipe, attention: str | None
) -> "tuple[PeftModel, ParameterCounts]":
    """Build the base as it computes, its 4-bit weights written out, with the untrained adapter.

    Args:
        config: The base's.
        recipe: The adapter's.
        attention: The implementation's name; ``None`` is what transformers takes by itself.
    """
    model = build_without_weights(config, attention)
    quantized = _quantize(model, bases.quantization(recipe.precision, torch.bfloat16))
    if recipe.init_lora_weights == "eva":
        recipe = recipe.model_copy(update={"init_lora_weights": True})  # of the same shapes
    with torch.device("meta"):
        found = peft_model.attach_trainable(model, recipe, checkpoint=NO_FOLDER)
    bases.dequantize(found)  # on a CPU it is already
    return found, estimate.count_parameters(found, quantized)


def build_without_weights(
    config: "PretrainedConfig", attention: str | None = None
) -> "PreTrainedModel":
    """Build a base in bf16."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16, attn_implementation=attention
        )
    return model.train()


def teacher_without_weights(path: Path) -> "PreTrainedModel":
    """Build the model that a distillation learns from: a folder's, or the base of an adapter's."""
    folder = teachers.base_of_teacher(path)
    return build_without_weights(AutoConfig.from_pretrained(folder, local_files_only=True)).eval()


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


class LiveTensors(TorchDispatchMode):
    """Counts the bytes of tensors made since it was entered: all now, and at their highest.

    Those whose last dimension is ``words`` are logits and what is computed of them.
    """

    def __init__(self, known: Iterable[torch.Tensor], words: int) -> None:
        super().__init__()
        self._words = words
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
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self._note(leaf)
        return made

    def _note(self, tensor: torch.Tensor) -> None:
        storage, address = tensor.untyped_storage(), _address(tensor)
        if address in self._storages:
            return
        is_logits = tensor.dim() > 0 and tensor.shape[-1] == self._words
        kind, size = "logits" if is_logits else "activations", storage.nbytes()

        def gone(_: object) -> None:
            del self._storages[address]
            self.now[kind] -= size

        self._storages[address] = weakref.ref(storage, gone)
        self.now[kind] += size
        if sum(self.now.values()) > sum(self.most.values()):
            self.most = dict(self.now)


def give_fake_tensors(*models: torch.nn.Module | None) -> FakeTensorMode:
    """Put fakes of a CPU in the place of the models' ``meta`` tensors, tied ones in all places."""
    made: dict[int, torch.nn.Parameter] = {}
    with FakeTensorMode() as mode:
        for module in (module for model in filter(None, models) for module in model.modules()):
            for name, weight in list(module.named_parameters(recurse=False)):
                if id(weight) not in made:
                    fake = torch.empty(weight.shape, dtype=weight.dtype)
                    made[id(weight)] = torch.nn.Parameter(fake, weight.requires_grad)
                module.register_parameter(name, made[id(weight)])
            for name, buffer in list(module.named_buffers(recurse=False)):
                setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))
    return mode


def trace_step(
    adapted: torch.nn.Module,
    batch: "Batch",
    objective: "Objective",
    teacher: "PreTrainedModel | None",
    *,
    words: int,
    checkpointing: bool,
) -> StepMemory:
    """Compute a step of a batch that is one share, and count what lives.

    Args:
        adapted: The base with its adapter; of fakes, in their mode.
        batch: As ``batches.collate`` makes it; of fakes, as ``placed`` gives it.
        objective: What is learned.
        teacher: Of a distillation.
        words: The size of the vocabulary.
        checkpointing: Whether activations are computed anew.
    """
    _prepare_as_trainer(adapted, checkpointing=checkpointing)
    trainer = CompletionTrainer.__new__(CompletionTrainer)  # its loss alone is asked for
    trainer.objective, trainer.teacher = objective, teacher
    learned = [weight for weight in adapted.parameters() if weight.requires_grad]
    known = [weight for model in filter(None, (adapted, teacher)) for weight in _tensors(model)]
    living = LiveTensors(known, words)
    with living:
        torch.autograd.grad(trainer.batch_loss(adapted, batch), learned)
    return StepMemory(**living.most)


def fake_batch(batch: "Batch", mode: FakeTensorMode) -> "Batch":
    """Take a batch's shapes; what is read of it, counts of tokens and the blocks, stays."""
    return {
        name: [_fake_micro_batch(share, mode) for share in shares] for name, shares in batch.items()
    }


def _fake_micro_batch(share: "MicroBatch", mode: FakeTensorMode) -> dict[str, Any]:
    shapes: dict[str, Any] = {name: mode.from_tensor(tensor) for name, tensor in share.items()}
    read = {"row_tokens": int(share["row_tokens"])}
    read |= {name: share[name].numpy() for name in ("blocks", "sizes")}
    return shapes | read


def _tensors(model: torch.nn.Module) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers()]


def _address(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]


def _prepare_as_trainer(adapted: torch.nn.Module, *, checkpointing: bool) -> None:
    """Set the model up as the trainer does: bf16 where it may be, and what it gives in fp32."""
    prepared: Any = adapted
    if checkpointing:
        prepared.enable_input_require_grads()
        prepared.gradient_checkpointing_enable({"use_reentrant": False})
    computing = torch.autocast("cpu", dtype=torch.bfloat16)(prepared.forward)
    prepared.forward = convert_outputs_to_fp32(computing)


def step_memory(
    config: "PretrainedConfig", lessons: Sequence[TrainingExample], recipe: Recipe, device: Device
) -> tuple[ParameterCounts, StepMemory]:
    """Trace the largest share of a step and take the others in proportion to their tokens.

    Lanes keep the gradients of each share apart until all are there and can be added; without them
    those of one share are added to those before it.

    Args:
        config: The base's.
        lessons: The step's.
        recipe: The training's.
        device: Where it will be trained; on a CPU in lanes and with plain attention.
    """
    adapted, parameters = adapted_without_weights(
        config, recipe, "eager" if device == "cpu" else None
    )
    teacher, objective = None, recipe.objective
    if objective.kind == "distillation":
        teacher = teacher_without_weights(objective.teacher_model_name_or_path)
        size = sum(weight.nbytes for weight in teacher.parameters())
        parameters = replace(parameters, teacher_bytes=size)
    mode = give_fake_tensors(adapted, teacher)
    at_a_time = 1
    if engine := cpu_engine.for_device(device):
        held = engine.prepare(adapted, holds_head=True)
        unquantized = parameters.unquantized_bytes + held
        parameters = replace(parameters, unquantized_bytes=unquantized)
        at_a_time = engine.lanes(adapted)
    made = micro_batches.collate(
        [asdict(lesson) for lesson in lessons], fit.batch_layout(recipe, lanes=at_a_time)
    )
    shares = sorted(made["shares"], key=_token_count, reverse=True)
    together = shares[:at_a_time]
    largest = fake_batch(made | {"shares": shares[:1]}, mode)
    with mode:
        traced = trace_step(
            adapted,
            largest,
            objective,
            teacher,
            words=config.get_text_config().vocab_size,
            checkpointing=recipe.gradient_checkpointing,
        )
    apart = at_a_time > 1 and len(shares) > 1
    waiting = len(shares) - len(together)
    traced = StepMemory(
        activations=round(
            traced.activations * _step_ratio([_token_count(one) for one in together])
        ),
        logits=round(traced.logits * _step_ratio([len(one["labels"]) for one in together])),
        gradient_sets=len(shares) + 1 if apart else 1,
        sets_before=waiting if apart else min(waiting, 1),
    )
    return parameters, traced


def _token_count(share: "MicroBatch") -> int:
    return len(share["input_ids"])


def _step_ratio(sizes: Sequence[int]) -> float:
    return sum(sizes) / sizes[0]
