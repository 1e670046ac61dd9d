"""Find what a base's folder says of its licence."""

import re
from pathlib import Path
from typing import cast

import yaml

FILES = ("LICENSE*", "LICENCE*", "COPYING*")


def of(base: Path) -> str | None:
    """Give the licence that the base's model card names, or the first line of its licence's file.

    ``None`` where the folder says nothing; that is no permission.
    """
    card = base / "README.md"
    if card.is_file() and (named := _named(card.read_text(errors="replace"))):
        return named
    files = [file for pattern in FILES for file in sorted(base.glob(pattern)) if file.is_file()]
    texts = (file.read_text(errors="replace") for file in files)
    lines = (line.strip() for text in texts for line in text.splitlines())
    return next(filter(None, lines), None)


def _named(card: str) -> str | None:
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
