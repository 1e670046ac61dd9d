"""Whether a model reads rows in a tree as it reads them alone is found out by trying."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from components.evaluate.prefix_cache import forward
from components.models import base

PRECISIONS = ["fp32", "bf16"]


@pytest.fixture(params=PRECISIONS)
def model(request: pytest.FixtureRequest, tiny_base: Path) -> Iterator[Any]:
    yield base.load(tiny_base, request.param, for_training=False)[0]


def spoil(model: Any, **given: object) -> Any:
    """Have a model go without something that it is told, in each of its calls."""

    def forget(_: object, args: tuple[object, ...], told: dict[str, Any]) -> Any:
        return args, told | given

    model.register_forward_pre_hook(forget, with_kwargs=True)
    return model


def test_a_model_that_heeds_mask_and_positions_reads_a_tree(model: Any):
    assert forward.can_pack(model, nullcontext())


def test_a_model_that_ignores_its_attention_mask_reads_no_tree(model: Any):
    assert not forward.can_pack(spoil(model, attention_mask=None), nullcontext())


def test_a_model_that_ignores_positions_reads_no_tree(model: Any):
    assert not forward.can_pack(spoil(model, position_ids=None), nullcontext())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_way_of_computing_that_changes_what_a_model_says_reads_no_tree(
    tiny_base: Path, precision: Any
):
    model, _ = base.load(tiny_base, precision, for_training=False)
    assert not forward.can_pack(model, Distorting(model))


def double(_: object, __: object, out: torch.Tensor) -> torch.Tensor:
    return out * 2


class Distorting:
    """Within it, a model's last layer doubles what it says."""

    def __init__(self, model: Any) -> None:
        self.head = model.lm_head

    def __enter__(self) -> None:
        self.hook = self.head.register_forward_hook(double)

    def __exit__(self, *_: object) -> None:
        self.hook.remove()


def test_a_model_in_16_bits_of_which_nothing_can_be_told_apart_reads_no_tree(tiny_base: Path):
    numb: Any = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.bfloat16)
    for weight in numb.parameters():
        weight.data.zero_()
    assert not forward.can_pack(numb, nullcontext())
