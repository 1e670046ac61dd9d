"""Ask, without gradients, what an objective wants to know beside the model's own word.

DPO and KTO compare with the model that the training starts from: the base, which is the model with
its adapter switched off, or after a warm start the adapter that it began with, whose weights are
put in place of the present ones. KTO also wants to know how far the model is from it under requests
that its answers don't belong to; a distillation asks the teacher. Either switch is for all threads
at once, so all shares are asked before the first is learned.
Imported late, since it loads torch.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch  # noqa: TID253 - this module is itself imported late

from components.train import asking
from components.train.batches import Batch, Share
from components.train.learning import Said
from components.train.objectives import losses
from components.train.objectives.settings import Objective

Each: TypeAlias = Callable[[Callable[[Share], torch.Tensor], Sequence[Share]], list[Any]]
"""Does something for each share, and may do so for several at a time."""

Start: TypeAlias = Sequence[tuple[torch.nn.Parameter, torch.Tensor]]
"""The weights that are trained, each with what it was when the training started."""


def start_of(model: torch.nn.Module) -> Start:
    """Remember the weights that will be trained as they are now."""
    learned = (weight for weight in model.parameters() if weight.requires_grad)
    return [(weight, weight.detach().clone()) for weight in learned]


def add(
    objective: Objective,
    batch: Batch,
    model: torch.nn.Module,
    teacher: torch.nn.Module | None,
    start: Start | None,
    each: Each,
) -> list[Share]:
    """Return the batch's shares with ``base`` ``[rows]``, ``drift`` or ``teacher`` among them.

    Args:
        objective: Says which of them are wanted.
        batch: The shares.
        model: The model that learns.
        teacher: That of a distillation.
        start: The weights of a warm start, which DPO and KTO compare with; without them it is the
            base alone.
        each: Does something for each share.
    """
    shares: list[Share] = batch["shares"]
    match objective.kind:
        case "sft" | "orpo":
            return shares
        case "distillation":
            assert teacher is not None
            told = each(lambda share: _logits(teacher, share), shares)
            return [{**share, "teacher": one} for share, one in zip(shares, told, strict=True)]
        case "dpo":
            return _with_base(shares, model, start, each)
        case "kto":
            drift = _drift(batch["strangers"], model, start, each)
            told = _with_base(shares, model, start, each)
            return [{**share, "drift": drift} for share in told]


def _with_base(
    shares: Sequence[Share], model: torch.nn.Module, start: Start | None, each: Each
) -> list[Share]:
    with _reference(model, start):
        told = each(lambda share: _rows(model, share), shares)
    return [{**share, "base": one} for share, one in zip(shares, told, strict=True)]


def _drift(
    strangers: Sequence[Share], model: torch.nn.Module, start: Start | None, each: Each
) -> torch.Tensor:
    if not strangers:
        return torch.tensor(0.0)
    said = torch.cat(each(lambda share: _rows(model, share), strangers))
    told = [share["base"] for share in _with_base(strangers, model, start, each)]
    return losses.drift_of(said, torch.cat(told))


@contextmanager
def _reference(model: torch.nn.Module, start: Start | None) -> Generator[None]:
    """Have the model answer as it did when the training started, until the end of the block.

    PEFT's own model may be inside of a wrapper for several GPUs.
    """
    adapted: Any = getattr(model, "module", model)
    if start is None:
        with adapted.disable_adapter():
            yield
        return
    now = [weight.data for weight, _ in start]
    for weight, before in start:
        weight.data = before
    try:
        yield
    finally:
        for (weight, _), learned in zip(start, now, strict=True):
            weight.data = learned


@torch.no_grad()
def _rows(model: torch.nn.Module, share: Share) -> torch.Tensor:
    return Said(asking.logits(model, share), share).rows


@torch.no_grad()
def _logits(model: torch.nn.Module, share: Share) -> torch.Tensor:
    return asking.logits(model, share)
