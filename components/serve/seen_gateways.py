"""What each gateway of an object store serves, as it last wrote there."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from components.schema import Json
from components.serve.routes import Served
from components.store import manifest
from components.store.shared_files import DamagedObjectError, SharedFiles

PLACE = "gateways/running"  # in the store, ``<gateway id>.json`` below it
ID_FILE = "gateway.id"


@dataclass(frozen=True, slots=True)
class SeenChampion:
    """A workload's version at one gateway; times are ISO 8601, UTC.

    ``replicas`` are those where it is proved; ``unproved``: it can't be told from its base.
    """

    version: str
    since: str
    proved_at: str
    unproved: bool
    replicas: Sequence[str]

    @classmethod
    def of(cls, served: Served) -> "SeenChampion":
        """Return what others are told of a version."""
        return cls(served.version, served.since, served.proved_at, served.unproved, served.replicas)


@dataclass(frozen=True, slots=True)
class SeenGateway:
    """A gateway, by its id, and when it wrote this (Unix seconds).

    That is by its machine's clock in the store. ``read`` replaces it by the reader's, whatever the
    gateway's shows: what has to be recent is compared by the store's clock. ``clock_ahead`` is by
    how many seconds the gateway's is ahead of that. ``champions`` are by workload,
    ``refused`` are the reasons by ``workload@version``.
    """

    id: str
    machine: str
    at: float
    champions: Mapping[str, SeenChampion]
    refused: Mapping[str, str]
    clock_ahead: float = 0.0

    def to_json(self) -> dict[str, Json]:
        """Return the object in the store."""
        fields = asdict(self)
        del fields["clock_ahead"]
        return fields


def write(store: SharedFiles, gateway: SeenGateway) -> None:
    """Write what a running gateway serves.

    Raises:
        OSError: The store can't be reached.
    """
    store.write(f"{PLACE}/{gateway.id}.json", json.dumps(gateway.to_json()))


def read(store: SharedFiles) -> list[SeenGateway]:
    """Return what all gateways last wrote, by machine; what no gateway wrote is left out.

    Raises:
        OSError: The store can't be reached.
    """
    seen: list[SeenGateway] = []
    written, now = store.written(PLACE)
    ahead = time.time() - now
    for name, at in written.items():
        with suppress(DamagedObjectError, ValueError, RecursionError):
            content: Json = json.loads(store.read(f"{PLACE}/{name}") or "")
            gateway = _gateway(name.removesuffix(".json"), content)
            seen.append(replace(gateway, at=at + ahead, clock_ahead=gateway.at - at))
    return sorted(seen, key=lambda gateway: (gateway.machine, gateway.id))


def forget(store: SharedFiles, gateway: str) -> None:
    """Delete what a gateway that ends has written.

    Raises:
        OSError: The store can't be reached.
    """
    store.remove_file(f"{PLACE}/{gateway}.json")


def read_id(folder: Path) -> str | None:
    """Return the id of the gateway of a home; ``None`` if none ever ran there."""
    try:
        return (folder / ID_FILE).read_text()
    except FileNotFoundError:
        return None


def ensure_id(folder: Path) -> str:
    """Return the id of the gateway of a home, drawn at its first start."""
    if (known := read_id(folder)) is not None:
        return known
    folder.mkdir(parents=True, exist_ok=True)
    manifest.write_atomically(folder / ID_FILE, os.urandom(8).hex())
    return (folder / ID_FILE).read_text()


def _gateway(gateway: str, content: Json) -> SeenGateway:
    match content:
        case {
            "at": float(at),
            "machine": str(machine),
            "champions": dict(champions),
            "refused": dict(refused),
        }:
            return SeenGateway(
                gateway,
                machine,
                at,
                {workload: _champion(served) for workload, served in champions.items()},
                {version: str(why) for version, why in refused.items()},
            )
        case _:
            raise ValueError("expected the time, the champions and the refusals of a gateway")


def _champion(content: Json) -> SeenChampion:
    match content:
        case {
            "version": str(version),
            "since": str(since),
            "proved_at": str(proved_at),
            "unproved": bool(unproved),
            "replicas": list(replicas),
        }:
            return SeenChampion(version, since, proved_at, unproved, [*map(str, replicas)])
        case _:
            raise ValueError("expected a version with its proof")
