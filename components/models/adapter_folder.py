"""An adapter's folder: its files, what they may be, copies of it, and the licence of its base."""

import json
import re
import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import cast

import yaml

from components.schema import Json
from components.store import manifest

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
"""PEFT settings of plain LoRA, whose layers compute ``Wx + scale * BAx``, all with one scale."""


def adapter_config(adapter: Path) -> dict[str, Json]:
    """Read an adapter's configuration; raise ``ValueError`` if the folder is not a PEFT adapter."""
    path = adapter / CONFIG
    if not path.is_file():
        raise ValueError(f"reading {adapter}: it has no {CONFIG}, so it is not a PEFT adapter")
    read: dict[str, Json] = json.loads(path.read_text())
    return read


def plain_lora_objection(config: Mapping[str, Json]) -> str | None:
    """Return why an adapter is not plain LoRA; ``None`` if it is."""
    if config.get("peft_type") != "LORA":
        return f"it is {config.get('peft_type')}, not LoRA"
    others = [
        name
        for name, value in sorted(config.items())
        if name not in HARMLESS and value not in (None, False, "none", [], {})
    ]
    return f"it is LoRA with {', '.join(others)}" if others else None


def required_precision(recipe: Mapping[str, Json]) -> str | None:
    """Return the only base precision that an adapter is valid on; ``None`` if any is.

    A LoftQ adapter starts as the quantization error (arXiv:2310.08659), which must not be added to
    an unquantized base.
    """
    if recipe.get("init_lora_weights") != "loftq":
        return None
    return str(recipe.get("bnb_4bit_quant_type"))


def require_plain_lora(config: Mapping[str, Json], server: str) -> None:
    """Raise ``ValueError`` with the reason and the alternative if an adapter isn't plain LoRA."""
    if (why := plain_lora_objection(config)) is not None:
        raise ValueError(
            f"exporting for {server}: it loads plain LoRA only, but this adapter is not: {why}; "
            "export it merged instead"
        )


LICENCE_FILES = ("LICENSE*", "LICENCE*", "COPYING*")


def base_licence(base: Path) -> str | None:
    """Return the licence in the base's model card, else the first line of its licence file.

    ``None`` if the folder has neither, which is not a permission.
    """
    card = base / "README.md"
    if card.is_file() and (named := _licence_of_card(card.read_text(errors="replace"))):
        return named
    for file in (file for pattern in LICENCE_FILES for file in sorted(base.glob(pattern))):
        if file.is_file() and (text := file.read_text(errors="replace").strip()):
            return text.splitlines()[0].strip()
    return None


def _licence_of_card(card: str) -> str | None:
    """Return ``license_name`` or ``license`` of the front matter, as model hubs define it."""
    front = re.match(r"---\n(.*?)\n---", card, re.DOTALL)
    try:
        read: object = yaml.safe_load(front.group(1)) if front else None
    except yaml.YAMLError:
        return None
    if not isinstance(read, dict):
        return None
    fields = cast("dict[str, object]", read)
    named = fields.get("license_name") or fields.get("license")
    if isinstance(named, list):
        return ", ".join(str(name) for name in cast("list[object]", named)) or None
    return str(named) if named else None


CARD = "README.md"

PICKLED = (".bin", ".ckpt", ".pkl", ".pickle", ".pt", ".pth")
"""Endings of files that can run code when they are loaded, unlike safetensors."""


def name_base(adapter: Path, name: str) -> None:
    """Set ``base_model_name_or_path``: PEFT loads it, vLLM compares it with its served model."""
    config = {**adapter_config(adapter), "base_model_name_or_path": name}
    manifest.write_atomically(adapter / CONFIG, json.dumps(config, indent=2) + "\n")


def require_safe(adapter: Path) -> None:
    """Raise ``ValueError`` if an adapter has pickled files."""
    pickled = sorted(path.name for path in adapter.rglob("*") if path.suffix in PICKLED)
    if pickled:
        raise ValueError(f"{adapter} holds {', '.join(pickled)}, expected only safetensors")


def copy_adapter(adapter: Path, to: Path, *, card: str, served_as: str | None = None) -> Path:
    """Copy a finished adapter to a new folder and return it.

    ``card`` is the copy's ``README.md``, ``served_as`` its name of the base, unchanged by default.

    Raises:
        FileNotFoundError: The adapter is unfinished.
        ValueError: It was changed since, or has pickled files.
    """
    body = manifest.read_untouched(adapter)
    require_safe(adapter)
    to.mkdir(parents=True)
    files = body["files"]
    assert isinstance(files, dict)
    for name in files.keys() - {CARD}:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(adapter / name, to / name)
    (to / CARD).write_text(card)
    if served_as is not None:
        name_base(to, served_as)
    # The copy is the same adapter, so its time stays.
    finished = datetime.fromisoformat(str(body["created_at"]))
    kept = {name: value for name, value in body.items() if name != "files"}
    manifest.write(to, kind="adapter", now=finished, body=kept)
    return to
