"""Finish and copy adapter folders."""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from components.chat import chat_templates
from components.dataset import snapshot_figures
from components.models import adapter_folder, device
from components.register import model_card
from components.store import manifest, output_folders
from components.store.manifest import AdapterManifest
from flows.home_workloads import original_base
from flows.settings import Settings
from flows.workload_file import Workload


def finish_adapter(
    workload: Workload,
    snapshot: Path,
    adapter: Path,
    body: Mapping[str, object],
    *,
    now: datetime,
) -> None:
    """Name the base as it is served, write the card, and last the manifest with ``body``.

    ``body`` is the training's record. ``ValueError``: the folder holds more than safetensors.
    """
    adapter_folder.require_safe(adapter)
    adapter_folder.name_base(adapter, workload.base_name)
    made = {
        "workload": workload.workload,
        **body,
        "base_path": str(original_base(workload.base)),
        "licence": adapter_folder.base_licence(workload.base),
        "data": snapshot_figures.learned_figures(snapshot),
        chat_templates.TEMPLATE: chat_templates.template_hash(workload.base),
        "prompt": json.loads((adapter / chat_templates.EXAMPLE).read_text()),
        "environment": device.describe_environment(),
    }
    # The card reads what the manifest will say.
    unfinished = {"kind": "adapter", "key": adapter.name, "created_at": "", "files": {}}
    record = json.loads(json.dumps({**unfinished, **made}, default=str))
    text = model_card.write_card(
        AdapterManifest.model_validate(record), adapter_folder.adapter_config(adapter), None, "peft"
    )
    manifest.write_atomically(adapter / adapter_folder.CARD, text)
    manifest.write(adapter, kind="adapter", now=now, body=made)


def copy_finished(home: Settings, adapter: Path, to: Path, *, served_as: str | None = None) -> Path:
    """Copy a finished, unchanged adapter with a card that has its current scores."""
    text = current_card(home, adapter, served_as, "peft")
    return adapter_folder.copy_adapter(adapter, to, card=text, served_as=served_as)


def current_card(
    home: Settings, adapter: Path, served_as: str | None, kind: model_card.Kind
) -> str:
    """Write an adapter's card with its current scores."""
    made = AdapterManifest.read(adapter)
    config = adapter_folder.adapter_config(adapter)
    if served_as is not None:
        config["base_model_name_or_path"] = served_as
    scores = model_card.newest_scores(
        made.key, output_folders.find(home.scorecards / made.workload)
    )
    return model_card.write_card(made, config, scores, kind)


def card_text(adapter: Path) -> str:
    """Read an adapter's card without the front matter, which is for model hubs."""
    text = (adapter / adapter_folder.CARD).read_text()
    return text.split("\n---\n", 1)[-1].lstrip() if text.startswith("---\n") else text
