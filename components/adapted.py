"""Put an adapter folder on a base that is loaded, and take it off again without a trace."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

ADAPTER = "default"
"""How PEFT names an adapter that was given no name."""


def put_on(model: "PreTrainedModel", adapter: Path) -> "PeftModel":
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


def take_off(adapted: "PeftModel") -> None:
    """Give the base back as it was; PEFT itself would leave it the trained ``modules_to_save``."""
    from peft.utils.other import ModulesToSaveWrapper

    for module in adapted.modules():
        if isinstance(module, ModulesToSaveWrapper):
            module.set_adapter([])
    adapted.unload()
