"""The commands that ``infra/README.md`` shows."""

import re
from pathlib import Path

README = Path(__file__).parents[2] / "infra" / "README.md"


def commands(chapter: str | None = None) -> list[str]:
    """Give the lines of the fenced blocks, of one chapter or of all, without their comments."""
    text = README.read_text()
    if chapter is not None:
        (text,) = re.findall(rf"(?ms)^### {chapter}\n(.*?)(?=^##)", text)
    blocks = re.findall(r"(?ms)^```\n(.*?)^```", text)
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]
