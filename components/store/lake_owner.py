"""Whose the rows of a lake are: its own, or those of a home's file."""

from components.store.lake import Lake

MOVED = 0
"""Number of the row of ``raw.migrations`` that says whose a lake's rows are, while they are copied
from a file or since they were copied into one. Flywheels from before this refuse it, too."""


def is_new(lake: Lake) -> bool:
    """Return whether nobody has opened a lake yet, so that its database has no tables."""
    with lake.session() as session:
        return session.execute("select to_regclass('raw.migrations')").fetchall() == [(None,)]


def moved(lake: Lake) -> str | None:
    """Return whose the rows of a lake that was opened before are; ``None``: its own."""
    with lake.session() as session:
        rows = session.execute(
            "select name from raw.migrations where number = %s", (MOVED,)
        ).fetchall()
    return rows[0][0] if rows else None


def set_moved(lake: Lake, text: str | None) -> None:
    """Say whose the rows of a lake are, which others can't open then; ``None``: its own."""
    with lake.session() as session, session.transaction():
        session.execute("delete from raw.migrations where number = %s", (MOVED,))
        if text is not None:
            session.execute("insert into raw.migrations values (%s, %s)", (MOVED, text))
