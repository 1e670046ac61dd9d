"""Read the documents that guard tasks test on: each text in a row of a JSONL or Parquet file."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec
import pyarrow.parquet as pq

from components.schema import Json

COMPRESSION = {".gz": "gzip", ".zst": "zstd"}


class UnreadableDocumentsError(ValueError):
    """A file of guard documents that can't be read: what is tested on must be known in full."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text that is tested on, and where it stands: ``file:row``."""

    name: str
    text: str


def read(path: str) -> Iterator[Document]:
    """Give every text of every row, also those in lists and objects, each as a document.

    A question and its answer are two: a training row that has the question only overlaps with all
    of it.

    Raises:
        UnreadableDocumentsError: A line is not a JSON object, or the file is no Parquet.
    """
    for number, row in enumerate(_rows(path), 1):
        for text in dict.fromkeys(_texts(row)):
            yield Document(f"{Path(path).name}:{number}", text)


def _rows(path: str) -> Iterator[Json]:
    try:
        if path.endswith(".parquet"):
            with fsspec.open(path, "rb") as file, pq.ParquetFile(file) as parquet:
                for batch in parquet.iter_batches():
                    yield from batch.to_pylist()
        else:
            packed = COMPRESSION.get(Path(path).suffix)
            with fsspec.open(path, "rt", compression=packed, encoding="utf-8") as lines:
                yield from map(json.loads, filter(str.strip, lines))
    except (ValueError, OSError) as error:
        raise UnreadableDocumentsError(
            f"reading the guard documents of {path}: {error}; wants JSON lines (.jsonl, .jsonl.gz, "
            ".jsonl.zst) or Parquet"
        ) from error


def _texts(value: Json) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for one in value:
                yield from _texts(one)
        case dict():
            for one in value.values():
                yield from _texts(one)
        case _:
            return
