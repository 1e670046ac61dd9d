"""The address of a warehouse that several machines share, and sessions of its PostgreSQL.

Telemetry and curated tables lie in Parquet files that a DuckLake catalog in PostgreSQL lists; what
people decided, and what must be unique, is in PostgreSQL's own tables, the book.
"""

import importlib
import os
import socket
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from components.store import archived_files

Group: TypeAlias = Literal["raw", "curated", "book"]
"""Tables that have one writer at a time: telemetry, what curation makes of it, and the book."""

GROUPS: tuple[Group, ...] = ("raw", "curated", "book")

CATALOG = "lake_catalog"  # PostgreSQL schema of DuckLake's own tables
BOOK = "book"  # the name under which PostgreSQL's own tables are attached

REMEDY = "install the package with its extra, pip install 'lora-flywheel[lake]'"

KEEPALIVES = {
    "keepalives": "1",
    "keepalives_idle": "20",
    "keepalives_interval": "5",
    "keepalives_count": "3",
}
SERVER_KEEPALIVES = (
    "-c tcp_keepalives_idle=20 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
)
"""Without these a machine that is gone would hold its locks for two hours."""

SECRET = frozenset({"host", "port", "user", "password", "dbname"})
"""The parts of an address that a secret of DuckDB has."""


class LakeError(RuntimeError):
    """The lake can't be opened, or can't do what was asked of it."""


class WarehouseConflictError(RuntimeError):
    """Another process wrote the same tables meanwhile; nothing of the transaction is kept.

    Or the connection was cut: nothing is kept unless that was amid the commit. Do the same again.
    """


@dataclass(frozen=True, slots=True)
class Lake:
    """A PostgreSQL database with the catalog and the book, and the folder of the Parquet files.

    ``data`` is a local folder or an ``s3://`` address. The text of a lake has no password.
    """

    url: str = field(repr=False)
    data: str

    def __str__(self) -> str:
        parts = self._parts()
        host, name = parts.get("host", "localhost"), parts.get("dbname", "")
        return f"the lake postgres://{host}:{parts.get('port', '5432')}/{name}"

    @property
    def is_remote(self) -> bool:
        """Whether the Parquet files are in an object store."""
        return self.data.startswith("s3://")

    @property
    def archive(self) -> str | None:
        """Where retention puts old rows, for all machines; ``None``: in their homes."""
        return f"{self.data.rpartition('/')[0]}/{archived_files.ROOT}" if self.is_remote else None

    def secret(self) -> str:
        """Return the options of a DuckDB secret for PostgreSQL."""
        renamed = {"dbname": "database"}
        return ", ".join(
            f"{renamed.get(key, key)} {quoted(text)}"
            for key, text in self._parts().items()
            if key in SECRET
        )

    def options(self) -> str:
        """Return the connection's other options, as libpq reads them."""
        others = {key: text for key, text in self._parts().items() if key not in SECRET}
        named = KEEPALIVES | others | {"application_name": application()}
        escaped = {k: t.replace("\\", "\\\\").replace("'", "\\'") for k, t in named.items()}
        return " ".join(f"{key}='{text}'" for key, text in escaped.items())

    def session(self) -> Any:  # noqa: ANN401 - psycopg is not installed everywhere
        """Open a PostgreSQL connection of psycopg that commits each statement."""
        options = f"{self._parts().get('options', '')} {SERVER_KEEPALIVES}".strip()
        named = KEEPALIVES | {"application_name": application(), "options": options}
        try:
            return psycopg().connect(self.url, autocommit=True, **named)
        except psycopg().OperationalError as error:
            raise LakeError(f"connecting to {self}: {error}") from error

    def _parts(self) -> dict[str, str]:
        try:
            return psycopg().conninfo.conninfo_to_dict(self.url)
        except psycopg().ProgrammingError:
            # The error's text has the address, which may have a password.
            raise LakeError("the lake's address can't be read; expected postgres://...") from None


def quoted(text: str) -> str:
    """Return a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def application() -> str:
    """Return the name under which PostgreSQL lists this process."""
    return f"flywheel {socket.gethostname()[:40]} {os.getpid()}"


def psycopg() -> Any:  # noqa: ANN401 - as above
    """Return the module ``psycopg``, or raise ``LakeError`` where it is not installed."""
    try:
        return importlib.import_module("psycopg")
    except ImportError as error:
        raise LakeError(f"FLYWHEEL_WAREHOUSE needs psycopg: {REMEDY}") from error
