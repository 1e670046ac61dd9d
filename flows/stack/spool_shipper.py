"""Move what the receiver or gateway of this machine took to the object store, until told to end."""

import time
from collections.abc import Callable
from threading import Event

from components.receive import shared_tokens
from components.receive.client_tokens import TokenError
from components.store import object_store, shared_spool
from components.store.object_store import ObjectStore, StoreError
from flows.settings import Settings

SECONDS = 5.0  # between two looks, as long as a receiver writes to one segment
REPORT_SECONDS = 60.0  # between two lines about what was shipped


def ship_once(home: Settings, store: ObjectStore) -> int:
    """Ship the sealed segments and take over the clients' tokens; return how many were shipped.

    Raises:
        StoreError: The store can't be used; what is not shipped stays in the spool.
        TokenError: A token can't be read; everything else was done.
    """
    with object_store.reaching(f"shipping {home.spool} to {store.url}/{shared_spool.PLACE}"):
        shipped = shared_spool.ship(store, home.spool)
        shared_tokens.synchronize(store, home.tokens)
    return len(shipped)


def ship_until(
    home: Settings, store: ObjectStore, is_over: Event, report: Callable[[str], None]
) -> None:
    """Ship every ``SECONDS``; what fails is reported once, and tried again."""
    problem, count, reported_at = "", 0, time.monotonic()
    while not is_over.is_set():
        try:
            count += ship_once(home, store)
        except (StoreError, TokenError) as error:
            if not problem:
                report(f"{error}; trying again every {SECONDS:g} s")
            problem = str(error)
        else:
            if problem:
                report(f"{store.url}: all is well again")
            problem = ""
        if count and time.monotonic() - reported_at > REPORT_SECONDS:
            report(f"{count} segments shipped")
            count, reported_at = 0, time.monotonic()
        is_over.wait(SECONDS)
