"""A test decides whether a model computes the same on a tree as on separate rows."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from components.extensions.cpu.prefix_cache import forward
from components.models import base

PRECISIONS = ["fp32", "bf16"]


@pytest.fixture(params=PRECISIONS)
def model(request: pytest.FixtureRequest, tiny_base: Path) -> Iterator[Any]:
    yield base.load(tiny_base, request.param, for_training=False)[0]


def spoil(model: Any, **changes: object) -> Any:
    """Override arguments in each of a model's calls."""

    def forget(_: object, args: tuple[object, ...], options: dict[str, Any]) -> Any:
        return args, options | changes

    model.register_forward_pre_hook(forget, with_kwargs=True)
    return model


def test_a_model_that_uses_mask_and_positions_reads_a_tree(model: Any):
    assert forward.can_pack(model, nullcontext())


def test_a_model_that_ignores_its_attention_mask_reads_no_tree(model: Any):
    assert not forward.can_pack(spoil(model, attention_mask=None), nullcontext())


def test_a_model_that_ignores_positions_reads_no_tree(model: Any):
    assert not forward.can_pack(spoil(model, position_ids=None), nullcontext())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_context_that_changes_the_logits_reads_no_tree(tiny_base: Path, precision: Any):
    model, _ = base.load(tiny_base, precision, for_training=False)
    assert not forward.can_pack(model, Distorting(model))


def double(_: object, __: object, out: torch.Tensor) -> torch.Tensor:
    return out * 2


class Distorting:
    """Double a model's logits within the context."""

    def __init__(self, model: Any) -> None:
        self.head = model.lm_head

    def __enter__(self) -> None:
        self.hook = self.head.register_forward_hook(double)

    def __exit__(self, *_: object) -> None:
        self.hook.remove()


def test_a_16_bit_model_with_indistinguishable_logits_reads_no_tree(tiny_base: Path):
    numb: Any = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.bfloat16)
    for weight in numb.parameters():
        weight.data.zero_()
    assert not forward.can_pack(numb, nullcontext())
