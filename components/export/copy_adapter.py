"""Copy a finished adapter out: PEFT's own files, NIM's folder, the base's licence."""

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
"""What PEFT may say of an adapter whose layers compute ``Wx + scale * BAx``, all with one scale."""


def adapter_config(adapter: Path) -> dict[str, Json]:
    """Read an adapter's configuration.

    Raises:
        ValueError: There is none: it is no PEFT adapter.
    """
    path = adapter / CONFIG
    if not path.is_file():
        raise ValueError(f"reading {adapter}: it has no {CONFIG}, so it is no PEFT adapter")
    read: dict[str, Json] = json.loads(path.read_text())
    return read


def plain_lora_objection(config: Mapping[str, Json]) -> str | None:
    """Say what keeps an adapter from being plain LoRA; ``None`` if nothing does."""
    if config.get("peft_type") != "LORA":
        return f"it is {config.get('peft_type')}, not LoRA"
    found = [
        name
        for name, value in sorted(config.items())
        if name not in HARMLESS and value not in (None, False, "none", [], {})
    ]
    return f"it is LoRA with {', '.join(found)}" if found else None


def recipe_objection(recipe: Mapping[str, Json]) -> str | None:
    """Name the only precision of the base on which an adapter is right; ``None`` if it is on all.

    LoftQ's begins with what the quantization lost (arXiv:2310.08659), and would add that to a base
    that lost nothing.
    """
    if recipe.get("init_lora_weights") != "loftq":
        return None
    return str(recipe.get("bnb_4bit_quant_type"))


def require_plain_lora(config: Mapping[str, Json], server: str) -> None:
    """Refuse an adapter that is not plain LoRA.

    Raises:
        ValueError: The message says why, and what would do.
    """
    if (why := plain_lora_objection(config)) is not None:
        raise ValueError(
            f"exporting for {server}: it takes plain LoRA only, and of this adapter {why}; export "
            "it merged instead"
        )


LICENCE_FILES = ("LICENSE*", "LICENCE*", "COPYING*")


def base_licence(base: Path) -> str | None:
    """Give the licence that the base's model card names, or the first line of its licence's file.

    ``None`` where the folder says nothing; that is no permission.
    """
    card = base / "README.md"
    if card.is_file() and (named := _licence_of_card(card.read_text(errors="replace"))):
        return named
    files = [
        file for pattern in LICENCE_FILES for file in sorted(base.glob(pattern)) if file.is_file()
    ]
    texts = (file.read_text(errors="replace") for file in files)
    lines = (line.strip() for text in texts for line in text.splitlines())
    return next(filter(None, lines), None)


def _licence_of_card(card: str) -> str | None:
    """Read ``license`` of a card's front matter, as model hubs have it."""
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
        return ", ".join(str(one) for one in cast("list[object]", named)) or None
    return str(named) if named else None


CARD = "README.md"

PICKLED = (".bin", ".ckpt", ".pkl", ".pickle", ".pt", ".pth")
"""Files that run code when they are loaded; weights are safetensors."""


def name_base(adapter: Path, name: str) -> None:
    """Set ``base_model_name_or_path``, which PEFT loads and vLLM compares with what it serves."""
    config = {**adapter_config(adapter), "base_model_name_or_path": name}
    manifest.write_atomically(adapter / CONFIG, json.dumps(config, indent=2) + "\n")


def require_safe(adapter: Path) -> None:
    """Refuse weights that are not safetensors.

    Raises:
        ValueError: There are some.
    """
    found = sorted(path.name for path in adapter.rglob("*") if path.suffix in PICKLED)
    if found:
        raise ValueError(f"{adapter} holds {', '.join(found)}, wants safetensors only")


def copy_adapter(adapter: Path, to: Path, *, card: str, served_as: str | None = None) -> Path:
    """Copy a finished adapter, with a card of now.

    Args:
        adapter: A finished adapter folder.
        to: The copy, which must not exist.
        card: What its ``README.md`` says.
        served_as: What it says its base is called; as before if not given.

    Raises:
        FileNotFoundError: The adapter is unfinished.
        ValueError: It is not as it was finished, or holds other than safetensors.
    """
    body = manifest.read_untouched(adapter)
    require_safe(adapter)
    to.mkdir(parents=True)
    for name in _files(body):
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(adapter / name, to / name)
    (to / CARD).write_text(card)
    if served_as is not None:
        name_base(to, served_as)
    # The copy is the same adapter, made when that was.
    finished = datetime.fromisoformat(str(body["created_at"]))
    kept = {name: value for name, value in body.items() if name != "files"}
    manifest.write(to, kind="adapter", now=finished, body=kept)
    return to


def _files(body: Mapping[str, Json]) -> list[str]:
    files = body["files"]
    assert isinstance(files, dict)
    return [name for name in files if name != CARD]


def write_nim_folder(
    adapter: Path, source: Path, *, name: str, served_as: str | None = None
) -> Path:
    """Put an adapter into a folder of adapters: ``<source>/<name>/``, two files, nothing below.

    Args:
        adapter: The adapter's folder.
        source: The folder of adapters.
        name: What requests will call the model; a name that was used before may be answered from a
            cache, so it should be the adapter's alone.
        served_as: What it says its base is called; as before if not given.

    Raises:
        ValueError: It is not plain LoRA.
    """
    require_plain_lora(adapter_config(adapter), "NIM")
    folder = source / name
    folder.mkdir(parents=True)
    for file in (CONFIG, WEIGHTS):
        shutil.copyfile(adapter / file, folder / file)
    if served_as is not None:
        name_base(folder, served_as)
    return folder
