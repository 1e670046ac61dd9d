"""Clients' tokens in the object store, an object each, so that every receiver knows them.

A token is removed by an object that says so, never by the absence of its own: an empty bucket, or
another prefix, takes nobody's access away.
"""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from components.extensions.machines.object_store import DamagedObjectError, ObjectStore
from components.receive import client_tokens
from components.receive.client_tokens import Token, TokenError
from components.store.manifest import write_atomically

PLACE = "tokens"

_ADDED, _REMOVED = ".json", ".removed"


def synchronize(store: ObjectStore, file: Path) -> None:
    """Add the tokens of the store to a home's, and the home's to the store; drop removed ones.

    Raises:
        TokenError: The home's file, or an object in the store, is not of tokens; what could be read
            was taken over.
    """
    broken: list[str] = []
    with client_tokens.locked(file):
        for token_id in _removed_here(file):
            remove(store, token_id)
        _unshared(file).unlink(missing_ok=True)
        # Listed under the lock: one that is removed after that would be added again.
        names = store.sizes(PLACE).keys()
        added = {name.removesuffix(_ADDED) for name in names if name.endswith(_ADDED)}
        removed = {name.removesuffix(_REMOVED) for name in names if name.endswith(_REMOVED)}
        here = {token.id: token for token in client_tokens.read_tokens(file)}
        for token_id in here.keys() - added - removed:
            record = here[token_id].model_dump_json(exclude_defaults=True)
            store.write(f"{PLACE}/{token_id}{_ADDED}", record)
        kept = {token_id: token for token_id, token in here.items() if token_id not in removed}
        for token_id in sorted(added - removed - here.keys()):
            token = _read_token(store, token_id)
            if token is None:
                broken.append(token_id)
            else:
                kept[token_id] = token
        if kept != here:
            client_tokens.write(file, [*kept.values()])
    if broken:
        raise TokenError(
            f"reading tokens in {store.url}/{PLACE}: {', '.join(broken)} can't be read; the others "
            "count; delete these objects, and add the tokens anew"
        )


def remove_here(file: Path, token_id: str) -> Token:
    """Remove a token from a home at once, and from the store when it is next synchronized with it.

    Raises:
        TokenError: The home has no such token.
    """
    with client_tokens.locked(file):
        if any(token.id == token_id for token in client_tokens.read_tokens(file)):
            # First: removed without a note, it would come back from the store.
            ids = [*_removed_here(file), token_id]
            write_atomically(_unshared(file), "".join(f"{each}\n" for each in ids))
    return client_tokens.remove_token(file, token_id)


def remove(store: ObjectStore, token_id: str) -> None:
    """Mark a token as removed for every home that synchronizes with the store."""
    store.write(f"{PLACE}/{token_id}{_REMOVED}", "")


def _unshared(file: Path) -> Path:
    return file.with_name(f"{file.name}{_REMOVED}")


def _removed_here(file: Path) -> Sequence[str]:
    try:
        return _unshared(file).read_text().split()
    except FileNotFoundError:
        return ()


def _read_token(store: ObjectStore, token_id: str) -> Token | None:
    try:
        text = store.read(f"{PLACE}/{token_id}{_ADDED}")
        token = Token.model_validate_json(text or "")
    except (ValidationError, DamagedObjectError):
        return None
    return token if token.id == token_id else None
