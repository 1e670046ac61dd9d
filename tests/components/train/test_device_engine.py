"""The CPU engine is selected for CPUs only; training on CUDA doesn't use it."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch

from components.models import base
from components.train import device_engine, sft_trainer
from components.train.micro_batches import collate
from components.train.training_examples import Tokens
from tests.support.training_rows import taught


@pytest.mark.parametrize("device", ["cuda", "gpu", "meta", "mps"])
def test_only_the_cpu_has_an_engine(device: str) -> None:
    assert device_engine.for_device(device) is None
    assert device_engine.for_device("cpu") is not None


def test_a_model_on_another_device_is_called_without_the_engine(model: Path) -> None:
    asked, _ = base.load(model, "fp32", for_training=True)
    seen: list[dict[str, Any]] = []

    def listen(_: torch.nn.Module, __: object, arguments: dict[str, Any]) -> None:
        seen.append(arguments)

    asked.register_forward_pre_hook(listen, with_kwargs=True)
    asked.set_attn_implementation("eager")
    (share,) = collate([taught(Tokens([1, 2, 3, 4, 5], 2, 1.0))])["micro_batches"]
    for device in ("cpu", "meta"):
        elsewhere: Any = {
            name: each.to(device) if name not in ("row_sizes", "blocks") else each
            for name, each in share.items()
        }
        sft_trainer.answer_logits(cast("Any", asked).to(device), elsewhere)
    expected = {"input_ids", "position_ids", "attention_mask", "logits_to_keep", "use_cache"}
    assert [set(each) for each in seen] == [expected, expected]
