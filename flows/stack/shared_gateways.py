"""What gateways on several machines share through the object store: settings, and the ids' key."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from components.serve import response_id
from components.serve.daemon_call import in_daemon
from components.serve.settings import ServeSettings
from components.store import manifest, object_store
from components.store.object_store import DamagedObjectError, ObjectStore, StoreError
from flows import gateway_status
from flows.gateway_status import ServeFileError
from flows.settings import Settings

LOG = logging.getLogger(__name__)

SETTINGS = "gateways/serve.yaml"  # in the store; its absence changes nothing

SECONDS = 5.0  # between two looks


def publish(store: ObjectStore, file: Path) -> None:
    """Make a file the settings of all gateways of a store; they use them with their next look.

    Raises:
        ServeFileError: With every mistake; nothing changes.
        StoreError: The store can't be reached.
    """
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ServeFileError(f"{file}: can't be read: {error}") from error
    gateway_status.parse_settings(text, file)
    with object_store.reaching(f"sharing {file} at {store.url}/{SETTINGS}"):
        store.write(SETTINGS, text)


def refresh(home: Settings, store: ObjectStore) -> bool:
    """Keep the shared settings in the home if they are new and valid; return whether they were.

    Raises:
        ServeFileError: They are not valid; the last valid ones are kept.
        StoreError: The store can't be reached; the last valid ones are kept.
    """
    with object_store.reaching(f"reading {store.url}/{SETTINGS}"):
        try:
            text = store.read(SETTINGS)
        except DamagedObjectError as error:
            raise ServeFileError(str(error)) from error
    kept = home.serve / gateway_status.SHARED_SETTINGS
    if text is None or (kept.exists() and kept.read_text() == text):
        return False
    gateway_status.parse_settings(text, f"{store.url}/{SETTINGS}")
    kept.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_atomically(kept, text)
    return True


def prepare(home: Settings) -> None:
    """Take over what gateways share before one starts; without a store, do nothing.

    Raises:
        StoreError: The store can't be reached, and this gateway never shared the key.
        ResponseKeyError: The store's key is not one.
    """
    if home.store is None:
        return
    response_id.share_key(home.keys, home.store)
    try:
        refresh(home, home.store)
    except (StoreError, ServeFileError) as error:
        LOG.warning("%s; the last valid settings count", error)


async def follow(home: Settings, store: ObjectStore, use: Callable[[ServeSettings], None]) -> None:
    """Use new settings within ``SECONDS``, for ever; a problem is logged once."""
    problem = ""
    while True:
        await asyncio.sleep(SECONDS)
        try:
            if await in_daemon(lambda: refresh(home, store)):
                use(gateway_status.read_serve_settings(home, None))
                LOG.info("new settings of %s/%s are in use", store.url, SETTINGS)
        except (StoreError, ServeFileError, OSError) as error:
            if str(error) != problem:
                LOG.warning("%s; the last valid settings count", error)
            problem = str(error)
        else:
            problem = ""
