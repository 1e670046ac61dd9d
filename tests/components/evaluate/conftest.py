"""A tiny base and adapters on it, built once per session."""

from pathlib import Path

import pytest

from components.chat import chat_templates
from components.models import base as bases
from components.store import manifest
from tests.support import tiny
from tests.support.holdouts import NOW


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("base"))


def build_adapter(base: Path, folder: Path, seed: int) -> Path:
    """Write a finished adapter with random weights, so that its answers differ from the base's."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    torch.manual_seed(seed)
    wrapped = get_peft_model(
        model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    )
    wrapped.save_pretrained(str(folder))
    return finish(base, folder)


def finish(base: Path, folder: Path, /, **body_fields: object) -> Path:
    """Write an adapter's manifest, with ``body_fields`` overridden."""
    words = {chat_templates.TEMPLATE: chat_templates.template_hash(base)}
    body = {"snapshot": "s1", "base": bases.content_hash(base), **words, **body_fields}
    manifest.write(folder, kind="adapter", now=NOW, body=body)
    return folder


@pytest.fixture(scope="session")
def adapters(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("adapters")
    return {
        role: build_adapter(tiny_base, root / f"key-{role}", seed)
        for seed, role in enumerate(("challenger", "champion"))
    }
