"""The exchanges in which redaction found nothing, kept by their digests for the next curation.

Each night's pairs and labels are mostly those of the night before.
"""

import hashlib
import json
import shutil
from pathlib import Path

import pyarrow as pa

from components.curate import kept_files
from components.curate.preferences.preference_rows import Redact
from components.curate.redaction.redactor import Conversation

PREFIX = "clean-"
"""Of the name of their folder, which is beside those of judgements."""

DIGEST = "digest"


class CleanExchanges:
    """Redacts exchanges by ``redact``, except those that are known to be clean.

    ``folder`` is that of judgements; ``version`` names all else that redaction depends on.
    """

    def __init__(self, folder: Path, version: str, redact: Redact) -> None:
        self._folder = folder / f"{PREFIX}{version}"
        self._redact = redact
        self._paths = [*kept_files.whole(self._folder)]
        self._known: set[bytes] = set()
        for path in self._paths:
            self._known.update(kept_files.read(path).column(DIGEST).to_pylist())
        self._clean: set[bytes] = set()

    def redact(
        self, interaction_id: str, conversation: Conversation
    ) -> tuple[Conversation, Conversation] | None:
        """Return what ``redact`` returns."""
        try:
            digest = _digest(conversation)
        except (ValueError, RecursionError):
            return self._redact(interaction_id, conversation)
        redacted = conversation, conversation
        if digest not in self._known:
            redacted = self._redact(interaction_id, conversation)
        if redacted is not None and redacted[0] is conversation:
            self._clean.add(digest)
        return redacted

    def save(self) -> None:
        """Keep the clean exchanges that were redacted, and no others."""
        for other in self._folder.parent.glob(f"{PREFIX}*"):
            if other != self._folder:
                shutil.rmtree(other)
        if self._clean == self._known:
            return
        table = pa.table({DIGEST: pa.array(sorted(self._clean), pa.binary(32))})
        written = kept_files.write(self._folder, table)
        for path in {*self._paths} - {written}:
            path.unlink()


def _digest(conversation: Conversation) -> bytes:
    parts = [conversation.messages, conversation.tools, conversation.answers]
    # Keys stay in their order, in which redaction reads them.
    text = json.dumps([*parts, conversation.acceptable, conversation.is_corrected])
    return hashlib.sha256(text.encode()).digest()
