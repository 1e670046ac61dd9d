"""Keep the routes on each workload's champion: engines, staging, swaps, status.

``following`` is the way in; the gateway runs inside of it.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from typing import cast

from components.schema import Json
from components.serve import routes, staged_version
from components.serve.champion_watch import (
    ChampionWatch,
    RegistryAddress,
    RegistryClient,
)
from components.serve.embedded_replicas import EmbeddedReplicas
from components.serve.engines.replica_clients import make_engines
from components.serve.engines.serving_engine import ServingEngine, UpstreamError
from components.serve.gateway_reports import GatewayReports
from components.serve.rollout import Rollout
from components.serve.routes import Current
from components.serve.serve_places import ServePlaces
from components.serve.settings import DEFAULT_TIMES, ServeSettings, SwapTimes
from components.serve.staged_version import StagedVersion
from components.serve.staging_children import StagingChildren, StagingError
from components.serve.swap import AdapterSwap, SwapRefusedError
from components.store.shared_files import SharedFiles

LOG = logging.getLogger(__name__)

AGAIN_SECONDS = 1.0  # after which a loop that failed is started again
DAMAGE_SECONDS = 5.0  # how often damaged files are looked for
LONGEST_DAMAGE_SECONDS = 60.0  # and after they could not be staged again
LONGEST_ENGINE_SECONDS = 60.0  # between two attempts to start an engine

GRAMMAR_ENGINES = frozenset({"embedded", "vllm", "nim"})


@asynccontextmanager
async def following(
    settings: ServeSettings,
    places: ServePlaces,
    registry: RegistryAddress | None,
    current: Current,
    store: SharedFiles | None = None,
    make_rollout: Callable[[AdapterSwap], Rollout] | None = None,
    times: SwapTimes = DEFAULT_TIMES,
) -> AsyncGenerator["Follower"]:
    """Serve what the routes file has, then follow the registry until the end of the block.

    Without a registry the routes stay as they are, and without ``make_rollout`` no version answers
    a share.
    """
    follower = Follower(settings, places, registry, current, store, make_rollout, times)
    await follower.start()
    tasks = [asyncio.create_task(_keep_running(work)) for work in follower.work()]
    try:
        yield follower
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await follower.close()


class Follower:
    """What ``ChampionWatch`` has done about a change; see ``following``."""

    def __init__(
        self,
        settings: ServeSettings,
        places: ServePlaces,
        registry: RegistryAddress | None,
        current: Current,
        store: SharedFiles | None = None,
        make_rollout: Callable[[AdapterSwap], Rollout] | None = None,
        times: SwapTimes = DEFAULT_TIMES,
    ) -> None:
        self.engines: dict[str, ServingEngine] = make_engines(settings.engine)
        self._settings, self._places = settings, places
        # By workload and version: the step, and the base, of what is being followed.
        self._preparing: dict[tuple[str, str], str] = {}
        self._bases: dict[tuple[str, str], str] = {}
        self._staging = StagingChildren(settings, places, registry, times.staging)
        self.swap = AdapterSwap(
            places.folder,
            self.engines,
            current,
            settings.swap,
            times=times,
            max_residents=settings.engine.max_loras,
            is_constrained=self._is_constrained,
        )
        self._embedded = EmbeddedReplicas(settings, self.swap)
        self.rollout = make_rollout(self.swap) if make_rollout is not None else None
        self._reports = GatewayReports(self.swap, places, store, self.status)
        self._registry = RegistryClient(registry) if registry is not None else None
        self.watch = (
            ChampionWatch(
                self._registry,
                self,
                self.rollout,
                workloads=settings.only,
                seconds=times.follow,
            )
            if self._registry is not None
            else None
        )

    async def start(self) -> None:
        """Load and prove what the routes file has; serve on without what fails."""
        self._places.adapters.mkdir(parents=True, exist_ok=True)
        self._staging.delete_scratch()
        await self._start_engines()
        if self.rollout is not None:
            self.rollout.restore()
        await self.swap.start()
        self.swap.delete_unused()

    def work(self) -> list[Callable[[], Coroutine[None, None, None]]]:
        """Return what has to run meanwhile."""
        optional = [each.run for each in (self.rollout, self.watch) if each is not None]
        return [
            self.swap.replicas.run,
            *optional,
            self._stage_damaged,
            self._start_missing_engines,
            *self._reports.work(),
        ]

    async def close(self) -> None:
        """Stop the embedded engine and close all connections."""
        if self.rollout is not None:
            await self.rollout.close()
        await self.swap.close()
        if self._registry is not None:
            await self._registry.close()
        await self._embedded.close()
        for name, engine in self.engines.items():
            if name not in self._embedded.names:
                await engine.close()
        await self._reports.leave()

    # -- what the watch has done

    def serving(self, workload: str) -> tuple[str | None, str | None]:
        """Return the numbers of the version that serves and of the one before."""
        route = self.swap.current.routes.get(workload)
        if route is None:
            return None, None
        return route.champion.version, route.previous.version if route.previous else None

    def known(self) -> Iterable[str]:
        """Return the workloads that are served."""
        return [*self.swap.current.routes]

    async def follow(self, workload: str, version: str) -> None:
        """Stage a version unless it is loaded, and make it serve."""
        if (why := self._places.alias_objection(workload, version)) is not None:
            self.swap.refuse(workload, version, why)
            return
        try:
            async with self._prepared(workload, version) as staged:
                await self.swap.follow(staged)
        except SwapRefusedError:
            return  # noted, with its reason
        except (StagingError, UpstreamError) as error:
            self.swap.refuse(workload, version, str(error))
            return
        await self._stop_unused()

    @asynccontextmanager
    async def _prepared(self, workload: str, version: str) -> AsyncGenerator[StagedVersion]:
        """Stage a version unless it is loaded, with an engine for its base."""
        key, staged = (workload, version), None
        self._preparing[key] = "verifying"
        try:
            staged = self._resident(workload, version) or await self._stage(workload, version)
            self._bases[key] = staged.base_hash
            self._preparing[key] = "starting the engine"
            await self._embedded.ensure(staged)
            self._preparing[key] = "loading and proving"
            yield staged
        finally:
            self._preparing.pop(key, None)
            self._bases.pop(key, None)
            if staged is not None:
                self.swap.delete_unused(staged.model)

    def _resident(self, workload: str, version: str) -> StagedVersion | None:
        """Return a routed version, staged; ``None`` if it has to be staged."""
        route, refusal = self.swap.current.routes.get(workload), self.swap.refusals.get(workload)
        if refusal is not None and refusal.version == version:
            return None  # its files may be why
        for served in route.all_served()[1:] if route is not None else ():
            if served.version == version:
                with suppress(OSError, ValueError):
                    return staged_version.read_staged(self._places.adapters, served.model)
        return None

    @asynccontextmanager
    async def prepared(self, workload: str, version: str) -> AsyncGenerator[StagedVersion]:
        """Stage a version for the block, unless it is loaded, with an engine for its base."""
        try:
            async with self._prepared(workload, version) as staged:
                yield staged
        finally:
            await self._stop_unused()

    async def prepare(self, workload: str, version: str) -> None:
        """Make a challenger's references, which take longer than all else of a swap."""
        try:
            precision = self._settings.engine.precision
            await self._staging.stage(workload, version, precision, only_references=True)
        except StagingError as error:
            LOG.info("version %s of %s is not prepared: %s", version, workload, error)

    async def withdraw(self, workload: str, versions: list[str], why: str) -> None:
        """Stop serving versions at once."""
        route = self.swap.current.routes.get(workload)
        gone = [each for each in route.all_served() if each.version in versions] if route else []
        canary = self.rollout.version_of(workload) if self.rollout is not None else None
        for version in versions:
            if self.rollout is not None and version == canary:
                self.rollout.withdraw(workload, why)
            else:
                self.swap.refuse(workload, version, why)
        # First: once no route has them, whoever was killed or failed would not know of them.
        for served in gone:
            for path in self._places.references.glob(f"{served.adapter}-*"):
                path.unlink(missing_ok=True)
        await self.swap.withdraw(workload, versions, why)
        await self._stop_unused()

    async def forget_previous(self, workload: str, version: str) -> None:
        """Ask the version before the champion no more, which people rolled back."""
        await self.swap.forget_previous(workload, version)
        await self._stop_unused()

    def refuse(self, workload: str, version: str, why: str) -> None:
        """Note that a champion may not serve."""
        self.swap.refuse(workload, version, why)

    def settle(self, workload: str) -> None:
        """Forget an earlier refusal: the champion serves."""
        self.swap.refusals.pop(workload, None)

    # -- staging, and engines for what is staged

    async def _stage(self, workload: str, version: str) -> StagedVersion:
        model = await self._staging.stage(workload, version, self._settings.engine.precision)
        staged = staged_version.read_staged(self._places.adapters, model)
        if (precision := self._embedded.other_precision(staged)) is not None:
            # One process a base: it serves all its versions at the precision of the first.
            model = await self._staging.stage(workload, version, precision)
            staged = staged_version.read_staged(self._places.adapters, model)
        return staged

    async def _stage_damaged(self) -> None:
        """Stage again what is routed and was damaged here; its replicas then load it."""
        wait = DAMAGE_SECONDS
        while True:
            await asyncio.sleep(wait)
            wait = DAMAGE_SECONDS
            for served in self.swap.current.routes.all_served():
                if served.model not in self.swap.adapters.damaged:
                    continue
                LOG.error("%s is staged again: its files were damaged", served.name)
                try:
                    await self._stage(served.workload, served.version)
                except StagingError as error:  # its replicas are out, with the damage as reason
                    LOG.warning("%s could not be staged again: %s", served.name, error)
                    wait = LONGEST_DAMAGE_SECONDS
                else:
                    self.swap.replicas.note_staged_again(served.model)

    async def _start_engines(self) -> None:
        """Start the engines of what is routed; serve on without those that fail."""
        failed: set[str] = set()  # hashes of their bases
        for served in routes.read(self._places.routes).all_served():
            with suppress(OSError, ValueError):  # said when it is brought up
                staged = staged_version.read_staged(self._places.adapters, served.model)
                if staged.base_hash in failed:
                    continue
                try:
                    await self._embedded.ensure(staged)
                except UpstreamError as error:
                    LOG.warning("%s has no engine: %s", served.name, error)
                    failed.add(staged.base_hash)

    async def _start_missing_engines(self) -> None:
        """Start, ever more rarely tried, what did not start with the gateway."""
        wait = AGAIN_SECONDS
        while True:
            await asyncio.sleep(wait)
            await self._start_engines()
            wait = min(2 * wait, LONGEST_ENGINE_SECONDS)

    async def _stop_unused(self) -> None:
        """Stop the processes whose base no version has that serves, served before, or will."""
        used = {*self._bases.values()}
        for served in self.swap.current.routes.all_served():
            with suppress(OSError, ValueError):
                staged = staged_version.read_staged(self._places.adapters, served.model)
                used.add(staged.base_hash)
        await self._embedded.stop_others(used)

    def _is_constrained(self, staged: StagedVersion) -> bool:
        if self._settings.engine.kind not in GRAMMAR_ENGINES:
            return False
        own = self._settings.workload(staged.workload).constrained
        return staged.constrained if own is None else own

    # -- what a person may see

    def status(self) -> dict[str, Json]:
        """Return who serves, proofs, refusals, the replicas, and the age of what is known."""
        swap = self.swap.status()
        replicas = cast("dict[str, dict[str, Json]]", swap.pop("replicas"))
        age = self.watch.knowledge_age_seconds if self.watch is not None else None
        return {
            "routes": self.swap.current.routes.to_json()["routes"],
            "engine": self._settings.engine.kind,
            "refused": [
                {"workload": workload, **asdict(refusal)}
                for workload, refusal in sorted(self.swap.refusals.items())
            ],
            "preparing": [
                {"workload": workload, "version": version, "step": step}
                for (workload, version), step in sorted(self._preparing.items())
            ],
            "rollouts": self.rollout.describe() if self.rollout is not None else [],
            "knowledge_age_seconds": None if age is None else round(age, 1),
            "replicas": [
                {
                    "name": name,
                    "condition": "in" if replica["serves"] else "out",
                    "reason": replica["reason"],
                }
                for name, replica in replicas.items()
            ],
            **swap,
        }


async def _keep_running(work: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run a loop again when it fails: the gateway serves on meanwhile."""
    while True:
        try:
            await work()
        except Exception:
            LOG.exception("a loop of the follower failed; it is started again")
            await asyncio.sleep(AGAIN_SECONDS)
