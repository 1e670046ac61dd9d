"""Modules that are trained whole: all of a small model, or some beside an adapter.

PEFT's way to train a layer norm is to train a copy of it and save that. It works for any module, so
a model of which every module is copied is trained in full: the base stays beside it as it was, the
result is a PEFT folder like any other, and merging it gives the trained model.
Imported late, since it loads torch.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from peft import LNTuningConfig  # noqa: TID253 - this module is itself imported late
from peft.tuners.ln_tuning.layer import LNTuningLayer  # noqa: TID253 - as above

from components.adapted import ADAPTER

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel


def config(model: "PreTrainedModel") -> LNTuningConfig:
    """Name every module that has weights of its own."""
    names = [name for name, module in model.named_modules() if _owns_weights(module)]
    return LNTuningConfig(task_type="CAUSAL_LM", target_modules=names)


def tie(adapted: "PeftModel") -> None:
    """Let the copies of embedding and output layer be one weight where the base's are one."""
    base = cast("PreTrainedModel", adapted.get_base_model())
    if not base.config.tie_word_embeddings:
        return
    inputs, outputs = base.get_input_embeddings(), base.get_output_embeddings()
    assert isinstance(inputs, LNTuningLayer)
    assert isinstance(outputs, LNTuningLayer)
    weight = inputs.ln_tuning_layers[ADAPTER].get_parameter("weight")
    outputs.ln_tuning_layers[ADAPTER].register_parameter("weight", weight)


@contextmanager
def hidden_from_trl(adapted: "PeftModel") -> Generator[None]:
    """Hide the output layer while TRL makes a trainer.

    It refuses one that is trained, since its own loss reads the weight of the base's; ours asks the
    model for its logits.
    """
    adapted.get_output_embeddings = lambda: None  # pyright: ignore[reportArgumentType]
    try:
        yield
    finally:
        del adapted.get_output_embeddings


def require_trainable(model: "PreTrainedModel", names: Sequence[str]) -> None:
    """Refuse ``modules_to_save`` that the base hasn't got, or holds in 4 bits.

    Raises:
        ValueError: It says which, and what could be named.
    """
    for wanted in names:
        found = {name: one for name, one in model.named_modules() if name.endswith(wanted)}
        if not found:
            known = sorted({name.rpartition(".")[2] for name, _ in model.named_modules()} - {""})
            raise ValueError(
                f"modules_to_save names {wanted}, which this base hasn't got; it has "
                f"{', '.join(one for one in known if not one.isdigit())}"
            )
        for name, module in found.items():
            if not all(weight.is_floating_point() for weight in module.parameters()):
                raise ValueError(
                    f"modules_to_save names {wanted}, and {name} is held in 4 bits, which a step "
                    "would not change: set bnb_4bit_quant_type to null, or give it an adapter"
                )


def _owns_weights(module: "torch.nn.Module") -> bool:
    return next(module.parameters(recurse=False), None) is not None
