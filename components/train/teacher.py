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

ADAPTER = "adapter_config.json"


def load(path: Path, tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedModel":
    """Load a model's folder in bf16, or an adapter's on the base that it names.

    Raises:
        ValueError: Its tokens are not those of ``tokenizer``, so that it can't say how likely it
            finds them.
    """
    model, own = bases.load(model_folder(path), "bf16", for_training=False)
    if own.get_vocab() != tokenizer.get_vocab():
        raise ValueError(
            f"loading the teacher {path}: its vocabulary of {len(own)} tokens is not the base's of "
            f"{len(tokenizer)}; a distillation wants two models with one tokenizer"
        )
    if (path / ADAPTER).exists():
        return cast("PreTrainedModel", PeftModel.from_pretrained(model, str(path)).eval())
    return model


def model_folder(path: Path) -> Path:
    """Find the base of an adapter's folder; a model's is its own.

    An adapter of ours knows where its base lay, whatever that is served as.
    """
    config = path / ADAPTER
    if not config.exists():
        return path
    if manifest.is_finished(path):
        return Path(str(manifest.read(path)["base_path"]))
    return Path(json.loads(config.read_text())["base_model_name_or_path"])
