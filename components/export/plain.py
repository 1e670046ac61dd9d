"""Tell which adapters are plain LoRA, all that servers other than PEFT know."""

import json
from collections.abc import Mapping
from pathlib import Path

from components.schema import Json

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

HARMLESS = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "corda_config",
        "eva_config",
        "exclude_modules",
        "inference_mode",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "loftq_config",
        "lora_alpha",
        "lora_dropout",
        "lora_ga_config",
        "megatron_config",
        "megatron_core",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "r",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
        "use_rslora",
    }
)
"""What PEFT may say of an adapter whose layers compute ``Wx + scale * BAx``, all with one scale."""


def config_of(adapter: Path) -> dict[str, Json]:
    """Read an adapter's configuration.

    Raises:
        ValueError: There is none: it is no PEFT adapter.
    """
    path = adapter / CONFIG
    if not path.is_file():
        raise ValueError(f"reading {adapter}: it has no {CONFIG}, so it is no PEFT adapter")
    read: dict[str, Json] = json.loads(path.read_text())
    return read


def objection(config: Mapping[str, Json]) -> str | None:
    """Say what keeps an adapter from being plain LoRA; ``None`` if nothing does."""
    if config.get("peft_type") != "LORA":
        return f"it is {config.get('peft_type')}, not LoRA"
    found = [
        name
        for name, value in sorted(config.items())
        if name not in HARMLESS and value not in (None, False, "none", [], {})
    ]
    return f"it is LoRA with {', '.join(found)}" if found else None


def bound_to(recipe: Mapping[str, Json]) -> str | None:
    """Name the only precision of the base on which an adapter is right; ``None`` if it is on all.

    LoftQ's begins with what the quantization lost (arXiv:2310.08659), and would add that to a base
    that lost nothing.
    """
    if recipe.get("init_lora_weights") != "loftq":
        return None
    return str(recipe.get("bnb_4bit_quant_type"))


def require(config: Mapping[str, Json], server: str) -> None:
    """Refuse an adapter that is not plain LoRA.

    Raises:
        ValueError: The message says why, and what would do.
    """
    if (why := objection(config)) is not None:
        raise ValueError(
            f"exporting for {server}: it takes plain LoRA only, and of this adapter {why}; export "
            "it merged instead"
        )
