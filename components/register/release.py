"""What a released version carries beside its signature: the record of the decision on it.

``decision.jsonl`` holds the links of the chain of decisions on the version's evidence, without
names and words, which can be erased there. The last one is the release: it has the digest of all
the version's files, so that the chain says what may be served to the byte.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from components import model_signature
from components.folder_digest import folder_digest
from components.model_signature import SignatureError

RECORD = "decision.jsonl"
"""The record's file in a released version's folder, and in an export."""

KIND: Literal["released"] = "released"
"""The kind of a release's link."""


class UndecidedError(SignatureError):
    """Nobody has approved what is in a folder, so that it may only be looked at."""


@dataclass(frozen=True, slots=True)
class Release:
    """A link of the chain: which version may be served, and the digest of all its files."""

    sequence: int
    workload: str
    evidence: str
    version: str
    files: str


def body(version: str, files: str) -> str:
    """Write what a release's link commits to."""
    return json.dumps({"files": files, "version": version}, sort_keys=True, separators=(",", ":"))


def files_digest(folder: Path) -> str:
    """Digest all files of a version's folder but what was put beside them: record and signature."""
    return folder_digest(folder, leaving_out={RECORD, *model_signature.IGNORED})


def line(sequence: int, digest: str, content: str) -> str:
    """Write one link of the record; ``digest`` is the SHA-256 of ``content``."""
    return json.dumps({"sequence": sequence, "digest": digest, "content": content}) + "\n"


def of_content(content: Mapping[str, object]) -> Release | None:
    """Read a release from a link's content; ``None`` where the link is another."""
    if content["kind"] != KIND:
        return None
    told = json.loads(str(content["body"]))
    return Release(
        int(str(content["sequence"])),
        str(content["workload_id"]),
        str(content["evidence_digest"]),
        str(told["version"]),
        str(told["files"]),
    )


def read(folder: Path) -> Release:
    """Read the record in a folder whose signature holds.

    Raises:
        UndecidedError: There is none.
        SignatureError: It is not a chain's, or is of other files.
    """
    path = folder / RECORD
    if not path.is_file():
        raise UndecidedError(
            f"reading {folder}: there is no {RECORD}, so nobody has approved what is in it"
        )
    told = [json.loads(one) for one in path.read_text().splitlines()]
    for one in told:
        if hashlib.sha256(one["content"].encode()).hexdigest() != one["digest"]:
            raise SignatureError(f"reading {path}: decision {one['sequence']} was changed")
    found = of_content(json.loads(told[-1]["content"])) if told else None
    if found is None:
        raise SignatureError(f"reading {path}: its last line is no release")
    return found


def require_decided(folder: Path) -> Release:
    """Return the release of a registered version's folder whose signature holds.

    Raises:
        UndecidedError: Nobody has approved it.
        SignatureError: The record is of other files.
    """
    found = read(folder)
    if (files := files_digest(folder)) != found.files:
        raise SignatureError(
            f"reading {folder}: its files have the digest {files}, but decision {found.sequence} "
            f"released {found.files}"
        )
    return found
