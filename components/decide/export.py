"""Write the chain for auditors: JSON lines that anybody can verify with SHA-256 alone.

``content`` is the very text that ``digest`` is of, and has the digest of the line before it in it
as ``before``. Each of ``words`` is digested under its salt: SHA-256 of the salt and the text, one
after the other, is the ``..._digest`` of that name in the content. An erased text is null.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from components import manifest
from components.decide import chain
from components.decide.chain import FIELDS, Link


def write(path: Path, links: Iterable[Link]) -> int:
    """Write one line for each link; return how many."""
    lines = [line(link) for link in links]
    path.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_atomically(path, "".join(lines))
    return len(lines)


def line(link: Link) -> str:
    """Write one link."""
    words = {
        name: None
        if getattr(link, name) is None
        else {"salt": getattr(link, f"{name}_salt"), "text": getattr(link, name)}
        for name in FIELDS
    }
    told = {
        "sequence": link.sequence,
        "digest": link.digest,
        "content": chain.content(link),
        "words": words,
    }
    return json.dumps(told, ensure_ascii=False) + "\n"


def first_differing(path: Path, links: Iterable[Link]) -> int | None:
    """Hold the chain against an earlier export; give the first line that is no longer so.

    A chain that somebody wrote anew from end to end holds by itself, but not against what an
    auditor took along before.
    """
    now = {link.sequence: link.digest for link in links}
    for number, text in enumerate(path.read_text().splitlines(), 1):
        told = json.loads(text)
        if now.get(int(told["sequence"])) != told["digest"]:
            return number
    return None
