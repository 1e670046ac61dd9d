"""Which code made an output: the commit of a checkout, or the version of an installed package."""

import subprocess
from importlib.metadata import version
from pathlib import Path


def revision() -> str:
    """Give the commit that is checked out, ``-dirty`` if files differ from it; else the version."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return f"lora-flywheel {version('lora-flywheel')}"
    described = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or f"lora-flywheel {version('lora-flywheel')}"
