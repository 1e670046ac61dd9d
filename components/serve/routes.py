"""Which version of each workload serves: an immutable table, its file, and the current reference.

A swap writes a new table and flips one reference. A request reads its workload's route once, and is
counted under that route's epoch until it ends, so that a swap can wait for it.
"""

import asyncio
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import cast

from components.chat.dialects import Dialect
from components.schema import Json

FILE = "routes.json"  # in the home's folder `serve`
FILE_VERSION = 1


class RoutesFileError(ValueError):
    """Raised when the file of routes can't be read."""


@dataclass(frozen=True, slots=True)
class Served:
    """A version that is loaded and proved on its replicas."""

    workload: str

    version: str
    """The number of the registered version, as text."""

    adapter: str
    """The adapter's key, 16 hex digits."""

    sha256: str
    """The digest of the staged folder's files, 64 hex digits."""

    model: str
    """The engine's name of the adapter, used once: ``<workload>.v<version>-<sha12>``."""

    base: str
    """The base's folder, with its tokenizer's files."""

    template_hash: str
    """The hash of the prompt template that it was trained with."""

    form: Dialect
    """The syntax of its tool calls."""

    max_new_tokens: int
    """The length of an answer where a request has no ``max_tokens``."""

    precision: str
    """The engine's precision, such as ``fp32``, ``bf16`` or ``nf4``."""

    constrained: bool
    """Whether calls are held to the schemas of the offered tools, as in its evaluation."""

    proved_at: str
    """When its behaviour was last proved on all its replicas: ISO 8601, UTC."""

    since: str
    """Since when it serves: ISO 8601, UTC."""

    replicas: tuple[str, ...]
    """The names of the replicas where it is proved."""

    unproved: bool = False
    """Whether it has no measurable effect, so that it can't be told from its base."""

    labels: tuple[str, ...] = ()
    """The only texts that it may answer where no tools are offered; any if empty."""

    @property
    def name(self) -> str:
        """The version as answers name it: ``support-routing@7``."""
        return f"{self.workload}@{self.version}"


_READING = ("base", "template_hash", "form", "max_new_tokens", "constrained", "labels")


@dataclass(frozen=True, slots=True)
class CanaryRoute:
    """A version that answers a share of the requests."""

    served: Served

    order: str
    """The order that started it, as its version's tag has it."""


@dataclass(frozen=True, slots=True)
class Route:
    """Who answers a workload's requests; ``epoch`` is larger by one after each flip."""

    epoch: int
    champion: Served
    previous: Served | None = None
    """The version before the champion, still loaded; a fallback, and a rollback without a load."""
    canary: CanaryRoute | None = None

    def all_served(self) -> list[Served]:
        """Return the champion, the version before it, and the canary."""
        canary = self.canary.served if self.canary is not None else None
        return [each for each in (self.champion, self.previous, canary) if each is not None]

    @property
    def reads_alike(self) -> bool:
        """Whether the canary renders, holds and limits requests as the champion does.

        Then a request that one of them refuses for what it is says nothing about either.
        """
        if self.canary is None:
            return False
        canary, champion = self.canary.served, self.champion
        return all(getattr(canary, name) == getattr(champion, name) for name in _READING)

    def with_served(self, change: Callable[[Served], Served]) -> "Route":
        """Return a route in which each version is changed."""
        return replace(
            self,
            champion=change(self.champion),
            previous=self.previous and change(self.previous),
            canary=self.canary and replace(self.canary, served=change(self.canary.served)),
        )


class Routes:
    """The routes by workload; immutable."""

    __slots__ = ("_routes",)

    def __init__(self, routes: Mapping[str, Route] | None = None) -> None:
        self._routes = MappingProxyType(dict(routes or {}))

    def __getitem__(self, workload: str) -> Route:
        return self._routes[workload]

    def __iter__(self) -> Iterator[str]:
        return iter(self._routes)

    def __len__(self) -> int:
        return len(self._routes)

    def __contains__(self, workload: object) -> bool:
        return workload in self._routes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Routes) and dict(self._routes) == dict(other._routes)

    __hash__ = None  # type: ignore[assignment]

    def get(self, workload: str) -> Route | None:
        """Return a workload's route; ``None`` if it has none."""
        return self._routes.get(workload)

    def with_route(self, workload: str, route: Route) -> "Routes":
        """Return routes in which this workload has another route."""
        return Routes({**self._routes, workload: route})

    def without(self, workload: str) -> "Routes":
        """Return routes without this workload."""
        return Routes({name: route for name, route in self._routes.items() if name != workload})

    def with_replicas(
        self, workload: str, replicas: Callable[[Served], tuple[str, ...]]
    ) -> "Routes":
        """Return routes in which the versions of a workload have other replicas."""
        route = self.get(workload)
        if route is None:
            return self
        changed = route.with_served(lambda each: replace(each, replicas=replicas(each)))
        return self.with_route(workload, changed)

    def all_served(self) -> list[Served]:
        """Return every version that is routed, once: champions, those before them, canaries."""
        routed = [served for route in self._routes.values() for served in route.all_served()]
        return [*{served.model: served for served in routed}.values()]

    def to_json(self) -> dict[str, Json]:
        """Return the routes as the file has them."""
        routes = {name: asdict(route) for name, route in sorted(self._routes.items())}
        return {"version": FILE_VERSION, "routes": cast("dict[str, Json]", routes)}

    def write(self, path: Path) -> None:
        """Replace the file; after a crash it has either the old routes or these."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        with partial.open("w") as file:
            json.dump(self.to_json(), file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read(path: Path) -> Routes:
    """Read a file of routes; empty routes if it does not exist.

    Raises:
        RoutesFileError: It is not a file of routes, or one of a newer Flywheel.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return Routes()
    except ValueError as error:
        raise RoutesFileError(f"reading {path}: it is not JSON: {error}") from error
    match content:
        case {"version": 1, "routes": dict(routes)}:
            pass
        case {"version": version}:
            raise RoutesFileError(
                f"reading {path}: its version is {version!r}, expected {FILE_VERSION}; "
                "use the Flywheel that wrote it"
            )
        case _:
            raise RoutesFileError(f"reading {path}: expected an object with `version` and `routes`")
    try:
        return Routes({name: _route(route) for name, route in routes.items()})
    except (KeyError, TypeError) as error:
        raise RoutesFileError(f"reading {path}: a route is incomplete: {error}") from error


class Current:
    """The routes in use, and the open requests by workload and epoch; belongs to one event loop."""

    def __init__(self, routes: Routes | None = None) -> None:
        self.routes = routes or Routes()
        """Replace it to flip: requests that begin later use the new routes."""

        self._open: Counter[tuple[str, int]] = Counter()
        self._left = asyncio.Event()

    def enter(self, workload: str) -> Route | None:
        """Return a workload's route and count a request under its epoch; ``leave`` ends it.

        Return ``None``, and count nothing, if the workload has no route.
        """
        route = self.routes.get(workload)
        if route is not None:
            self._open[workload, route.epoch] += 1
        return route

    def leave(self, workload: str, epoch: int) -> None:
        """Count a request's end."""
        key = workload, epoch
        self._open[key] -= 1
        if not self._open[key]:
            del self._open[key]
            self._left.set()

    def open_requests(self, workload: str, epoch: int) -> int:
        """Return the open requests of a workload that began in this epoch or an earlier one."""
        return sum(
            count
            for (name, began), count in self._open.items()
            if name == workload and began <= epoch
        )

    async def drained(self, workload: str, epoch: int, deadline: float) -> bool:
        """Wait until no request of this epoch, or an earlier one, is open.

        Args:
            workload: The workload.
            epoch: The last epoch to wait for.
            deadline: The most seconds to wait.

        Returns:
            Whether all have ended; ``False`` at the deadline.
        """
        try:
            async with asyncio.timeout(deadline):
                while self.open_requests(workload, epoch):
                    self._left.clear()
                    await self._left.wait()
        except TimeoutError:
            return False
        return True


def _route(content: dict[str, Json]) -> Route:
    match content:
        case {"epoch": int(epoch), "champion": dict(champion), **others}:
            previous, canary = others.get("previous"), others.get("canary")
        case _:
            raise TypeError("expected `epoch` and `champion`")
    return Route(
        epoch,
        _served(champion),
        _served(previous) if previous is not None else None,
        _canary(canary) if canary is not None else None,
    )


def _canary(content: Json) -> CanaryRoute:
    match content:
        case {"served": dict(served), "order": str(order), **_others}:
            return CanaryRoute(_served(served), order)
        case _:
            raise TypeError(f"expected a canary with its order, found {content!r}")


def _served(content: Json) -> Served:
    if not isinstance(content, dict):
        raise TypeError(f"expected a served version, found {content!r}")
    names = {field.name for field in fields(Served)}
    values: dict[str, Json] = {name: value for name, value in content.items() if name in names}
    replicas = values.pop("replicas")
    if not isinstance(replicas, list):
        raise TypeError(f"expected a list of replicas, found {replicas!r}")
    labels = values.pop("labels", [])
    if not isinstance(labels, list):
        raise TypeError(f"expected labels, found {labels!r}")
    listed = {"replicas": tuple(map(str, replicas)), "labels": tuple(map(str, labels))}
    return Served(**values, **listed)  # type: ignore[arg-type]


class RouteSwitch:
    """Makes one change of the routes at a time; belongs to one event loop."""

    def __init__(self, path: Path, current: Current) -> None:
        self.path, self._current = path, current
        self._lock = asyncio.Lock()
        self.locks = defaultdict[str, asyncio.Lock](asyncio.Lock)
        """By workload: held while versions of it are loaded and proved, or withdrawn."""

    @property
    def routes(self) -> Routes:
        """The routes in use."""
        return self._current.routes

    async def flip(self, change: Callable[[Routes], Routes]) -> None:
        """Write changed routes, then use them."""
        async with self._lock:
            table = change(self.routes)
            if table != self.routes:
                await asyncio.to_thread(table.write, self.path)
                self._current.routes = table
