"""Ask, without gradients, what an objective wants to know beside the model's own word.

DPO and KTO compare with the base, which is the model with its adapter switched off; KTO also wants
to know how far the model is from the base under requests that its answers don't belong to; a
distillation asks the teacher. Switching an adapter off is for all threads at once, so all shares
are asked before the first is learned.
Imported late, since it loads torch.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeAlias, cast

import torch  # noqa: TID253 - this module is itself imported late

from components.train import asking
from components.train.batches import Batch, Share
from components.train.learning import Said
from components.train.objectives import losses
from components.train.objectives.settings import Objective

Each: TypeAlias = Callable[[Callable[[Share], torch.Tensor], Sequence[Share]], list[Any]]
"""Does something for each share, and may do so for several at a time."""


def add(
    objective: Objective,
    batch: Batch,
    model: torch.nn.Module,
    teacher: torch.nn.Module | None,
    each: Each,
) -> list[Share]:
    """Give the batch's shares with ``base`` ``[rows]``, ``drift`` or ``teacher`` among them."""
    shares: list[Share] = batch["shares"]
    match objective.kind:
        case "sft" | "orpo":
            return shares
        case "distillation":
            assert teacher is not None
            told = each(lambda share: _logits(teacher, share), shares)
            return [{**share, "teacher": one} for share, one in zip(shares, told, strict=True)]
        case "dpo":
            return _with_base(shares, model, each)
        case "kto":
            drift = _drift(batch["strangers"], model, each)
            return [{**share, "drift": drift} for share in _with_base(shares, model, each)]


def _with_base(shares: Sequence[Share], model: torch.nn.Module, each: Each) -> list[Share]:
    with _base(model):
        told = each(lambda share: _rows(model, share), shares)
    return [{**share, "base": one} for share, one in zip(shares, told, strict=True)]


def _drift(strangers: Sequence[Share], model: torch.nn.Module, each: Each) -> torch.Tensor:
    if not strangers:
        return torch.tensor(0.0)
    said = torch.cat(each(lambda share: _rows(model, share), strangers))
    told = [share["base"] for share in _with_base(strangers, model, each)]
    return losses.drift_of(said, torch.cat(told))


def _base(model: torch.nn.Module) -> AbstractContextManager[None]:
    """Switch the adapter off; PEFT's own model may be inside of a wrapper for several GPUs."""
    adapted: Any = getattr(model, "module", model)
    return cast("AbstractContextManager[None]", adapted.disable_adapter())


@torch.no_grad()
def _rows(model: torch.nn.Module, share: Share) -> torch.Tensor:
    return Said(asking.logits(model, share), share).rows


@torch.no_grad()
def _logits(model: torch.nn.Module, share: Share) -> torch.Tensor:
    return asking.logits(model, share)
