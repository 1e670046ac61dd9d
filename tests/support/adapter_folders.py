"""An adapter that was finished as a training finishes it, with random weights."""

import json
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from components.chat import chat_templates, prompt
from components.models import base as bases
from components.schema import Answer, Call, Json
from components.store import manifest
from flows import adapters
from flows.workload_file import Workload
from tests.support import once, training_rows

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WEATHER = Answer(calls=(Call("weather", {"city": "Rome"}),))

CONFIG = "adapter_config.json"
RECIPE: dict[str, Json] = {"r": 4, "learning_rate": 0.001}

Making = Callable[..., Path]
"""Makes an adapter by its key; other keywords are PEFT's."""


def snapshot(folder: Path) -> Path:
    """Write a finished snapshot of three rows."""
    folder.mkdir()
    asked = [("Rain?", ["weather"], WEATHER), ("Hi", [], Answer("Hello."))]
    training_rows.write(folder, [*asked, ("And now?", ["weather"], WEATHER)])
    body = {
        "workload": "tools",
        "rows": {"train": 3, "validation": 0, "holdout": 2, "preferences": 0, "labels": 0},
        "holdout_version": "v1-abc",
        "prompt_format": prompt.FORMAT,
    }
    manifest.write(folder, kind="snapshot", now=NOW, body=body)
    return folder


def adapter(
    base: Path,
    learned_from: Path,
    folder: Path,
    *,
    served_as: str | None = None,
    recipe: Mapping[str, Json] = RECIPE,
    **knobs: object,
) -> Path:
    """Write an adapter and finish it as if ``recipe`` had made it; ``knobs`` are PEFT's."""
    leave(base, folder, **knobs)
    workload = Workload.model_validate(
        {"workload": "tools", "base": str(base), "base_served_as": served_as},
        context=folder,
    )
    body = {
        "snapshot": learned_from.name,
        "base": bases.content_hash(base),
        "recipe": recipe,
        "commit": "c0ffee",
    }
    adapters.finish_adapter(workload, learned_from, folder, body, now=NOW)
    return folder


def leave(base: Path, folder: Path, **knobs: object) -> None:
    """Write what a training leaves, with random weights in place of learned ones."""
    kind = manifest.digest([bases.content_hash(base), repr(sorted(knobs.items()))])
    made = once.made(f"adapter-{kind}", lambda made: _train(base, made, **knobs))
    shutil.copytree(made, folder, dirs_exist_ok=True)
    config = json.loads((folder / CONFIG).read_text())
    for name in (CONFIG, "README.md"):  # which name the base that it was made on
        text = (folder / name).read_text().replace(config["base_model_name_or_path"], str(base))
        (folder / name).write_text(text)


def _train(base: Path, folder: Path, **knobs: object) -> None:
    torch.manual_seed(7)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    config = LoraConfig(**{**settings, "init_lora_weights": False, **knobs})  # pyright: ignore[reportArgumentType]
    bare = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    get_peft_model(bare, config).save_pretrained(str(folder))
    shown = chat_templates.example(AutoTokenizer.from_pretrained(base), base)
    (folder / chat_templates.EXAMPLE).write_text(json.dumps(shown))
