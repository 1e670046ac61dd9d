"""A finished adapter as it leaves the house: PEFT's own files, a card and a manifest.

What was trained is never touched; a copy gets the scores that came later, and the name that its
server has for the base.
"""

import json
import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from components import manifest
from components.export import plain
from components.schema import Json

CARD = "README.md"

PICKLED = (".bin", ".ckpt", ".pkl", ".pickle", ".pt", ".pth")
"""Files that run code when they are loaded; weights are safetensors."""


def name_base(adapter: Path, name: str) -> None:
    """Set ``base_model_name_or_path``, which PEFT loads and vLLM compares with what it serves."""
    config = {**plain.config_of(adapter), "base_model_name_or_path": name}
    manifest.write_atomically(adapter / plain.CONFIG, json.dumps(config, indent=2) + "\n")


def require_safe(adapter: Path) -> None:
    """Refuse weights that are not safetensors.

    Raises:
        ValueError: There are some.
    """
    found = sorted(path.name for path in adapter.rglob("*") if path.suffix in PICKLED)
    if found:
        raise ValueError(f"{adapter} holds {', '.join(found)}, wants safetensors only")


def copy(adapter: Path, to: Path, *, card: str, served_as: str | None = None) -> Path:
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
