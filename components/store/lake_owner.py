"""Whose the rows of a lake are: its own, or those of a home's file, of which they are copies.

Then nobody else opens it. A file beside the home's says which lake has the copies.
"""

import socket
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from components.schema import Config
from components.store import manifest
from components.store.lake import Lake

OWNER_ROW = 0
"""Number of the row of ``raw.migrations`` that says whose a lake's rows are, while they are copied
from a file or since they were copied into one. Flywheels from before this refuse it, too."""

COPIES = ".lake"  # ends the name of the file that says which lake has copies of a file's rows

WHOLE = "the copy of"


class Copies(Config):
    """The lake that has copies of a file's rows, since when, and the name of these copies."""

    lake: str
    at: datetime
    name: str

    @classmethod
    def of(cls, file: Path) -> "Copies | None":
        """Read what is known of a file's copies."""
        with suppress(FileNotFoundError):
            return cls.model_validate_json(_path(file).read_text())
        return None

    @classmethod
    def begin(cls, file: Path, target: Lake) -> "Copies":
        """Note that a lake gets copies of a file's rows."""
        copies = cls(lake=str(target), at=datetime.now(UTC), name=uuid.uuid4().hex)
        manifest.write_atomically(_path(file), copies.model_dump_json())
        return copies

    def text(self, file: Path, *, is_whole: bool) -> str:
        """Return what the lake says of itself."""
        begin = WHOLE if is_whole else "being filled from"
        return f"{begin} {socket.gethostname()}:{file} ({self.name})"

    def are_whole(self, owned: str) -> bool:
        """Return whether a lake says that it has all of them, whatever their machine and path."""
        return owned.startswith(WHOLE) and self.name in owned


def is_new(lake: Lake) -> bool:
    """Return whether nobody has opened a lake yet, so that its database has no tables."""
    with lake.session() as session:
        return session.execute("select to_regclass('raw.migrations')").fetchall() == [(None,)]


def owner(lake: Lake) -> str | None:
    """Return whose the rows of a lake that was opened before are; ``None``: its own."""
    with lake.session() as session:
        rows = session.execute(
            "select name from raw.migrations where number = %s", (OWNER_ROW,)
        ).fetchall()
    return rows[0][0] if rows else None


def set_owner(lake: Lake, text: str | None) -> None:
    """Say whose the rows of a lake are, which others can't open then; ``None``: its own."""
    with lake.session() as session, session.transaction():
        session.execute("delete from raw.migrations where number = %s", (OWNER_ROW,))
        if text is not None:
            session.execute("insert into raw.migrations values (%s, %s)", (OWNER_ROW, text))


def complete(file: Path, target: Lake) -> bool:
    """Let others open a lake that has all tables of a file which was set aside, or is gone.

    Return whether it is such a lake; a killed copy may have left it.
    """
    copies = Copies.of(file)
    if copies is None or copies.lake != str(target) or file.exists() or is_new(target):
        return False
    owned = owner(target)
    if owned is not None and not copies.are_whole(owned):
        return False
    set_owner(target, None)
    _path(file).unlink()
    return True


def _path(file: Path) -> Path:
    return file.with_name(file.name + COPIES)
