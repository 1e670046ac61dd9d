"""Load the model that a distillation learns from.

Imported late, since it loads torch.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, cast

from peft import PeftModel  # noqa: TID253 - this module is itself imported late

from components import base as bases
from components import manifest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load(path: Path, tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedModel":
    """Load a model's folder in bf16, or an adapter's on the base that it names.

    Raises:
        ValueError: Its tokens are not those of ``tokenizer``, so that it can't say how likely it
            finds them.
    """
    config = path / "adapter_config.json"
    adapter = config.exists()
    folder = _base_of(path) if adapter else path
    model, own = bases.load(folder, "bf16", for_training=False)
    if own.get_vocab() != tokenizer.get_vocab():
        raise ValueError(
            f"loading the teacher {path}: its vocabulary of {len(own)} tokens is not the base's of "
            f"{len(tokenizer)}; a distillation wants two models with one tokenizer"
        )
    if adapter:
        return cast("PreTrainedModel", PeftModel.from_pretrained(model, str(path)).eval())
    return model


def _base_of(adapter: Path) -> Path:
    """Find an adapter's base: one of ours knows where that lay, whatever it is served as."""
    if manifest.is_finished(adapter):
        return Path(str(manifest.read(adapter)["base_path"]))
    return Path(
        json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    )
