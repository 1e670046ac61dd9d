"""Read a guard task's documents from a file, and draw some of them by their content."""

import gzip
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias, cast

import pyarrow.parquet as pq

from components.schema import Json

Document: TypeAlias = dict[str, Json]


def read(path: Path) -> list[Document]:
    """Read a document from each row or line, each one once.

    Two models may be compared on a document only where it occurs once.

    Raises:
        ValueError: A line is no JSON object, or there is no document.
    """
    rows = pq.read_table(path).to_pylist() if path.suffix == ".parquet" else _lines(path)
    found = {_canonical(row): row for row in rows}
    if not found:
        raise ValueError(f"{path} holds no document")
    return list(found.values())


def draw(documents: Sequence[Document], limit: int | None) -> list[Document]:
    """Take at most ``limit`` documents in their order: those whose content hashes lowest.

    So the choice is by chance and always the same, and a higher limit only adds.
    """
    if limit is None or limit >= len(documents):
        return list(documents)
    hashes = [hashlib.sha256(_canonical(one).encode()).digest() for one in documents]
    last = sorted(hashes)[limit - 1]
    return [one for one, drawn in zip(documents, hashes, strict=True) if drawn <= last]


def others(documents: Sequence[Document], known: Sequence[Document]) -> list[Document]:
    """Leave out the documents that are among the ``known``."""
    seen = set(map(_canonical, known))
    return [one for one in documents if _canonical(one) not in seen]


def _canonical(row: Document) -> str:
    return json.dumps(row, sort_keys=True, ensure_ascii=False, default=str)


def _lines(path: Path) -> list[Document]:
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    lines = enumerate(text.split("\n"), 1)
    return [_object(path, number, line) for number, line in lines if line.strip()]


def _object(path: Path, number: int, line: str) -> Document:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
    if isinstance(value, dict):
        return cast("Document", value)
    raise ValueError(f"{path}, line {number} wants a JSON object, found {line.strip()[:60]}")
