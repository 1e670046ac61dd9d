"""Replace the version that serves a workload, after proving the new one on every replica.

Load on every replica, list, prove, write the journal and the routes file, flip one reference,
drain, keep the version before, unload the one before that. After a crash the routes file counts.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from components.schema import Json
from components.serve import routes, staged_version, swap_journal
from components.serve.engines.serving_engine import ServingEngine
from components.serve.proof import Proof
from components.serve.replica_set import ReplicaSet
from components.serve.routes import CanaryRoute, Current, Route, Routes, RouteSwitch, Served
from components.serve.settings import DEFAULT_TIMES, SwapSettings, SwapTimes
from components.serve.staged_adapters import StagedAdapters
from components.serve.staged_version import StagedVersion
from components.serve.swap_journal import SwapJournal

LOG = logging.getLogger(__name__)

ERASED_DRAIN_SECONDS = 10.0  # requests of an erased version are waited for no longer than this


class SwapRefusedError(Exception):
    """A version was not proved on enough replicas; the one before serves on.

    ``is_wrong`` if what it answered is why, so that trying again is useless.
    """

    def __init__(self, message: str, *, reason: str, is_wrong: bool = False) -> None:
        super().__init__(message)
        self.reason, self.is_wrong = reason, is_wrong


@dataclass(slots=True)
class Refusal:
    """Why a version does not serve, and since when."""

    version: str
    reason: str
    at: str


class AdapterSwap:
    """Keeps every replica's adapters and the routes in step; belongs to one event loop.

    Args:
        folder: The home's folder ``serve``.
        engines: The replicas by name.
        current: The routes in use.
        settings: The number of replicas that must be ready.
        times: How long a step may take.
        max_residents: The most adapters that a replica may hold.
        is_constrained: Whether a workload's calls are held to their schemas.
    """

    def __init__(
        self,
        folder: Path,
        engines: dict[str, ServingEngine],
        current: Current,
        settings: SwapSettings,
        *,
        times: SwapTimes = DEFAULT_TIMES,
        max_residents: int = 8,
        is_constrained: Callable[[StagedVersion], bool] = lambda _: False,
    ) -> None:
        self.folder, self.current = folder, current
        self._settings, self._times = settings, times
        self._journal = SwapJournal(folder)
        self.refusals: dict[str, Refusal] = {}
        # The model and the reason of the refusal that is each workload's last step in the journal.
        self._newest_refusals: dict[str, tuple[str, str]] = {}
        self._max_residents = max_residents
        self._is_constrained = is_constrained
        self._retiring: dict[str, asyncio.Task[None]] = {}
        self._arriving: set[str] = set()  # models that are being loaded and proved
        self._switch = RouteSwitch(folder / routes.FILE, current)
        self.adapters = StagedAdapters(folder / staged_version.ADAPTERS)
        self.replicas = ReplicaSet(
            engines,
            self._switch,
            self.adapters,
            settings,
            times,
            is_constrained=is_constrained,
            leftovers=self._leftovers,
            unload_again=self._unload_again,
        )

    # -- at the start and at the end

    async def start(self) -> None:
        """Take the routes from their file, and bring every replica that answers up to them."""
        table = routes.read(self._switch.path)
        for workload in table:
            table = table.with_replicas(workload, lambda _: ())
        self.current.routes = table
        await self.replicas.bring_up_all()
        if unfinished := self._journal.unfinished():
            self._journal.write("recovered", unfinished[0], unfinished[1])

    async def close(self) -> None:
        """Stop waiting for old requests; the adapters stay loaded."""
        tasks = [*self._retiring.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- another version

    async def follow(self, staged: StagedVersion) -> Route:
        """Make a staged version the workload's champion, once it is proved.

        Raises:
            SwapRefusedError: Too few replicas proved it. Nothing changed.
        """
        workload = staged.workload
        async with self._switch.locks[workload]:
            route = self.current.routes.get(workload)
            if route is not None and route.champion.model == staged.model:
                return route
            try:
                ready = await self._prove_on_enough(staged)
            except SwapRefusedError as refused:
                self.refuse(workload, staged.version, refused.reason)
                raise
            # Not to be cancelled between the file and the reference.
            return await asyncio.shield(self._take_over(staged, ready))

    async def _prove_on_enough(self, staged: StagedVersion) -> list[str]:
        """Load and prove a version; return its replicas, or raise ``SwapRefusedError``."""
        workload, route = staged.workload, self.current.routes.get(staged.workload)
        # Tried again and again, a refused version would fill the journal.
        model, refusal = self._newest_refusals.get(workload, ("", ""))
        if model != staged.model:
            self._journal.write("intended", workload, staged.model)
        await self._keep(staged.model)
        routed = {each.model for each in route.all_served()} if route is not None else set[str]()
        needed = self._needed(staged)
        self._arriving.add(staged.model)
        try:
            made = await self._bring_everywhere(staged)
        except asyncio.CancelledError:
            self._retire(workload, staged.model, epoch=-1)
            raise
        finally:
            self._arriving.discard(staged.model)
        ready = [each.replica for each in made if each.objection is None]
        ready = [name for name in ready if self.replicas.is_up(name)]
        if len(ready) < needed:
            failed = [each for each in made if each.objection is not None]
            reason = "; ".join(f"{each.replica}: {each.objection}" for each in failed)
            reason = reason or self.replicas.reason_of_none()
            self.replicas.look_at(each.replica for each in failed)
            if staged.model not in routed:
                await self.replicas.unload_everywhere(staged.model)
            if (model, refusal) != (staged.model, reason):
                self._journal.write("refused", workload, staged.model, reason=reason)
                self._newest_refusals[workload] = staged.model, reason
            raise SwapRefusedError(
                f"serving version {staged.version} of {workload}: {len(ready)} of "
                f"{len(self.replicas)} replicas proved it, expected {needed}: {reason}",
                reason=reason,
                is_wrong=any(each.is_wrong for each in failed),
            )
        self._journal.write("proved", workload, staged.model)
        return ready

    async def _take_over(self, staged: StagedVersion, replicas: Sequence[str]) -> Route:
        workload = staged.workload
        champion = self._served(staged, replicas)

        def flipped(table: Routes) -> Routes:
            before = table.get(workload)
            epoch = before.epoch + 1 if before else 1
            previous = before.champion if before else None
            return table.with_route(workload, Route(epoch, champion, previous))

        before = self.current.routes.get(workload)
        await self._switch.flip(flipped)
        route = self.current.routes[workload]
        self._journal.write("flipped", workload, staged.model, epoch=route.epoch)
        self.refusals.pop(workload, None)
        self._newest_refusals.pop(workload, None)
        LOG.info("%s is served by version %s", workload, staged.version)
        for served in before.all_served() if before is not None else ():
            self._retire(workload, served.model, route.epoch - 1)
        return route

    async def begin_canary(self, staged: StagedVersion, champion: str, order: str) -> Route:
        """Let a staged version answer requests beside the champion, once it is proved.

        Args:
            staged: The version.
            champion: The number of the version that has to be champion.
            order: The text of the canary's order.

        Raises:
            SwapRefusedError: Too few replicas proved it, or another champion serves.
        """
        workload = staged.workload
        async with self._switch.locks[workload]:
            self._require_champion(workload, champion)
            ready = await self._prove_on_enough(staged)
            return await asyncio.shield(self._add_canary(staged, ready, champion, order))

    async def _add_canary(
        self, staged: StagedVersion, replicas: Sequence[str], champion: str, order: str
    ) -> Route:
        workload = staged.workload
        canary = CanaryRoute(self._served(staged, replicas), order)
        before = self.current.routes.get(workload)

        def added(table: Routes) -> Routes:
            route = self._require_champion(workload, champion)  # withdrawn meanwhile?
            return table.with_route(workload, replace(route, epoch=route.epoch + 1, canary=canary))

        await self._switch.flip(added)
        route = self.current.routes[workload]
        self._newest_refusals.pop(workload, None)
        LOG.info("%s has a canary: version %s", workload, staged.version)
        if before is not None and before.canary is not None:
            self._retire(workload, before.canary.served.model, route.epoch - 1)
        return route

    def _require_champion(self, workload: str, version: str) -> Route:
        route = self.current.routes.get(workload)
        if route is None or route.champion.version != version:
            actual = route.champion.version if route is not None else "nobody"
            reason = f"version {version} has to be champion, {actual} serves {workload}"
            raise SwapRefusedError(f"a canary of {workload}: {reason}", reason=reason)
        return route

    async def end_canary(self, workload: str) -> None:
        """Route nothing to a workload's canary any more, and unload it."""
        canary: CanaryRoute | None = None
        epoch = -1

        def without(table: Routes) -> Routes:
            nonlocal canary, epoch
            route = table.get(workload)
            if route is None or route.canary is None:
                return table
            canary, epoch = route.canary, route.epoch
            return table.with_route(workload, replace(route, epoch=route.epoch + 1, canary=None))

        # Not to be cancelled between the file and the reference.
        await asyncio.shield(self._switch.flip(without))
        if canary is not None:
            self._retire(workload, canary.served.model, epoch)

    async def forget_previous(self, workload: str, version: str) -> None:
        """Ask the version before the champion no more, and unload it, if it is this one."""
        previous: Served | None = None
        epoch = -1

        def without(table: Routes) -> Routes:
            nonlocal previous, epoch
            route = table.get(workload)
            if route is None or route.previous is None or route.previous.version != version:
                return table
            previous, epoch = route.previous, route.epoch
            return table.with_route(workload, replace(route, epoch=route.epoch + 1, previous=None))

        await self._switch.flip(without)  # at once: a withdrawal that begins now finds it done
        if previous is None:
            return
        LOG.warning("%s: version %s was rolled back, and answers no more", workload, version)
        async with self._switch.locks[workload]:  # a swap under way may be to this version
            self._retire(workload, previous.model, epoch)

    async def withdraw(self, workload: str, versions: Sequence[str], why: str) -> list[str]:
        """Stop serving versions at once, unload them, and prove that their names are gone.

        The version before takes over if it is not among them; otherwise nobody serves.

        Returns:
            Where a name could not be removed yet; empty if all are gone.
        """
        # At once; and again when no swap is under way, which may have flipped to one of them.
        epoch = await self._drop(workload, versions)
        async with self._switch.locks[workload]:
            epoch = max(epoch, await self._drop(workload, versions))
            models = self._models_of(workload, versions)
            if not models:
                return []
            LOG.error("%s: %s is withdrawn: %s", workload, ", ".join(versions), why)
            seconds = min(ERASED_DRAIN_SECONDS, self._times.drain)
            await self.current.drained(workload, epoch, seconds)
            left: list[str] = []
            for model in sorted(models):
                await self._keep(model)
                left += await self.replicas.unload_everywhere(model)
                left += await self.replicas.still_answering(model)
                self.adapters.delete(model)
                reason = f"{why}; still at: {', '.join(left)}" if left else why
                self._journal.write("withdrawn", workload, model, reason=reason)
            return left

    async def _drop(self, workload: str, versions: Sequence[str]) -> int:
        """Route nothing to versions any more; return the last epoch of requests to them, or -1."""
        epoch = -1
        canary: CanaryRoute | None = None

        def without(table: Routes) -> Routes:
            nonlocal epoch, canary
            now = table.get(workload)
            if now is None or not {each.version for each in now.all_served()} & {*versions}:
                return table
            epoch = now.epoch
            both = [served for served in (now.champion, now.previous) if served is not None]
            rest = [served for served in both if served.version not in versions]
            if not rest:
                canary = now.canary
                return table.without(workload)
            # What a canary is compared with is its champion: it ends with it.
            is_champion_left = rest[0] == now.champion
            is_canary_left = now.canary is not None and now.canary.served.version not in versions
            left = now.canary if is_champion_left and is_canary_left else None
            canary = now.canary if left is None else None
            number = now.epoch if is_champion_left and left == now.canary else now.epoch + 1
            return table.with_route(workload, Route(number, *rest, canary=left))

        await self._switch.flip(without)
        if canary is not None and canary.served.version not in versions:
            self._retire(workload, canary.served.model, epoch)
        return epoch

    def _models_of(self, workload: str, versions: Sequence[str]) -> set[str]:
        """Return the names of versions that are routed, waiting to be unloaded, or staged."""
        known = {
            served.model for served in self.current.routes.all_served()
        } | self._retiring.keys()
        known |= self.adapters.names()
        parts = [match for name in known if (match := staged_version.NAME.fullmatch(name))]
        return {
            match[0]
            for match in parts
            if match["workload"] == workload and match["version"] in versions
        }

    async def _keep(self, model: str) -> None:
        """Stop waiting to unload a version."""
        if (task := self._retiring.pop(model, None)) is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def refuse(self, workload: str, version: str, reason: str) -> None:
        """Note why a champion does not serve."""
        known = self.refusals.get(workload)
        if known is None or (known.version, known.reason) != (version, reason):
            self.refusals[workload] = Refusal(version, reason, swap_journal.now())
            LOG.error("%s v%s is refused: %s", workload, version, reason)

    # -- loading

    async def _bring_everywhere(self, staged: StagedVersion) -> list[Proof]:
        held = {served.model for served in self.current.routes.all_served()} | self._retiring.keys()
        if len(held | {staged.model}) > self._max_residents:
            reason = (
                f"it would be adapter {len(held) + 1} at once, and the engine has room for "
                f"{self._max_residents}; raise max_loras"
            )
            healthy = self.replicas.healthy(staged)
            return [Proof(replica.name, staged.model, reason) for replica in healthy]
        return await self.replicas.bring_everywhere(staged)

    def _needed(self, staged: StagedVersion) -> int:
        if self._settings.min_ready is not None:
            return self._settings.min_ready
        eligible, healthy = self.replicas.eligible(staged), self.replicas.healthy(staged)
        return max(len(healthy), math.ceil(len(eligible) / 2), 1)

    # -- unloading

    def _leftovers(self) -> set[str]:
        """Return the models that a swap which a crash cut off may have left on a replica."""
        routed = {served.model for served in self.current.routes.all_served()}
        return self._journal.models() - routed - self._retiring.keys() - self._arriving

    def _retire(self, workload: str, model: str, epoch: int) -> None:
        """Unload a version once the requests that began with it have ended."""
        if model in {served.model for served in self.current.routes.all_served()}:
            return
        self._retiring[model] = asyncio.create_task(self._drain_and_unload(workload, model, epoch))

    async def _drain_and_unload(self, workload: str, model: str, epoch: int) -> None:
        if not await self.current.drained(workload, epoch, self._times.drain):
            LOG.warning("%s: requests of %s are cut after the drain", workload, model)
        is_again = model in self.replicas.kept
        # Without the workload's lock: an unload that hangs must not hold up a rollback.
        left = await self.replicas.unload_everywhere(model)
        self._retiring.pop(model, None)
        if not left:
            self.adapters.delete(model)
        if not (left and is_again):
            self._journal.write("unloaded", workload, model, reason="; ".join(left))

    def _unload_again(self, model: str) -> None:
        if model not in self._retiring.keys() | self._arriving:
            self._retire(staged_version.workload_of(model), model, epoch=-1)

    def delete_unused(self, model: str | None = None) -> None:
        """Delete what is staged and serves nobody: this version, or all of them.

        What a refused version, or a gateway that was killed, left would outlast an erasure.
        """
        used = {served.model for served in self.current.routes.all_served()}
        used |= self._retiring.keys() | self._arriving
        for name in [model] if model is not None else self.adapters.names():
            if name not in used:
                self.adapters.delete(name)

    def _served(self, staged: StagedVersion, replicas: Sequence[str]) -> Served:
        now = swap_journal.now()
        return Served(
            workload=staged.workload,
            version=staged.version,
            adapter=staged.adapter,
            sha256=staged.sha256,
            model=staged.model,
            base=staged.base,
            template_hash=staged.template_hash,
            form=staged.form,
            max_new_tokens=staged.max_new_tokens,
            precision=staged.precision,
            constrained=(is_constrained := self._is_constrained(staged)),
            labels=staged.labels if is_constrained else (),
            proved_at=now,
            since=now,
            replicas=tuple(replicas),
            unproved=not self.adapters.resident(staged.model).references.is_measurable,
        )

    # -- what a person may see

    def status(self) -> dict[str, Json]:
        """Return who serves what, since when, proved when and how well, and what was refused."""
        table = self.current.routes
        workloads: dict[str, Json] = {}
        for workload in sorted({*table, *self.refusals}):
            route, refusal = table.get(workload), self.refusals.get(workload)
            workloads[workload] = {
                "epoch": route.epoch if route else None,
                "champion": self._describe(route.champion) if route else None,
                "previous": (self._describe(route.previous) if route and route.previous else None),
                "canary": self._describe(route.canary.served) if route and route.canary else None,
                "refused": asdict(refusal) if refusal else None,
            }
        return {"workloads": workloads, "replicas": self.replicas.describe()}

    def _describe(self, served: Served) -> Json:
        proofs: dict[str, Json] = {}
        for made in self.replicas.proofs(served.model):
            numbers = {key: _json_number(value) for key, value in asdict(made).items()}
            proofs[made.replica] = {
                k: v for k, v in numbers.items() if k not in ("replica", "model")
            }
        return {
            "version": served.version,
            "adapter": served.adapter,
            "model": served.model,
            "since": served.since,
            "proved_at": served.proved_at,
            "unproved": served.unproved,
            "replicas": [*served.replicas],
            "proofs": proofs,
        }


def _json_number(value: Json) -> Json:
    return None if isinstance(value, float) and not math.isfinite(value) else value
