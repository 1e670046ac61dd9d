"""Replace the version that serves a workload, after proving the new one on every replica.

Load on every replica, list, prove, write the journal and the routes file, flip one reference,
drain, keep the version before, unload the one before that. After a crash the routes file counts.
"""

import asyncio
import logging
import math
import shutil
import stat
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from components.schema import Json
from components.serve import proof, routes, staged_version, swap_journal
from components.serve.engines.serving_engine import (
    EngineNeeds,
    Generation,
    ServingEngine,
    UpstreamError,
)
from components.serve.proof import Proof, Resident
from components.serve.routes import CanaryRoute, Current, Route, Routes, Served
from components.serve.settings import SwapSettings
from components.serve.staged_version import StagedVersion
from components.serve.swap_journal import SwapJournal
from components.store import manifest

LOG = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 1.0
LOAD_SECONDS = 180.0
UNLOAD_SECONDS = 30.0  # SGLang's unload can hang (sglang#36894): the replica is then taken out
ERASED_DRAIN_SECONDS = 10.0  # requests of an erased version are waited for no longer than this
BUSY, SLOW = frozenset({429, 503}), 504  # statuses of a proof that was refused, or took too long
MISSED_BEATS = 3  # timeouts in a row after which a replica is out; a lost connection counts at once
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0  # seconds before a replica that was refused is tried again


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


@dataclass(slots=True)
class _Replica:
    engine: ServingEngine
    identity: str | None = None  # of its process; ``None`` while it is out
    reason: str = "it was not reached yet"  # why it is out
    base: str | None = None  # the content hash of its base; ``None`` if only a proof can tell
    proofs: dict[str, Proof] = field(default_factory=dict[str, Proof])
    proved_at: float = 0.0
    missed: int = 0
    wait: float = FIRST_WAIT
    next_try: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    look: asyncio.Event = field(default_factory=asyncio.Event)  # set to be looked at now


class AdapterSwap:
    """Keeps every replica's adapters and the routes in step; belongs to one event loop.

    Args:
        folder: The home's folder ``serve``.
        engines: The replicas by name.
        current: The routes in use.
        settings: Timeouts and the number of replicas that must be ready.
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
        max_residents: int = 8,
        is_constrained: Callable[[StagedVersion], bool] = lambda _: False,
    ) -> None:
        self.folder, self.current, self.settings = folder, current, settings
        self.engines = engines
        self._journal = SwapJournal(folder)
        self.refusals: dict[str, Refusal] = {}
        # The model and the reason of the refusal that is each workload's last step in the journal.
        self._newest_refusals: dict[str, tuple[str, str]] = {}
        self._replicas = {name: _Replica(engine) for name, engine in engines.items()}
        self._watchers: asyncio.TaskGroup | None = None
        self._max_residents = max_residents
        self._is_constrained = is_constrained
        self._locks = defaultdict[str, asyncio.Lock](asyncio.Lock)  # by workload
        self._flip_lock = asyncio.Lock()
        self._retiring: dict[str, asyncio.Task[None]] = {}
        self._kept: set[str] = set()  # models that a replica did not unload
        self._arriving: set[str] = set()  # models that are being loaded and proved
        self._residents: dict[str, Resident] = {}
        self.damaged: set[str] = set()
        """The models whose staged files are gone or were changed; they have to be staged again."""

    @property
    def adapters(self) -> Path:
        """The folder of staged adapters."""
        return self.folder / staged_version.ADAPTERS

    @property
    def routes_path(self) -> Path:
        """The file of routes."""
        return self.folder / routes.FILE

    # -- at the start, and for as long as the gateway runs

    async def start(self) -> None:
        """Take the routes from their file, and bring every replica that answers up to them.

        A replica serves what it has just proved, and nothing before.
        """
        table = routes.read(self.routes_path)
        for workload in table:
            table = table.with_replicas(workload, lambda _: ())
        self.current.routes = table
        await asyncio.gather(*(self._beat(replica) for replica in self._replicas.values()))
        if unfinished := self._journal.unfinished():
            self._journal.write("recovered", unfinished[0], unfinished[1])

    async def run(self) -> None:
        """Watch the replicas: restarts, lost adapters, and a proof each minute."""
        async with asyncio.TaskGroup() as self._watchers:
            for replica in self._replicas.values():
                self._watchers.create_task(self._watch(replica))
            await asyncio.Event().wait()

    async def add_replica(self, engine: ServingEngine, base_hash: str | None) -> None:
        """Add a replica, of one base or of whichever it is, and bring it up to the routes."""
        replica = self._replicas[engine.name] = _Replica(engine, base=base_hash)
        self.engines[engine.name] = engine
        await self._beat(replica)
        if self._watchers is not None:
            self._watchers.create_task(self._watch(replica))

    async def remove_replica(self, name: str) -> None:
        """Remove a replica, which is about to end."""
        replica = self._replicas[name]
        await self._take_out(replica, "it is not used any more")
        del self._replicas[name], self.engines[name]

    async def _watch(self, replica: _Replica) -> None:
        while self._replicas.get(replica.engine.name) is replica:
            with suppress(TimeoutError):
                await asyncio.wait_for(replica.look.wait(), HEARTBEAT_SECONDS)
            replica.look.clear()
            await self._beat(replica)

    def report(self, replica: str, error: UpstreamError) -> None:
        """Note that a request failed on a replica, so that it is looked at now."""
        LOG.warning("%s failed a request: %s", replica, error.reason)
        if replica in self._replicas:
            self._replicas[replica].look.set()

    def note_staged_again(self, model: str) -> None:
        """Have the replicas load a damaged version whose files are right again."""
        self.damaged.discard(model)
        for replica in self._replicas.values():
            replica.next_try = 0.0
            replica.look.set()

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
        async with self._locks[workload]:
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
        ready = [name for name in ready if self._replicas[name].identity is not None]
        if len(ready) < needed:
            failed = [each for each in made if each.objection is not None]
            reason = "; ".join(f"{each.replica}: {each.objection}" for each in failed)
            reason = reason or self._reason_of_none()
            for each in failed:
                self._replicas[each.replica].look.set()
            if staged.model not in routed:
                await self._unload_everywhere(staged.model)
            if (model, refusal) != (staged.model, reason):
                self._journal.write("refused", workload, staged.model, reason=reason)
                self._newest_refusals[workload] = staged.model, reason
            raise SwapRefusedError(
                f"serving version {staged.version} of {workload}: {len(ready)} of "
                f"{len(self._replicas)} replicas proved it, expected {needed}: {reason}",
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
        await self._flip(flipped)
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
        async with self._locks[workload]:
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

        await self._flip(added)
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
        await asyncio.shield(self._flip(without))
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

        await self._flip(without)  # at once: a withdrawal that begins now finds it done
        if previous is None:
            return
        LOG.warning("%s: version %s was rolled back, and answers no more", workload, version)
        async with self._locks[workload]:  # a swap under way may be to this version
            self._retire(workload, previous.model, epoch)

    async def withdraw(self, workload: str, versions: Sequence[str], why: str) -> list[str]:
        """Stop serving versions at once, unload them, and prove that their names are gone.

        The version before takes over if it is not among them; otherwise nobody serves.

        Returns:
            Where a name could not be removed yet; empty if all are gone.
        """
        # At once; and again when no swap is under way, which may have flipped to one of them.
        epoch = await self._drop(workload, versions)
        async with self._locks[workload]:
            epoch = max(epoch, await self._drop(workload, versions))
            models = self._models_of(workload, versions)
            if not models:
                return []
            LOG.error("%s: %s is withdrawn: %s", workload, ", ".join(versions), why)
            seconds = min(ERASED_DRAIN_SECONDS, self.settings.drain_seconds)
            await self.current.drained(workload, epoch, seconds)
            left: list[str] = []
            for model in sorted(models):
                await self._keep(model)
                left += await self._unload_everywhere(model)
                left += await self._still_answering(model)
                self._delete_staged(model)
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

        await self._flip(without)
        if canary is not None and canary.served.version not in versions:
            self._retire(workload, canary.served.model, epoch)
        return epoch

    def _models_of(self, workload: str, versions: Sequence[str]) -> set[str]:
        """Return the names of versions that are routed, waiting to be unloaded, or staged."""
        known = {
            served.model for served in self.current.routes.all_served()
        } | self._retiring.keys()
        known |= self._staged_names()
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

    async def prove_all(self) -> list[tuple[Served, Proof]]:
        """Prove every version on every replica that serves it, now."""
        proofs = [
            (served, await self._prove_routed(replica, served.model))
            for served in self.current.routes.all_served()
            for replica in [*self._replicas.values()]
            if self._is_in(replica, served)
        ]
        return [(served, made) for served, made in proofs if made is not None]

    def refuse(self, workload: str, version: str, reason: str) -> None:
        """Note why a champion does not serve."""
        known = self.refusals.get(workload)
        if known is None or (known.version, known.reason) != (version, reason):
            self.refusals[workload] = Refusal(version, reason, swap_journal.now())
            LOG.error("%s v%s is refused: %s", workload, version, reason)

    # -- one replica

    async def _beat(self, replica: _Replica) -> None:
        engine = replica.engine
        try:
            identity = await engine.process_identity()
        except UpstreamError as error:
            replica.missed += 1
            is_silent = error.status == 504
            if not is_silent or replica.missed >= MISSED_BEATS:
                await self._take_out(replica, error.reason)
            return
        replica.missed = 0
        if replica.identity is not None and replica.identity != identity:
            await self._take_out(replica, "its process restarted")
        if replica.identity is None:
            if time.monotonic() >= replica.next_try:
                await self._admit(replica, identity)
            return
        expected = {
            served.model
            for served in self.current.routes.all_served()
            if self._is_in(replica, served)
        }
        try:
            listed = {model.name for model in await engine.list_loaded()}
        except UpstreamError as error:
            LOG.warning("%s does not list its adapters: %s", engine.name, error.reason)
            listed = expected  # the next proof can't be put off: it says who answers
        is_due = time.monotonic() - replica.proved_at >= self.settings.proof_seconds
        if is_due:
            for model in self._kept & listed - self._retiring.keys() - self._arriving:
                self._retire(staged_version.workload_of(model), model, epoch=-1)
        if expected - listed or self._absent(replica) or is_due:
            await self._bring_up(replica)

    def _absent(self, replica: _Replica) -> bool:
        """Whether a served version is not on this replica, and is worth another try."""
        is_absent = any(not self._is_in(replica, served) for served in self._served_by(replica))
        return is_absent and time.monotonic() >= replica.next_try

    async def _admit(self, replica: _Replica, identity: str) -> None:
        """Let a replica in after a start or a restart."""
        try:
            objections = await replica.engine.preflight(self._needs())
        except UpstreamError as error:
            objections = [error.reason]
        if objections:
            await self._take_out(replica, "; ".join(objections))
            replica.next_try = time.monotonic() + replica.wait
            replica.wait = min(2 * replica.wait, LONGEST_WAIT)
            return
        await self._unload_unrouted(replica)
        replica.identity, replica.reason, replica.proofs = identity, "", {}
        await self._bring_up(replica)

    async def _bring_up(self, replica: _Replica) -> None:
        """Load what is missing on a replica, prove all that it serves, and route by the result."""
        replica.proved_at = time.monotonic()
        for model in [served.model for served in self._served_by(replica)]:
            await self._prove_routed(replica, model)
        if all(self._is_in(replica, served) for served in self._served_by(replica)):
            replica.wait, replica.next_try = FIRST_WAIT, 0.0
        else:
            replica.next_try = time.monotonic() + replica.wait
            replica.wait = min(2 * replica.wait, LONGEST_WAIT)

    async def _prove_routed(self, replica: _Replica, model: str) -> Proof | None:
        """Load and prove a version, and route by the result; ``None`` if it is routed no more.

        A replica that proved it before and is too busy now stays in: nothing is wrong with it.
        """
        async with self._locks[staged_version.workload_of(model)]:
            served = next((s for s in self.current.routes.all_served() if s.model == model), None)
            if served is None:
                return None
            is_in, last = self._is_in(replica, served), replica.proofs.get(model)
            made = await self._bring(replica, model)
            if made.objection is not None and last is not None:
                if is_in and _is_only_busy(made, last):
                    LOG.warning("%s is too busy to prove %s: %s", made.replica, model, made)
                    return made
                LOG.error("%s fails the proof of %s: %s", made.replica, model, made.objection)
                await self._route(replica, served, is_in=False)
                await self._unload(replica, model)
                made = await self._bring(replica, model)
            if made.objection is not None:
                LOG.error("%s is out for %s: %s", made.replica, model, made.objection)
            await self._route(replica, served, is_in=made.objection is None)
            return made

    async def _bring(self, replica: _Replica, model: str) -> Proof:
        """Load a version on a replica unless it is there, and prove it."""
        name = replica.engine.name
        async with replica.lock:
            try:
                staged = self._staged(model)
                resident, others = self._resident(model), self._others(replica, staged)
                async with asyncio.timeout(LOAD_SECONDS):
                    await self._load(replica.engine, staged)
                made = await proof.prove(
                    replica.engine,
                    resident,
                    others,
                    timeout=self.settings.proof_timeout_seconds,
                    is_unproved_allowed=self.settings.unproved,
                )
            except TimeoutError:
                made = Proof(name, model, f"loading took longer than {LOAD_SECONDS:g} s")
            except UpstreamError as error:
                made = Proof(name, model, error.reason, status=error.status)
            except (OSError, ValueError) as error:
                self.damaged.add(model)
                made = Proof(name, model, f"its staged files are gone or damaged: {error}")
            else:
                self.damaged.discard(model)
            replica.proofs[model] = made
        return made

    async def _load(self, engine: ServingEngine, staged: StagedVersion) -> None:
        if not await _lists(engine, staged):
            actual = await asyncio.to_thread(manifest.folder_digest, staged.folder)
            if actual != staged.sha256:
                raise ValueError(
                    f"loading {staged.folder}: its files have the digest {actual[:12]}, expected "
                    f"{staged.sha256[:12]}; somebody changed them"
                )
            await engine.load(staged.model, staged.folder)
            if not await _lists(engine, staged):
                raise UpstreamError(
                    502,
                    f"{engine.name} took {staged.model} and does not list it",
                    is_retryable=True,
                )

    async def _bring_everywhere(self, staged: StagedVersion) -> list[Proof]:
        healthy = [each for each in self._eligible(staged) if each.identity is not None]
        held = {served.model for served in self.current.routes.all_served()} | self._retiring.keys()
        if len(held | {staged.model}) > self._max_residents:
            reason = (
                f"it would be adapter {len(held) + 1} at once, and the engine has room for "
                f"{self._max_residents}; raise max_loras"
            )
            return [Proof(replica.engine.name, staged.model, reason) for replica in healthy]
        return await asyncio.gather(*(self._bring(replica, staged.model) for replica in healthy))

    def _eligible(self, staged: StagedVersion) -> list[_Replica]:
        """Return the replicas of a version's base."""
        replicas = self._replicas.values()
        return [each for each in replicas if each.base in (None, staged.base_hash)]

    def _served_by(self, replica: _Replica) -> list[Served]:
        """Return the versions that a replica's base is the base of."""
        if replica.base is None:
            return self.current.routes.all_served()
        served: list[Served] = []
        for each in self.current.routes.all_served():
            with suppress(OSError, ValueError):
                if self._staged(each.model).base_hash == replica.base:
                    served.append(each)
        return served

    def _needed(self, staged: StagedVersion) -> int:
        if self.settings.min_ready is not None:
            return self.settings.min_ready
        eligible = self._eligible(staged)
        healthy = sum(replica.identity is not None for replica in eligible)
        return max(healthy, math.ceil(len(eligible) / 2), 1)

    def _reason_of_none(self) -> str:
        out = [f"{name} is out: {each.reason}" for name, each in self._replicas.items()]
        return "; ".join(out) or "there is no replica"

    def _needs(self) -> EngineNeeds:
        staged: list[StagedVersion] = []
        for served in self.current.routes.all_served():
            with suppress(OSError, ValueError):  # said when it is brought up
                staged.append(self._staged(served.model))
        return EngineNeeds(
            residents=len(staged) + 1,
            rank=max((version.rank for version in staged), default=1),
            is_constrained=any(self._is_constrained(version) for version in staged),
        )

    async def _take_out(self, replica: _Replica, reason: str) -> None:
        if replica.identity is not None:
            LOG.error("%s is out: %s", replica.engine.name, reason)
        replica.identity, replica.reason, replica.proofs = None, reason, {}
        name = replica.engine.name
        if any(name in served.replicas for served in self.current.routes.all_served()):

            def without(table: Routes) -> Routes:
                for workload in table:
                    table = table.with_replicas(
                        workload, lambda s: tuple(r for r in s.replicas if r != name)
                    )
                return table

            await self._flip(without)

    async def _route(self, replica: _Replica, served: Served, *, is_in: bool) -> None:
        """Add a replica to those that serve a version, or remove it; the epoch stays."""
        name = replica.engine.name

        def replicas(each: Served) -> tuple[str, ...]:
            if each.model != served.model:
                return each.replicas
            others = tuple(r for r in each.replicas if r != name)
            return tuple(r for r in self._replicas if r in (*others, name)) if is_in else others

        def changed(table: Routes) -> Routes:
            table = table.with_replicas(served.workload, replicas)
            route = table.get(served.workload)
            if route is None or not is_in:
                return table
            now = swap_journal.now()
            return table.with_route(
                served.workload,
                route.with_served(
                    lambda each: (
                        replace(each, proved_at=now) if each.model == served.model else each
                    )
                ),
            )

        await self._flip(changed)

    # -- unloading

    def _retire(self, workload: str, model: str, epoch: int) -> None:
        """Unload a version once the requests that began with it have ended."""
        if model in {served.model for served in self.current.routes.all_served()}:
            return
        self._retiring[model] = asyncio.create_task(self._drain_and_unload(workload, model, epoch))

    async def _drain_and_unload(self, workload: str, model: str, epoch: int) -> None:
        if not await self.current.drained(workload, epoch, self.settings.drain_seconds):
            LOG.warning("%s: requests of %s are cut after the drain", workload, model)
        is_again = model in self._kept
        # Without the workload's lock: an unload that hangs must not hold up a rollback.
        left = await self._unload_everywhere(model)
        self._retiring.pop(model, None)
        if not left:
            self._delete_staged(model)
        if not (left and is_again):
            self._journal.write("unloaded", workload, model, reason="; ".join(left))

    async def _unload_everywhere(self, model: str) -> list[str]:
        """Unload a name on every replica; return where it could not be."""
        self._residents.pop(model, None)
        results = await asyncio.gather(
            *(self._unload(replica, model) for replica in self._replicas.values())
        )
        left = [reason for reason in results if reason is not None]
        (self._kept.add if left else self._kept.discard)(model)
        return left

    async def _unload(self, replica: _Replica, model: str) -> str | None:
        engine = replica.engine
        replica.proofs.pop(model, None)
        try:
            async with asyncio.timeout(UNLOAD_SECONDS):
                await engine.unload(model)
                is_listed = any(listed.name == model for listed in await engine.list_loaded())
        except TimeoutError:
            reason = f"{engine.name} did not unload {model} in {UNLOAD_SECONDS:g} s"
            await self._take_out(replica, reason)
            return reason
        except UpstreamError as error:
            if replica.identity is None:
                return None  # it is away, and comes back without it
            return f"{engine.name}: {error.reason}"
        return f"{engine.name} still lists {model}" if is_listed else None

    async def _still_answering(self, model: str) -> list[str]:
        """Return the replicas that answer under a name that was unloaded."""
        left: list[str] = []
        for name, replica in self._replicas.items():
            if replica.identity is None:
                continue
            try:
                async with aclosing(
                    replica.engine.complete(model, Generation("a", max_tokens=1))
                ) as pieces:
                    async for _ in pieces:
                        break
                left.append(f"{name} still answers as {model}")
            except UpstreamError:
                continue
        return left

    async def _unload_unrouted(self, replica: _Replica) -> None:
        """Unload what a swap that a crash cut off has left."""
        routed = {served.model for served in self.current.routes.all_served()}
        ours = self._journal.models() - routed - self._retiring.keys() - self._arriving
        try:
            for listed in await replica.engine.list_loaded():
                if listed.name in ours:
                    await self._unload(replica, listed.name)
        except UpstreamError as error:
            LOG.warning("%s does not list its adapters: %s", replica.engine.name, error.reason)

    def delete_unused(self, model: str | None = None) -> None:
        """Delete what is staged and serves nobody: this version, or all of them.

        What a refused version, or a gateway that was killed, left would outlast an erasure.
        """
        used = {served.model for served in self.current.routes.all_served()}
        used |= self._retiring.keys() | self._arriving
        for name in [model] if model is not None else self._staged_names():
            if name not in used:
                self._delete_staged(name)

    def _staged_names(self) -> set[str]:
        paths = [*self.adapters.iterdir()] if self.adapters.is_dir() else []
        names = {path.name.removesuffix(".json").removesuffix(".references") for path in paths}
        return {name for name in names if staged_version.NAME.fullmatch(name)}

    def _delete_staged(self, model: str) -> None:
        """Delete a staged folder that no replica lists any more."""
        self.damaged.discard(model)
        for path in (
            staged_version.record_path(self.adapters, model),
            self.adapters / f"{model}.references.json",
        ):
            path.unlink(missing_ok=True)
        folder = self.adapters / model
        if folder.is_dir():
            folder.chmod(stat.S_IRWXU)
            shutil.rmtree(folder)

    # -- routes

    async def _flip(self, change: Callable[[Routes], Routes]) -> None:
        """Write changed routes, then use them."""
        async with self._flip_lock:
            table = change(self.current.routes)
            if table != self.current.routes:
                await asyncio.to_thread(table.write, self.routes_path)
                self.current.routes = table

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
            unproved=not self._resident(staged.model).references.is_measurable,
        )

    def _is_in(self, replica: _Replica, served: Served) -> bool:
        return replica.engine.name in served.replicas

    def _staged(self, model: str) -> StagedVersion:
        return staged_version.read_staged(self.adapters, model)

    def _resident(self, model: str) -> Resident:
        if model not in self._residents:
            self._residents[model] = self._staged(model).resident()
        return self._residents[model]

    def _others(self, replica: _Replica, staged: StagedVersion) -> list[Resident]:
        """Return the other adapters on a replica; those of the same workload come first."""
        names = [
            served.model
            for served in self.current.routes.all_served()
            if served.model != staged.model and self._is_in(replica, served)
        ]
        names.sort(key=lambda name: not name.startswith(f"{staged.workload}.v"))
        return [self._resident(name) for name in names]

    # -- what a person may see

    def objections(self, model: str) -> list[str]:
        """Return why replicas don't prove a version."""
        proofs = [replica.proofs.get(model) for replica in self._replicas.values()]
        return [
            f"{made.replica}: {made.objection}"
            for made in proofs
            if made is not None and made.objection is not None
        ]

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
        return {
            "workloads": workloads,
            "replicas": {
                name: {"serves": replica.identity is not None, "reason": replica.reason or None}
                for name, replica in self._replicas.items()
            },
        }

    def _describe(self, served: Served) -> Json:
        proofs: dict[str, Json] = {}
        for name, replica in self._replicas.items():
            if (made := replica.proofs.get(served.model)) is not None:
                numbers = {key: _json_number(value) for key, value in asdict(made).items()}
                proofs[name] = {k: v for k, v in numbers.items() if k not in ("replica", "model")}
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


def _is_only_busy(made: Proof, last: Proof) -> bool:
    """Return whether a failed proof shows no more than load: it was refused, or slow for once."""
    return made.status in BUSY or (made.status == SLOW and last.status != SLOW)


def _json_number(value: Json) -> Json:
    return None if isinstance(value, float) and not math.isfinite(value) else value


async def _lists(engine: ServingEngine, staged: StagedVersion) -> bool:
    """Return whether a replica lists a version; raise if it is of another folder."""
    for model in await engine.list_loaded():
        if model.name == staged.model:
            if model.root is not None and Path(model.root).name != staged.folder.name:
                raise UpstreamError(
                    409,
                    f"{engine.name} lists {staged.model} from {model.root}, expected "
                    f"{staged.folder}",
                    is_retryable=False,
                )
            return True
    return False
