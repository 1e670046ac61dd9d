"""The job templates under ``infra/pools``, and what a deployment gives them."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "infra" / "pools"

HOME = "/mnt/flywheel"
IMAGE = "registry.example.com/flywheel:1.2"
VALUES: dict[str, Any] = {"home": HOME, "image": IMAGE}


def read(name: str) -> dict[str, Any]:
    """Read the template of a pool's type, ``docker`` or ``kubernetes``."""
    return json.loads((FOLDER / f"{name}-gpu.json").read_text())
