"""What gateways on several machines share through the object store: settings, and the ids' key."""

import asyncio
import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from components.models import model_signature
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


HEAD = re.compile(r"# shared (?P<time>\S+) (?P<signature>[A-Za-z0-9+/=]+)\n")
"""The first line of shared settings: when, in UTC, and a signature by the home's signing key."""


def publish(home: Settings, store: ObjectStore, file: Path) -> None:
    """Sign a file as the settings of all gateways of a store; they use it with their next look.

    Raises:
        ServeFileError: With every mistake; nothing changes.
        StoreError: The store can't be reached.
    """
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ServeFileError(f"{file}: can't be read: {error}") from error
    gateway_status.parse_settings(text, file)
    time = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    signature = model_signature.sign_text(_signed(time, text), model_signature.make_key(home.keys))
    with object_store.reaching(f"sharing {file} at {store.url}/{SETTINGS}"):
        store.write(SETTINGS, f"# shared {time} {signature}\n{text}")


def _signed(time: str, text: str) -> str:
    return f"flywheel shared settings {time}\n{text}"


def _require_signed(home: Settings, text: str, source: str) -> str:
    """Return the time that settings were shared at; ``ServeFileError`` if the home did not sign.

    Whoever can write to the bucket would choose who answers all requests.
    """
    head = HEAD.match(text)
    if head is None:
        raise ServeFileError(
            f"{source}: it is not signed; share it with `flywheel serve share FILE`"
        )
    public = home.keys / model_signature.PUBLIC
    try:
        signed = _signed(head["time"], text[head.end() :])
        model_signature.verify_text(signed, head["signature"], public)
    except FileNotFoundError as error:
        raise ServeFileError(
            f"{source}: {public} is missing, so its signature can't be verified; copy the file of "
            "the home that shares the settings"
        ) from error
    except ValueError as error:  # another key's signature, or no key: neither ends the following
        raise ServeFileError(f"{source}: {error}; `flywheel serve share FILE` signs it") from error
    return head["time"]


def refresh(home: Settings, store: ObjectStore) -> bool:
    """Keep the shared settings in the home if they are new and valid; return whether they were.

    Raises:
        ServeFileError: They are not valid, not signed by the home, or older than those in use; the
            last valid ones are kept.
        StoreError: The store can't be reached; the last valid ones are kept.
    """
    with object_store.reaching(f"reading {store.url}/{SETTINGS}"):
        try:
            text = store.read(SETTINGS)
        except DamagedObjectError as error:
            raise ServeFileError(str(error)) from error
    kept, source = home.serve / gateway_status.SHARED_SETTINGS, f"{store.url}/{SETTINGS}"
    before = kept.read_text() if kept.exists() else ""
    if text is None or before == text:
        return False
    time = _require_signed(home, text, source)
    if (head := HEAD.match(before)) and time < head["time"]:
        raise ServeFileError(
            f"{source}: it was shared at {time}, before those in use ({head['time']}); share again "
            "what is meant"
        )
    gateway_status.parse_settings(text, source)
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
