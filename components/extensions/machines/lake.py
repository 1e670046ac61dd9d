"""The address of a warehouse that several machines share, and sessions and locks of its PostgreSQL.

Telemetry and curated tables lie in Parquet files that a DuckLake catalog in PostgreSQL lists; what
people decided, and what must be unique, is in PostgreSQL's own tables, the book.
"""

import importlib
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from components.store import archived_files
from components.store.lock import NOTICE_SECONDS, WarehouseBusyError
from components.store.warehouse_port import Group, WarehouseConflictError, WarehouseError

CATALOG = "lake_catalog"  # PostgreSQL schema of DuckLake's own tables

REMEDY = "install the package with its extra, pip install 'lora-flywheel[lake]'"

OPTIONS = {
    "connect_timeout": "10",
    "keepalives": "1",
    "keepalives_idle": "20",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "35000",
    "target_session_attrs": "read-write",
}
"""Of each connection, unless the address has others: a server that is gone is noticed within a
minute, and a standby, which can be read only, is none."""

SERVER_OPTIONS = " ".join(
    f"-c {name}={number}"
    for name, number in {
        "tcp_keepalives_idle": 20,
        "tcp_keepalives_interval": 5,
        "tcp_keepalives_count": 3,
        "tcp_user_timeout": 35000,
        "statement_timeout": 0,
        "lock_timeout": 0,
        "idle_session_timeout": 0,
        "idle_in_transaction_session_timeout": 0,
    }.items()
)
"""Without the first ones a machine that is gone would hold its locks for two hours. The others lift
limits that an administrator may have set: a load's transaction idles while Python reads a log, and
a session does nothing but hold a lock."""

RESTART_SECONDS = 60.0
"""How long a process waits for a PostgreSQL that it has reached before: it may be restarted, or
another server may take over."""

POLL_SECONDS = 0.5

AWAY = re.compile(
    r"Connection refused|database system is|closed the connection|session is read-only"
    r"|timeout expired|No route to host|Network is unreachable|reset by peer"
)
"""In errors of connections that may succeed soon."""

SECRET = frozenset({"host", "port", "user", "password", "dbname"})
"""The parts of an address that a secret of DuckDB has."""


@dataclass(frozen=True, slots=True)
class LakeAddress:
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
        others = {key: text for key, text in self._options().items() if key not in SECRET}
        escaped = {k: t.replace("\\", "\\\\").replace("'", "\\'") for k, t in others.items()}
        return " ".join(f"{key}='{text}'" for key, text in escaped.items())

    @contextmanager
    def session(self) -> Generator[Any]:
        """Open a PostgreSQL connection of psycopg that commits each statement.

        Raises:
            WarehouseError: It can't be opened, or PostgreSQL refuses what is asked of it.
            WarehouseConflictError: It was cut in the block.
        """
        with closing(self._connect()) as session:
            try:
                yield session
            except psycopg().Error as error:
                if session.broken:
                    raise WarehouseConflictError(
                        f"using {self}: the connection was cut; do the same again ({error})"
                    ) from error
                raise WarehouseError(f"using {self}: {error}") from error

    @contextmanager
    def locked(self, names: Sequence[str], wait_seconds: float) -> Generator[None]:
        """Hold advisory locks; those that this thread holds already are not taken twice.

        Raise ``WarehouseBusyError`` if another process still held one after ``wait_seconds``, and
        ``WarehouseConflictError`` if the session was cut while it waited.
        """
        held = _held()
        missing = [name for name in names if (self.url, name) not in held]
        if not missing:
            yield
            return
        with self.session() as session:
            until = time.monotonic() + wait_seconds
            for name in missing:
                _lock(self, session, name, until)
            _sessions.held = held | {(self.url, name): session for name in missing}
            try:
                yield
            finally:
                _sessions.held = held
                with suppress(psycopg().Error):
                    session.execute("select pg_advisory_unlock_all()")

    def alone(self, doing: str, wait_seconds: float) -> AbstractContextManager[None]:
        """Let one process of all machines do something at a time.

        Raises:
            WarehouseBusyError: Another one still does it after ``wait_seconds``.
        """
        return self.locked([doing], wait_seconds)

    def require_locks(self, groups: Sequence[Group]) -> None:
        """Check that this thread still holds the locks of the groups, for what can't change a gate.

        Raises:
            WarehouseConflictError: The session of a lock was cut; another process may write.
        """
        for group in groups:
            try:
                _held()[self.url, group].execute("select 1")
            except psycopg().Error as error:
                raise WarehouseConflictError(
                    f"maintaining {self}: the session that held the lock of {group} was cut, so "
                    f"nothing of this is kept; do the same again ({error})"
                ) from error

    def patiently(self, session: Any, sql: str, wait_seconds: float) -> None:  # noqa: ANN401
        """Run a statement that nobody may use its table beside.

        Raises:
            WarehouseBusyError: Others still used the table after ``wait_seconds``.
        """
        # Whoever comes while it waits must wait, too, so it steps aside again and again.
        session.execute(f"set lock_timeout = '{round(NOTICE_SECONDS * 1000)}ms'")
        until = time.monotonic() + wait_seconds
        while True:
            try:
                session.execute(sql)
            except psycopg().errors.LockNotAvailable as error:
                if time.monotonic() >= until:
                    raise WarehouseBusyError(
                        f"{sql} in {self}: others still use the table after {wait_seconds:g} s; "
                        "end them, or do the same again later"
                    ) from error
            else:
                return

    def _connect(self) -> Any:  # noqa: ANN401 - psycopg is not installed everywhere
        until = time.monotonic() + (RESTART_SECONDS if self.url in _reached else 0.0)
        while True:
            try:
                session = psycopg().connect(**self._options(), autocommit=True)
            except psycopg().OperationalError as error:
                if time.monotonic() >= until or not AWAY.search(str(error)):
                    raise WarehouseError(f"connecting to {self}: {error}") from error
                time.sleep(POLL_SECONDS)
            else:
                _reached.add(self.url)
                return session

    def _options(self) -> dict[str, str]:
        parts = self._parts()
        options = f"{parts.get('options', '')} {SERVER_OPTIONS}".strip()
        return OPTIONS | parts | {"application_name": application(), "options": options}

    def _parts(self) -> dict[str, str]:
        try:
            return psycopg().conninfo.conninfo_to_dict(self.url)
        except psycopg().ProgrammingError:
            # The error's text has the address, which may have a password.
            raise WarehouseError(
                "the lake's address can't be read; expected postgres://..."
            ) from None


_sessions = threading.local()

_reached: set[str] = set()
"""The addresses that this process has reached."""


def quoted(text: str) -> str:
    """Return a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def application() -> str:
    """Return the name under which PostgreSQL lists this process."""
    return f"flywheel {socket.gethostname()[:40]} {os.getpid()}"


def psycopg() -> Any:  # noqa: ANN401 - as above
    """Return the module ``psycopg``, or raise ``WarehouseError`` where it is not installed."""
    try:
        return importlib.import_module("psycopg")
    except ImportError as error:
        raise WarehouseError(f"FLYWHEEL_WAREHOUSE needs psycopg: {REMEDY}") from error


def _held() -> dict[tuple[str, str], Any]:
    return getattr(_sessions, "held", {})


def _lock(lake: LakeAddress, session: Any, name: str, until: float) -> None:  # noqa: ANN401 - as above
    key = f"flywheel {name}"
    is_logged = False
    while True:
        left = until - time.monotonic()
        seconds = left if is_logged else min(left, NOTICE_SECONDS)
        session.execute(f"set lock_timeout = '{max(1, round(seconds * 1000))}ms'")
        try:
            session.execute("select pg_advisory_lock(hashtextextended(%s, 0))", (key,))
        except psycopg().errors.LockNotAvailable as error:
            holder = _holder(session, key)
            if time.monotonic() >= until:
                raise WarehouseBusyError(
                    f"opening {lake} to write {name}: {holder} still holds its lock; end that "
                    "process, or wait for it"
                ) from error
            logging.getLogger(__name__).warning(
                "waiting for %s of %s, which %s holds", name, lake, holder
            )
            is_logged = True
        else:
            session.execute("reset lock_timeout")
            return


def _holder(session: Any, key: str) -> str:  # noqa: ANN401 - as above
    rows = session.execute(
        "select application_name, client_addr::text from pg_locks join pg_stat_activity using (pid)"
        " where locktype = 'advisory' and granted and objsubid = 1"
        " and (classid::bigint << 32) + objid::bigint = hashtextextended(%s, 0)",
        (key,),
    ).fetchall()
    return ", ".join(f"{name} at {address}" for name, address in rows) or "another process"
