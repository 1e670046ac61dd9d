"""Move what the receiver or gateway of this machine took to the object store, until told to end."""

import time
from collections.abc import Callable
from threading import Event, Thread

from components.extensions.machines import shared_spool, shared_tokens
from components.extensions.machines.sharing import Files
from components.receive.client_tokens import TokenError
from components.store import file_locks
from components.store.shared_files import StoreError
from flows.settings import Settings

SECONDS = 5.0  # between two looks, as long as a receiver writes to one segment
REPORT_SECONDS = 60.0  # between two lines about what was shipped

Report = Callable[[str], None]


def ship_once(home: Settings, store: Files) -> int:
    """Take over the clients' tokens and ship the sealed segments; return how many were shipped.

    Raises:
        StoreError: The store can't be used; what is not shipped stays in the spool.
        TokenError: A token can't be read; everything else was done.
    """
    try:
        _take_over_tokens(home, store)
    finally:
        shipped = _ship(home, store)
    return shipped


def ship_until(home: Settings, store: Files, is_over: Event, report: Report) -> None:
    """Ship every ``SECONDS``; what fails is reported once, and tried again.

    Tokens are taken over in a thread of their own: one that was revoked must not work on for as
    long as a large segment takes, or one that can't be shipped.
    """
    count, reported_at = 0, time.monotonic()

    def take_over_tokens() -> None:
        _take_over_tokens(home, store)

    def ship() -> None:
        nonlocal count, reported_at
        count += _ship(home, store)
        if count and time.monotonic() - reported_at > REPORT_SECONDS:
            report(f"{count} segments shipped")
            count, reported_at = 0, time.monotonic()

    tokens = Thread(
        target=_repeat, args=(take_over_tokens, store, is_over, report), name="tokens", daemon=True
    )
    tokens.start()
    _repeat(ship, store, is_over, report)
    tokens.join(SECONDS)


def _take_over_tokens(home: Settings, store: Files) -> None:
    with store.reaching(f"sharing tokens at {store.url}/{shared_tokens.PLACE}"):
        shared_tokens.synchronize(store, home.tokens)


def _ship(home: Settings, store: Files) -> int:
    with (
        # A collect of this home would delete in the store what it fetched and no longer found here.
        file_locks.held(home.locks / shared_spool.PLACE),
        store.reaching(f"shipping {home.spool} to {store.url}/{shared_spool.PLACE}"),
    ):
        return len(shared_spool.ship(store, home.spool))


def _repeat(work: Callable[[], None], store: Files, is_over: Event, report: Report) -> None:
    problem = ""
    while not is_over.is_set():
        try:
            work()
        except (StoreError, TokenError) as error:
            if not problem:
                report(f"{error}; trying again every {SECONDS:g} s")
            problem = str(error)
        else:
            if problem:
                report(f"{store.url}: all is well again")
            problem = ""
        is_over.wait(SECONDS)
