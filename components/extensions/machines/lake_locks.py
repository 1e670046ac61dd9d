"""Locks of a lake, which one process of all machines holds at a time, in sessions of PostgreSQL."""

import logging
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

from components.extensions.machines.lake import LakeAddress, psycopg
from components.store.lock import NOTICE_SECONDS, WarehouseBusyError
from components.store.warehouse_port import Group, WarehouseConflictError

_sessions = threading.local()


@contextmanager
def locked(lake: LakeAddress, names: Sequence[str], wait_seconds: float) -> Generator[None]:
    """Hold advisory locks; those that this thread holds already are not taken twice.

    Raise ``WarehouseBusyError`` if another process still held one after ``wait_seconds``, and
    ``WarehouseConflictError`` if the session was cut while it waited.
    """
    held = _held()
    missing = [name for name in names if (lake.url, name) not in held]
    if not missing:
        yield
        return
    with lake.session() as session:
        until = time.monotonic() + wait_seconds
        for name in missing:
            _lock(lake, session, name, until)
        _sessions.held = held | {(lake.url, name): session for name in missing}
        try:
            yield
        finally:
            _sessions.held = held
            with suppress(psycopg().Error):
                session.execute("select pg_advisory_unlock_all()")


def alone(lake: LakeAddress, doing: str, wait_seconds: float) -> AbstractContextManager[None]:
    """Let one process of all machines do something at a time.

    Raises:
        WarehouseBusyError: Another one still does it after ``wait_seconds``.
    """
    return locked(lake, [doing], wait_seconds)


def require_locks(lake: LakeAddress, groups: Sequence[Group]) -> None:
    """Check that this thread still holds the locks of the groups, for what can't change a gate.

    Raises:
        WarehouseConflictError: The session of a lock was cut; another process may write.
    """
    for group in groups:
        try:
            _held()[lake.url, group].execute("select 1")
        except psycopg().Error as error:
            raise WarehouseConflictError(
                f"maintaining {lake}: the session that held the lock of {group} was cut, so "
                f"nothing of this is kept; do the same again ({error})"
            ) from error


def patiently(lake: LakeAddress, session: Any, sql: str, wait_seconds: float) -> None:  # noqa: ANN401
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
                    f"{sql} in {lake}: others still use the table after {wait_seconds:g} s; end "
                    "them, or do the same again later"
                ) from error
        else:
            return


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
