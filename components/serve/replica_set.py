"""Keep the replicas up to the routes: restarts, lost adapters, a check each minute.

A replica serves what it has just proved, and nothing before. A whole proof of each version follows
a load, a restart, a check that fails, and an hour; one text is scored with it each minute.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace

from components.schema import Json
from components.serve import staged_version, swap_journal
from components.serve.engines.serving_engine import EngineNeeds, ServingEngine, UpstreamError
from components.serve.proof import Proof, Resident
from components.serve.replica import FIRST_WAIT, Replica
from components.serve.routes import Routes, RouteSwitch, Served
from components.serve.settings import SwapSettings, SwapTimes
from components.serve.staged_adapters import StagedAdapters
from components.serve.staged_version import StagedVersion

LOG = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 1.0
UNLOAD_SECONDS = 30.0  # SGLang's unload can hang (sglang#36894): the replica is then taken out
BUSY, SLOW = frozenset({429, 503}), 504  # statuses of a proof that was refused, or took too long
CHECKS_PER_PROOF = 60
"""What shows only beside other adapters, or in a kept prefix, is looked for once in so many checks:
SmolLM2's proof takes 12 s of a processor, a check a twentieth of it."""

MISSED_BEATS = 3  # timeouts in a row after which a replica is out; a lost connection counts at once


class ReplicaSet:
    """The replicas of a gateway; belongs to one event loop.

    Args:
        engines: The replicas by name; changes with them.
        switch: What changes the routes.
        adapters: The staged versions.
        settings: Whether an adapter without effect may serve.
        times: How long a proof may take.
        is_constrained: Whether a version's calls are held to their schemas.
        leftovers: Returns the models that a swap loaded once and that nobody needs.
        unload_again: Unloads a model that a replica did not unload, unless that is under way.
    """

    def __init__(
        self,
        engines: dict[str, ServingEngine],
        switch: RouteSwitch,
        adapters: StagedAdapters,
        settings: SwapSettings,
        times: SwapTimes,
        *,
        is_constrained: Callable[[StagedVersion], bool],
        leftovers: Callable[[], set[str]],
        unload_again: Callable[[str], None],
    ) -> None:
        self.engines = engines
        self._switch, self._adapters = switch, adapters
        self._settings, self._times = settings, times
        self._is_constrained, self._leftovers = is_constrained, leftovers
        self._unload_again = unload_again
        self.kept: set[str] = set()
        """Models that a replica did not unload."""
        self._replicas = {name: Replica(engine) for name, engine in engines.items()}
        self._watchers: asyncio.TaskGroup | None = None

    def __len__(self) -> int:
        return len(self._replicas)

    async def bring_up_all(self) -> None:
        """Bring every replica that answers up to the routes."""
        await asyncio.gather(*(self._beat(replica) for replica in self._replicas.values()))

    async def run(self) -> None:
        """Watch the replicas: restarts, lost adapters, and a check each minute."""
        async with asyncio.TaskGroup() as self._watchers:
            for replica in self._replicas.values():
                self._watchers.create_task(self._watch(replica))
            await asyncio.Event().wait()

    async def add(self, engine: ServingEngine, base_hash: str | None) -> None:
        """Add a replica, of one base or of whichever it is, and bring it up to the routes."""
        replica = self._replicas[engine.name] = Replica(engine, base=base_hash)
        self.engines[engine.name] = engine
        await self._beat(replica)
        if self._watchers is not None:
            self._watchers.create_task(self._watch(replica))

    async def remove(self, name: str) -> None:
        """Remove a replica, which is about to end."""
        replica = self._replicas[name]
        await self._take_out(replica, "it is not used any more")
        del self._replicas[name], self.engines[name]

    async def _watch(self, replica: Replica) -> None:
        while self._replicas.get(replica.name) is replica:
            with suppress(TimeoutError):
                await asyncio.wait_for(replica.look.wait(), HEARTBEAT_SECONDS)
            replica.look.clear()
            await self._beat(replica)

    def report(self, replica: str, error: UpstreamError) -> None:
        """Note that a request failed on a replica, so that it is looked at now."""
        LOG.warning("%s failed a request: %s", replica, error.kind)
        if replica in self._replicas:
            self._replicas[replica].look.set()

    def note_staged_again(self, model: str) -> None:
        """Have the replicas load a damaged version whose files are right again."""
        self._adapters.damaged.discard(model)
        for replica in self._replicas.values():
            replica.next_try = 0.0
            replica.look.set()

    # -- one replica

    async def _beat(self, replica: Replica) -> None:
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
            for served in self._switch.routes.all_served()
            if self._is_in(replica, served)
        }
        try:
            listed = {model.name for model in await engine.list_loaded()}
        except UpstreamError as error:
            LOG.warning("%s does not list its adapters: %s", engine.name, error.reason)
            listed = expected  # the next check can't be put off: it says who answers
        is_due = time.monotonic() - replica.checked_at >= self._times.proof
        if is_due:
            for model in self.kept & listed:
                self._unload_again(model)
        if expected - listed or self._absent(replica):
            await self._bring_up(replica, [served.model for served in self._served_by(replica)])
        elif is_due:
            await self._bring_up(replica, await self._doubtful(replica, expected))

    async def _doubtful(self, replica: Replica, expected: set[str]) -> list[str]:
        """Return the versions that are not themselves, and the one whose proof is too long ago."""
        replica.checked_at = now = time.monotonic()
        replica.checks += 1
        oldest = min(expected, key=lambda model: replica.proved_at.get(model, 0.0), default="")
        age, most = now - replica.proved_at.get(oldest, 0.0), self._times.proof
        doubtful = [oldest] if oldest and age >= CHECKS_PER_PROOF * most else []
        others = expected - {*doubtful}
        return doubtful + [model for model in others if not await self._check(replica, model)]

    async def _check(self, replica: Replica, model: str) -> bool:
        """Return whether a version is itself on one text; it counts as proved anew."""
        async with self._switch.locks[staged_version.workload_of(model)]:
            served = next((s for s in self._switch.routes.all_served() if s.model == model), None)
            if served is None:
                return True
            try:
                others = self._others(replica, self._adapters.read(model))
                resident = self._adapters.resident(model)
            except (OSError, ValueError):  # said by the proof
                return False
            is_itself = await replica.is_itself(resident, others, self._times)
            if is_itself:
                await self._route(replica, served, is_in=True)
            return is_itself

    def _absent(self, replica: Replica) -> bool:
        """Whether a served version is not on this replica, and is worth another try."""
        is_absent = any(not self._is_in(replica, served) for served in self._served_by(replica))
        return is_absent and time.monotonic() >= replica.next_try

    async def _admit(self, replica: Replica, identity: str) -> None:
        """Let a replica in after a start or a restart."""
        try:
            objections = await replica.engine.preflight(self._needs())
        except UpstreamError as error:
            objections = [error.reason]
        if objections:
            await self._take_out(replica, "; ".join(objections))
            replica.postpone()
            return
        await self._unload_unrouted(replica)
        replica.identity, replica.reason, replica.proofs = identity, "", {}
        await self._bring_up(replica, [served.model for served in self._served_by(replica)])

    async def _bring_up(self, replica: Replica, models: Iterable[str]) -> None:
        """Load what is missing on a replica, prove these versions, and route by the result."""
        replica.checked_at = time.monotonic()
        for model in models:
            await self._prove_routed(replica, model)
        if all(self._is_in(replica, served) for served in self._served_by(replica)):
            replica.wait, replica.next_try = FIRST_WAIT, 0.0
        else:
            replica.postpone()

    async def _prove_routed(self, replica: Replica, model: str) -> Proof | None:
        """Load and prove a version, and route by the result; ``None`` if it is routed no more.

        A replica that proved it before and is too busy now stays in: nothing is wrong with it.
        """
        async with self._switch.locks[staged_version.workload_of(model)]:
            served = next((s for s in self._switch.routes.all_served() if s.model == model), None)
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

    async def _bring(self, replica: Replica, model: str) -> Proof:
        def others(staged: StagedVersion) -> list[Resident]:
            return self._others(replica, staged)

        return await replica.bring(model, self._adapters, others, self._settings, self._times)

    def _served_by(self, replica: Replica) -> list[Served]:
        """Return the versions that a replica's base is the base of."""
        if replica.base is None:
            return self._switch.routes.all_served()
        served: list[Served] = []
        for each in self._switch.routes.all_served():
            with suppress(OSError, ValueError):
                if self._adapters.read(each.model).base_hash == replica.base:
                    served.append(each)
        return served

    def _needs(self) -> EngineNeeds:
        staged: list[StagedVersion] = []
        for served in self._switch.routes.all_served():
            with suppress(OSError, ValueError):  # said when it is brought up
                staged.append(self._adapters.read(served.model))
        return EngineNeeds(
            residents=len(staged) + 1,
            rank=max((version.rank for version in staged), default=1),
            is_constrained=any(self._is_constrained(version) for version in staged),
        )

    async def _take_out(self, replica: Replica, reason: str) -> None:
        if replica.identity is not None:
            LOG.error("%s is out: %s", replica.name, reason)
        replica.identity, replica.reason, replica.proofs = None, reason, {}
        name = replica.name
        if any(name in served.replicas for served in self._switch.routes.all_served()):

            def without(table: Routes) -> Routes:
                for workload in table:
                    table = table.with_replicas(
                        workload, lambda s: tuple(r for r in s.replicas if r != name)
                    )
                return table

            await self._switch.flip(without)

    async def _route(self, replica: Replica, served: Served, *, is_in: bool) -> None:
        """Add a replica to those that serve a version, or remove it; the epoch stays."""
        name = replica.name

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

        await self._switch.flip(changed)

    def _is_in(self, replica: Replica, served: Served) -> bool:
        return replica.name in served.replicas

    def _others(self, replica: Replica, staged: StagedVersion) -> list[Resident]:
        """Return the other adapters on a replica; those of the same workload come first."""
        names = [
            served.model
            for served in self._switch.routes.all_served()
            if served.model != staged.model and self._is_in(replica, served)
        ]
        names.sort(key=lambda name: not name.startswith(f"{staged.workload}.v"))
        return [self._adapters.resident(name) for name in names]

    # -- a version

    def eligible(self, staged: StagedVersion) -> list[Replica]:
        """Return the replicas of a version's base."""
        replicas = self._replicas.values()
        return [each for each in replicas if each.base in (None, staged.base_hash)]

    def healthy(self, staged: StagedVersion) -> list[Replica]:
        """Return the replicas of a version's base that are in."""
        return [each for each in self.eligible(staged) if each.identity is not None]

    async def bring_everywhere(self, staged: StagedVersion) -> list[Proof]:
        """Load and prove a version on all replicas of its base that are in."""
        healthy = self.healthy(staged)
        return await asyncio.gather(*(self._bring(replica, staged.model) for replica in healthy))

    def is_up(self, name: str) -> bool:
        """Return whether a replica is in."""
        return self._replicas[name].identity is not None

    def look_at(self, names: Iterable[str]) -> None:
        """Look at replicas now."""
        for name in names:
            self._replicas[name].look.set()

    def reason_of_none(self) -> str:
        """Return why no replica is in."""
        out = [f"{name} is out: {each.reason}" for name, each in self._replicas.items()]
        return "; ".join(out) or "there is no replica"

    async def unload_everywhere(self, model: str) -> list[str]:
        """Unload a name on every replica; return where it could not be."""
        self._adapters.forget(model)
        results = await asyncio.gather(
            *(self._unload(replica, model) for replica in self._replicas.values())
        )
        left = [reason for reason in results if reason is not None]
        (self.kept.add if left else self.kept.discard)(model)
        return left

    async def _unload(self, replica: Replica, model: str) -> str | None:
        engine = replica.engine
        for known in (replica.proofs, replica.proved_at):
            known.pop(model, None)
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

    async def still_answering(self, model: str) -> list[str]:
        """Return the replicas that answer under a name that was unloaded."""
        return [
            f"{replica.name} still answers as {model}"
            for replica in [*self._replicas.values()]
            if replica.identity is not None and await replica.answers_as(model)
        ]

    async def _unload_unrouted(self, replica: Replica) -> None:
        """Unload what a swap that a crash cut off has left."""
        ours = self._leftovers()
        try:
            for listed in await replica.engine.list_loaded():
                if listed.name in ours:
                    await self._unload(replica, listed.name)
        except UpstreamError as error:
            LOG.warning("%s does not list its adapters: %s", replica.name, error.reason)

    # -- what a person may see

    def objections(self, model: str) -> list[str]:
        """Return why replicas don't prove a version."""
        return [
            f"{made.replica}: {made.objection}"
            for made in self.proofs(model)
            if made.objection is not None
        ]

    def proofs(self, model: str) -> list[Proof]:
        """Return the newest proof of a version on each replica that has one."""
        made = (replica.proofs.get(model) for replica in self._replicas.values())
        return [each for each in made if each is not None]

    def describe(self) -> dict[str, Json]:
        """Return whether each replica serves, or why not."""
        return {
            name: {"serves": replica.identity is not None, "reason": replica.reason or None}
            for name, replica in self._replicas.items()
        }


def _is_only_busy(made: Proof, last: Proof) -> bool:
    """Return whether a failed proof shows no more than load: it was refused, or slow for once."""
    return made.status in BUSY or (made.status == SLOW and last.status != SLOW)
