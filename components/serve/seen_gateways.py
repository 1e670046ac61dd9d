"""What each gateway of an object store serves, as it last wrote there."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from components.schema import Json
from components.serve.routes import Served
from components.store import manifest
from components.store.object_store import DamagedObjectError, ObjectStore

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
    """A gateway, by its id, and when it wrote this (Unix seconds, by its machine's clock).

    ``champions`` are by workload, ``None`` where an older release does not say which version
    serves; ``refused`` are the reasons by ``workload@version``.
    """

    id: str
    machine: str
    at: float
    champions: Mapping[str, SeenChampion | None]
    refused: Mapping[str, str]

    def to_json(self) -> dict[str, Json]:
        """Return the object in the store; ``serves`` is what older releases read."""
        return {**asdict(self), "serves": [*self.champions]}


def write(store: ObjectStore, gateway: SeenGateway) -> None:
    """Write what a running gateway serves.

    Raises:
        OSError: The store can't be reached.
    """
    store.write(f"{PLACE}/{gateway.id}.json", json.dumps(gateway.to_json()))


def read(store: ObjectStore) -> list[SeenGateway]:
    """Return what all gateways last wrote, by machine; what no gateway wrote is left out.

    Raises:
        OSError: The store can't be reached.
    """
    seen: list[SeenGateway] = []
    for name in store.sizes(PLACE):
        with suppress(DamagedObjectError, ValueError, RecursionError):
            content: Json = json.loads(store.read(f"{PLACE}/{name}") or "")
            seen.append(_gateway(name.removesuffix(".json"), content))
    return sorted(seen, key=lambda gateway: (gateway.machine, gateway.id))


def forget(store: ObjectStore, gateway: str) -> None:
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
        case {"at": float(at), "serves": list(serves)}:
            machine, champions = content.get("machine"), content.get("champions")
            by_workload = champions if isinstance(champions, dict) else {}
            refused = content.get("refused")
            return SeenGateway(
                gateway,
                machine if isinstance(machine, str) else "unknown",
                at,
                {str(each): _champion(by_workload.get(str(each))) for each in serves},
                {name: str(why) for name, why in refused.items()}
                if isinstance(refused, dict)
                else {},
            )
        case _:
            raise ValueError("expected the time and the workloads of a gateway")


def _champion(content: Json) -> SeenChampion | None:
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
            return None
