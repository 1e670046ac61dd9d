"""Finish an adapter that was trained: portable, with a card and a manifest; and copy it later."""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from components import machine, manifest, rendering
from components.dataset import learned
from components.export import card, licence, measured, plain, portable
from components.export.measured import Measured
from flows.settings import Settings
from flows.workload import Workload


def finish(
    workload: Workload,
    snapshot: Path,
    adapter: Path,
    body: Mapping[str, object],
    *,
    now: datetime,
) -> None:
    """Name the base as it is served, write the card, and last the manifest.

    Args:
        workload: The workload that it was trained for.
        snapshot: What it was trained on.
        adapter: Its folder, with PEFT's files and the example of a prompt.
        body: What the training's own record of it says.
        now: When it was finished (UTC).

    Raises:
        ValueError: It holds other than safetensors.
    """
    portable.require_safe(adapter)
    portable.name_base(adapter, workload.base_name)
    made = {
        "workload": workload.workload,
        **body,
        "base_path": str(workload.base),
        "licence": licence.of(workload.base),
        "data": learned.figures(snapshot),
        rendering.TEMPLATE: rendering.template_hash(workload.base),
        "prompt": json.loads((adapter / rendering.EXAMPLE).read_text()),
        "environment": machine.describe(),
    }
    # The card reads what the manifest will say.
    told = json.loads(json.dumps({"key": adapter.name, **made}, default=str))
    text = card.write(told, plain.config_of(adapter), None, "peft")
    manifest.write_atomically(adapter / portable.CARD, text)
    manifest.write(adapter, kind="adapter", now=now, body=made)


def scores(home: Settings, workload: str, key: str) -> Measured | None:
    """Find what was measured of an adapter so far."""
    return measured.newest(key, (home.scorecards / workload).glob("*"))


def copy(home: Settings, adapter: Path, to: Path, *, served_as: str | None = None) -> Path:
    """Copy a finished adapter with a card that has its scores of now.

    Raises:
        FileNotFoundError: It is unfinished.
        ValueError: It is not as it was finished.
    """
    made = manifest.read(adapter)
    config = plain.config_of(adapter)
    if served_as is not None:
        config["base_model_name_or_path"] = served_as
    found = scores(home, str(made["workload"]), str(made["key"]))
    text = card.write(made, config, found, "peft")
    return portable.copy(adapter, to, card=text, served_as=served_as)


def card_text(adapter: Path) -> str:
    """Read an adapter's card without the front matter, which is for model hubs."""
    text = (adapter / portable.CARD).read_text()
    return text.split("\n---\n", 1)[-1].lstrip() if text.startswith("---\n") else text
