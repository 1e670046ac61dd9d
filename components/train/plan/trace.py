"""Run a training step without computing it, and add up what lives at its highest.

The tensors are torch's fakes: they have shapes and no memory, so a step of a model of any size can
be run. Batch, loss and gradients are the training's own, so whatever a method or an objective adds
is in the sum. What kernels take for themselves while they compute is not.
Imported late, since it loads torch.
"""

import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 - this module is itself imported late
from accelerate.utils import convert_outputs_to_fp32
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: TID253 - as above
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: TID253 - as above
from torch.utils._pytree import tree_leaves  # noqa: TID253 - as above

from components.train.completion import CompletionTrainer
from components.train.plan.memory import Step

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from components.train.batches import Batch, Share
    from components.train.objectives.settings import Objective


class Living(TorchDispatchMode):
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


def give_shapes(*models: torch.nn.Module | None) -> FakeTensorMode:
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


def step(
    adapted: torch.nn.Module,
    batch: "Batch",
    objective: "Objective",
    teacher: "PreTrainedModel | None",
    *,
    words: int,
    checkpointing: bool,
) -> Step:
    """Compute a step of a batch that is one share, and count what lives.

    Args:
        adapted: The base with its adapter; of fakes, in their mode.
        batch: As ``batches.collate`` makes it; of fakes, as ``placed`` gives it.
        objective: What is learned.
        teacher: Of a distillation.
        words: The size of the vocabulary.
        checkpointing: Whether activations are computed anew.
    """
    _as_accelerate(adapted, checkpointing=checkpointing)
    trainer = CompletionTrainer.__new__(CompletionTrainer)  # its loss alone is asked for
    trainer.objective, trainer.teacher = objective, teacher
    learned = [weight for weight in adapted.parameters() if weight.requires_grad]
    known = [weight for model in filter(None, (adapted, teacher)) for weight in _tensors(model)]
    living = Living(known, words)
    with living:
        torch.autograd.grad(trainer.batch_loss(adapted, batch), learned)
    return Step(**living.most)


def placed(batch: "Batch", mode: FakeTensorMode) -> "Batch":
    """Take a batch's shapes; what is read of it, counts of tokens and the blocks, stays."""
    return {name: [_placed(share, mode) for share in shares] for name, shares in batch.items()}


def _placed(share: "Share", mode: FakeTensorMode) -> dict[str, Any]:
    shapes: dict[str, Any] = {name: mode.from_tensor(tensor) for name, tensor in share.items()}
    read = {"row_tokens": int(share["row_tokens"])}
    read |= {name: share[name].numpy() for name in ("blocks", "sizes")}
    return shapes | read


def _tensors(model: torch.nn.Module) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers()]


def _address(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]


def _as_accelerate(adapted: torch.nn.Module, *, checkpointing: bool) -> None:
    """Set the model up as the trainer does: bf16 where it may be, and what it gives in fp32."""
    prepared: Any = adapted
    if checkpointing:
        prepared.enable_input_require_grads()
        prepared.gradient_checkpointing_enable({"use_reentrant": False})
    computing = torch.autocast("cpu", dtype=torch.bfloat16)(prepared.forward)
    prepared.forward = convert_outputs_to_fp32(computing)
