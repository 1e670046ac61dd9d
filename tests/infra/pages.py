"""The commands that the pages of ``infra/`` show."""

import re
from pathlib import Path

INFRA = Path(__file__).parents[2] / "infra"


def commands(page: str = "*.md", chapter: str = r"[^\n]*") -> list[str]:
    """Give the lines of the fenced blocks, of one page and chapter or of all, without comments."""
    text = "\n".join(path.read_text() for path in sorted(INFRA.glob(page)))
    chapters = re.findall(rf"(?ms)^##? {chapter}\n(.*?)(?=^##? |\Z)", text)
    blocks = [block for part in chapters for block in re.findall(r"(?ms)^```\n(.*?)^```", part)]
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]
