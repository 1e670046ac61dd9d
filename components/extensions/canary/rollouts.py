"""The canaries of this gateway: whose a request is, what answers show, and how each ends.

A canary lives in the file of routes while it answers requests. Its end is in the journal before it
is anywhere else, so that a start that was ended never begins again, whatever is killed when.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from components.extensions.canary import (
    answer_faults,
    rollout_order,
    rollout_verdict,
    running_rollout,
)
from components.extensions.canary.rollout_evidence import (
    AnswerLine,
    ClockLine,
    DislikeLine,
    EvidenceFile,
    EvidenceFullError,
    EvidenceLine,
    PairLine,
)
from components.extensions.canary.rollout_order import RolloutOrder, RolloutOrderError
from components.extensions.canary.rollout_sharing import RolloutSharing, store_errors
from components.extensions.canary.running_rollout import (
    RolloutStatus,
    RunningRollout,
    State,
    StatusFiles,
    ended_state,
)
from components.extensions.machines.object_store import ObjectStore
from components.register.version_tags import ROLLOUT_TAG
from components.schema import Json
from components.serve import response_id, routes, swap_journal
from components.serve.champion_watch import RegisteredVersion
from components.serve.chat_request import ChatRequest
from components.serve.engines.serving_engine import UpstreamError
from components.serve.exchange import Exchange
from components.serve.rollout import ArmDraw, RolloutStart, Shadow
from components.serve.rollout_settings import BadKind
from components.serve.routes import CanaryRoute, Route, Served
from components.serve.staged_version import StagedVersion
from components.serve.staging_children import StagingError
from components.serve.swap import AdapterSwap, SwapRefusedError
from components.serve.swap_journal import SwapJournal

LOG = logging.getLogger(__name__)

FOLDER = "rollouts"  # in the home's folder `serve`
LOOK_SECONDS = 5.0
CLOCK_SECONDS = 60.0  # how often the time is written if nothing else is
UNPROVED_SECONDS = 120.0  # longer than a replica's restart
UNSEEN_SECONDS = 900.0  # a canary whose evidence can't be looked at for this long ends
LONGEST_SHARING_SECONDS = 60.0  # between two objects of a gateway's evidence in the store
CLOSE_SECONDS = 5.0  # that the end of the gateway waits for the store
KEPT_SECONDS = 7 * 86_400.0  # how long the evidence of an ended canary is kept


@dataclass(slots=True)
class _Ending:
    status: RolloutStatus
    model: str
    is_journaled: bool = False
    is_shared: bool = False  # or its end is another gateway's


class Rollouts:
    """The canaries of a home; belongs to one event loop.

    Args:
        swap: What loads, proves and routes.
        keys: The home's folder of keys.
        store: Where gateways share evidence and ends; without it they are this one's.
        look_seconds: How often evidence is looked at, if there is any that is new.
        unproved_seconds: After how long a canary that no replica proves is rolled back.
    """

    def __init__(
        self,
        swap: AdapterSwap,
        keys: Path,
        *,
        store: ObjectStore | None = None,
        look_seconds: float = LOOK_SECONDS,
        unproved_seconds: float = UNPROVED_SECONDS,
    ) -> None:
        self._swap, self._keys = swap, keys
        self._sharing = RolloutSharing(store) if store is not None else None
        self._look_seconds, self._unproved_seconds = look_seconds, unproved_seconds
        self._folder = swap.folder / FOLDER
        self._journal = SwapJournal(swap.folder)
        self._active: dict[str, RunningRollout] = {}  # by workload
        self._endings: dict[str, _Ending] = {}  # by workload
        self._ended: dict[str, tuple[str, str]] = {}  # outcome and reason, by id
        self._began: set[str] = set()  # ids that the journal has
        self._beginning: set[str] = set()  # workloads
        self.metrics = RolloutCollector(self)
        self.statuses = StatusFiles(self._folder)
        """What the files say that control, the pages and people read."""
        self._wake = asyncio.Event()
        self._swept = 0.0
        self.answers = Counter[tuple[str, str]]()
        """Answers of drawn conversations, by workload and arm."""
        self.bad = Counter[tuple[str, str, str]]()
        """Bad events by workload, arm and kind."""
        self.shadowed, self.shed = Counter[str](), Counter[str]()
        """Requests that were shadowed, or were not because of load, by workload."""

    # -- at the start

    def restore(self) -> None:
        """Take up the canaries that the file of routes has; call it before the swap starts."""
        for line in self._journal.lines():
            if line["step"] == "canary_ended" and isinstance(line.get("id"), str):
                outcome, reason = str(line.get("outcome")), str(line.get("reason"))
                self._ended[str(line["id"])] = outcome, reason
            elif line["step"] == "canary_began":
                self._began.add(str(line.get("id")))
        table = routes.read(self._swap.folder / routes.FILE)
        for workload in table:
            if (canary := table[workload].canary) is not None:
                self._restore(workload, table[workload], canary)

    def _restore(self, workload: str, route: Route, canary: CanaryRoute) -> None:
        served = canary.served
        try:
            order = rollout_order.read(canary.order)
        except RolloutOrderError as error:
            champion = route.champion.version
            status = RolloutStatus("", workload, served.version, champion, "void", str(error))
            self._endings[workload] = _Ending(status, served.model, is_journaled=True)
            return
        outcome, reason = self._ended.get(order.id, (None, ""))
        status = self.statuses.read(order) or RolloutStatus.of(order, "running", "")
        if status.shed:
            self.shed[workload] = status.shed
        if outcome is not None and outcome != "hold":
            status.state, status.reason = cast("State", outcome), reason
            status.ended_at = status.ended_at or swap_journal.now()
            self._endings[workload] = _Ending(status, served.model, is_journaled=True)
            return
        if outcome == "hold":
            status.state, status.reason = "hold", reason
        elif status.state == "hold":  # before the journal had it: the next look says it again
            status.state = "running"
        try:
            self._activate(workload, order, canary.order, served.model, status)
        except OSError as error:
            status.state, status.reason = "void", f"its evidence can't be read: {error}"
            self._endings[workload] = _Ending(status, served.model)

    def _activate(
        self, workload: str, order: RolloutOrder, text: str, model: str, status: RolloutStatus
    ) -> None:
        shared = None
        if self._sharing is not None:
            path, own = running_rollout.evidence_path(self._folder, order.id), self._own_path(order)
            shared = self._sharing.evidence(order.id, self._swap.folder, path, own)
        active = running_rollout.open_rollout(self._folder, self._keys, order, text, status, shared)
        status.began_at = status.began_at or swap_journal.now()
        if order.id not in self._began:
            self._journal.write(
                "canary_began",
                workload,
                model,
                id=order.id,
                version=order.plan.version,
                champion=order.plan.champion,
            )
            self._began.add(order.id)
        self._active[workload] = active

    def _own_path(self, order: RolloutOrder) -> Path:
        is_shared = self._sharing is not None
        return running_rollout.own_path(self._folder, order.id, is_shared=is_shared)

    # -- what the watch of the registry sees

    def see(
        self,
        workload: str,
        number: str,
        version: RegisteredVersion | None,
        champion: str | None,
    ) -> RolloutStart | None:
        """Note where the alias ``canary`` is; return the order of a canary that may begin.

        Args:
            workload: The workload.
            number: The number of the alias' version.
            version: The version; ``None`` if it does not exist.
            champion: The number of the alias ``champion``.
        """
        if workload in self._endings or champion == number:
            return None  # it ends, or became champion: the flip ends it
        active = self._active.get(workload)
        objection = "it does not exist" if version is None else version.objection
        tag = version.tags.get(ROLLOUT_TAG, "") if version is not None else ""
        try:
            order = rollout_order.read(tag)
        except RolloutOrderError as error:
            # A canary that runs is the one of its routes, whatever became of the tag.
            if active is not None and active.order.plan.version == number:
                order = active.order
            else:
                status = RolloutStatus("", workload, number, champion or "", "void", str(error))
                self._refuse(workload, status, objection)
                return None
        if active is not None and active.order.id != order.id:
            self.end(workload, "stopped", f"another canary was ordered: version {number}")
            return None
        if order.id in self._ended and active is None:
            outcome, reason = self._ended[order.id]
            status = RolloutStatus.of(order, cast("State", outcome), reason)
            status.ended_at = swap_journal.now()
            if self.statuses.known(workload).get("id") != order.id:  # its file is gone, or damaged
                self.statuses.say(status)
            if self._sharing is not None:
                self._sharing.put_off(status)
            return None
        objection = objection or self._mismatch(workload, number, order, champion)
        if objection is not None:
            if active is not None:
                self.end(workload, "void", objection)
            else:
                self._refuse(workload, RolloutStatus.of(order, "void", ""), objection)
            return None
        if active is not None:
            return None
        return RolloutStart(order.id, number, partial(self._begin, order))

    def _mismatch(
        self, workload: str, number: str, order: RolloutOrder, champion: str | None
    ) -> str | None:
        plan = order.plan
        if (plan.workload, plan.version) != (workload, number):
            return f"its order is for version {plan.version} of {plan.workload}"
        if plan.champion != champion:
            return f"the champion changed: it is {champion or 'nobody'}, expected {plan.champion}"
        return None

    def _refuse(self, workload: str, status: RolloutStatus, objection: str | None) -> None:
        """Say that an alias can't become a canary; another canary that runs stops."""
        if workload in self._active:
            self.end(workload, "stopped", f"another canary was ordered: version {status.version}")
            return
        status.reason = objection or status.reason
        self.statuses.say(status)
        if self._sharing is not None:
            self._sharing.put_off(status)

    def lose(self, workload: str) -> None:
        """Note that a workload has no alias ``canary`` any more."""
        if workload in self._active:
            self.end(workload, "stopped", "its alias was removed")
            return
        match self.statuses.known(workload):
            case {"state": "waiting", "id": str(rollout), "version": str(version), **others}:
                reason, champion = "its alias was removed", str(others.get("champion"))
                status = RolloutStatus(rollout, workload, version, champion, "stopped", reason)
                status.ended_at = swap_journal.now()
                self.statuses.say(status)
            case _:
                return

    def _wait(self, order: RolloutOrder, reason: str) -> None:
        self.statuses.say(RolloutStatus.of(order, "waiting", reason))

    def _reject(self, order: RolloutOrder, reason: str) -> None:
        status = RolloutStatus.of(order, "roll back", reason)
        status.ended_at = swap_journal.now()
        self._endings[order.plan.workload] = _Ending(status, "")
        self._wake.set()

    async def _begin(
        self, order: RolloutOrder, prepared: AbstractAsyncContextManager[StagedVersion]
    ) -> None:
        """Stage and prove a version and route to it, or note why not."""
        self._wait(order, "it is being loaded and proved")
        try:
            async with prepared as staged:
                await self._begin_staged(order, staged)
        except (SwapRefusedError, StagingError) as error:
            is_wrong = error.is_wrong if isinstance(error, SwapRefusedError) else error.is_refusal
            reason = error.reason if isinstance(error, SwapRefusedError) else str(error)
            (self._reject if is_wrong else self._wait)(order, reason)
        except (UpstreamError, OSError) as error:
            self._wait(order, str(error))

    async def _begin_staged(self, order: RolloutOrder, staged: StagedVersion) -> None:
        workload, text = order.plan.workload, order.to_text()
        if self._sharing is not None:
            try:
                end = await self._sharing.read_end(order.id)
            except store_errors() as error:
                raise OSError(f"reading whether this canary has ended: {error}") from error
            if end is not None and end.get("state") != "hold":
                status = RolloutStatus.of(order, "stopped", "")
                status.take_over(end)
                self._endings[workload] = _Ending(status, "", is_shared=True)
                self._wake.set()
                return
        evidence = EvidenceFile(self._own_path(order))
        try:
            evidence.append(ClockLine(0.0))
            if evidence.is_behind:
                raise OSError(f"there is no room for {evidence.path}")
        finally:
            evidence.close()
        self._beginning.add(workload)
        try:
            await self._swap.begin_canary(staged, order.plan.champion, text)
            status = RolloutStatus.of(order, "running", "")
            self._activate(workload, order, text, staged.model, status)
        finally:
            self._beginning.discard(workload)
            self._wake.set()

    def version_of(self, workload: str) -> str | None:
        """Return the number of the version of a workload's canary."""
        active = self._active.get(workload)
        return active.order.plan.version if active is not None else None

    def withdraw(self, workload: str, why: str) -> None:
        """End a canary of which nothing can be shown any more."""
        self.end(workload, "void", why)

    def end(self, workload: str, state: State, reason: str, *, is_shared: bool = False) -> None:
        """Route nothing to a canary from now on; journal, file and unloading follow."""
        active = self._active.pop(workload, None)
        if active is None:
            return
        status = active.status
        LOG.warning("the canary of %s ends: %s: %s", workload, state, reason)
        status.state, status.reason, status.ended_at = state, reason, swap_journal.now()
        with suppress(OSError):
            active.evidence.close()
        route = self._swap.current.routes.get(workload)
        model = route.canary.served.model if route is not None and route.canary is not None else ""
        self._endings[workload] = _Ending(
            status, model, is_journaled=state == "hold", is_shared=is_shared or state == "hold"
        )
        self._wake.set()

    # -- a request

    def draw(
        self,
        workload: str,
        canary: CanaryRoute,
        client_id: str,
        request: ChatRequest,
        named: str | None,
    ) -> ArmDraw | None:
        """Return whose a request is; ``None`` if the canary is about to begin or to end."""
        active = self._active.get(workload)
        if active is None or active.text != canary.order:
            return None
        draw, is_new = active.draw(client_id, request, named)
        if is_new and draw.share:
            # Counted now: of what is under way the faster arm would have fewer than it was drawn.
            self._append_answer(active, draw, asker=draw.asker)
        return draw

    def observe(
        self, exchange: Exchange, labels: Sequence[str], milliseconds: float | None
    ) -> None:
        """Write what a drawn request shows about its arm; a fallback's answer is neither's."""
        draw, who = exchange.draw, exchange.who
        if draw is None or exchange.is_observed:
            return
        exchange.is_observed = True
        workload, is_own = exchange.interaction.workload, who is not None and who.arm == draw.arm
        kinds = set[BadKind]({"error"} if exchange.has_failed else ())
        if is_own and milliseconds is not None:
            assert who is not None
            assert who.served is not None
            reader, text = exchange.reader, "".join(exchange.draft.text)
            if exchange.request.endpoint == "chat" and reader is not None:
                text = reader.raw  # with its calls, as the model wrote them
            exchange.faults = _faults(
                exchange.request, who.served, labels, text, exchange.draft.finish
            )
            kinds |= exchange.faults
        if is_own and not exchange.has_failed:
            # Of an answer that its client did not wait for, it is known how long it took at least.
            lasted = milliseconds or exchange.milliseconds()
            if self._is_slow(workload, exchange.draft.prompt_tokens, lasted):
                kinds.add("slow")
        self.note(workload, draw, kinds, exchange.draft.id if is_own else None)

    def _is_slow(self, workload: str, prompt_tokens: int | None, milliseconds: float) -> bool:
        active = self._active.get(workload)
        limits = active.order.limits if active is not None else None
        return limits is not None and limits.is_slow(prompt_tokens, milliseconds)

    def note(
        self, workload: str, draw: ArmDraw, kinds: Collection[BadKind], answer_id: str | None
    ) -> None:
        """Write what an answer shows; ``answer_id`` is ``None`` if another version gave it."""
        active = self._of(workload, draw)
        if not draw.share or active is None:
            return
        self.answers[workload, draw.arm] += 1
        for kind in kinds:
            self.bad[workload, draw.arm, kind] += 1
        short = response_id.short(answer_id) if answer_id is not None else None
        self._append_answer(active, draw, frozenset(kinds), short)

    def dislike(self, workload: str, answer_id: str, kind: str, value: Json) -> None:
        """Write that somebody disliked an answer; it counts for whoever gave it."""
        active = self._active.get(workload)
        if active is not None and answer_faults.is_dislike(kind, value):
            self._append(active, DislikeLine(active.elapsed, response_id.short(answer_id)))

    def shadow(self, exchange: Exchange, labels: Sequence[str]) -> Shadow | None:
        """Return what the canary's version is to answer, too, of the champion's answers."""
        draw, route, champion = exchange.draw, exchange.route, exchange.faults
        if draw is None or draw.arm != "champion" or route is None or route.canary is None:
            return None
        workload, request, served = (
            exchange.interaction.workload,
            exchange.request,
            route.canary.served,
        )
        active = self._of(workload, draw)
        if active is None or champion is None or not request.is_stored:
            return None
        if random.random() >= active.order.shadow:
            return None

        def compare(text: str, finish: str) -> None:
            if (active := self._of(workload, draw)) is not None:
                canary = _faults(request, served, labels, text, finish)
                self.shadowed[workload] += 1
                line = PairLine(active.elapsed, draw.conversation, canary, champion)
                self._append(active, line)

        def shed() -> None:
            self.shed[workload] += 1

        return Shadow(served, compare, shed)

    def _of(self, workload: str, draw: ArmDraw) -> RunningRollout | None:
        active = self._active.get(workload)
        return active if active is not None and active.order.id == draw.rollout else None

    def _append_answer(
        self,
        active: RunningRollout,
        draw: ArmDraw,
        kinds: frozenset[BadKind] = frozenset(),
        short: str | None = None,
        asker: tuple[str, ...] = (),
    ) -> None:
        where = draw.conversation, draw.share, draw.arm
        self._append(active, AnswerLine(active.elapsed, *where, kinds, short, asker))

    def _append(self, active: RunningRollout, line: EvidenceLine) -> None:
        active.is_changed, active.wrote = True, line.elapsed
        try:
            active.evidence.append(line)
        except EvidenceFullError as error:  # nobody would see what it does
            self.end(active.order.plan.workload, "void", f"there is no room: {error}")

    # -- as long as the gateway runs

    async def run(self) -> None:
        """Look at the evidence, and end what has to end."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._look_seconds):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self.work()
            except OSError as error:  # what ends does so in memory, and is written later
                LOG.warning("a canary's files can't be written: %s", error)

    async def work(self) -> None:
        """Look once at each canary, and finish those that end."""
        await self._finish_all()
        for active in [*self._active.values()]:
            await self._tend(active)
        await self._finish_all()
        for workload in [*self._swap.current.routes]:  # what a cancelled beginning has left
            if workload not in {*self._active, *self._endings, *self._beginning}:
                await self._swap.end_canary(workload)
        if self._sharing is not None:
            await self._sharing.share_put_off()
        await self._sweep()

    async def close(self) -> None:
        """Write the time, and close the files."""
        for active in [*self._active.values()]:
            self._append(active, ClockLine(active.elapsed))
            active.evidence.close()
            if self._sharing is not None:
                with suppress(TimeoutError, *store_errors()):
                    async with asyncio.timeout(CLOSE_SECONDS):
                        await self._sharing.exchange(active, is_sending=True)
        self._active.clear()

    async def _tend(self, active: RunningRollout) -> None:
        workload = active.order.plan.workload
        route = self._swap.current.routes.get(workload)
        if route is None or route.canary is None or route.canary.order != active.text:
            self._end_unrouted(active, route)
            return
        if (reason := self._lost_proof(active, route)) is not None:
            self.end(workload, "roll back", reason)
            return
        active.evidence.flush()
        if active.elapsed - active.wrote > CLOCK_SECONDS:
            self._append(active, ClockLine(active.elapsed))
        if self._sharing is not None and not await self._meet(active, self._sharing):
            return
        elapsed = active.elapsed
        share = active.order.plan.share_at(elapsed)
        if active.status.state != "hold" and (active.is_changed or share != active.looked_share):
            active.is_changed, active.looked_share = False, share
            await self._look(active, elapsed)
        if self._active.get(workload) is active:
            await self.statuses.write(active.status)
            if self._sharing is not None:
                await self._sharing.share_standing(active.status)

    async def _meet(self, active: RunningRollout, sharing: RolloutSharing) -> bool:
        """Exchange evidence and ends with the other gateways; return whether to look at it."""
        workload, order = active.order.plan.workload, active.order
        # Ever rarer: what is sent of a canary of a week are some thousands of objects.
        pause = min(LONGEST_SHARING_SECONDS, active.elapsed / 1000)
        try:
            end = await sharing.read_end(order.id)
            is_sending = active.elapsed - active.shared_at >= pause
            await sharing.exchange(active, is_sending=is_sending)
        except store_errors() as error:
            sharing.warn(f"sharing the canary of {workload}: {error}")
            if time.monotonic() - active.seen_at > UNSEEN_SECONDS:
                self.end(workload, "void", f"its evidence can't be shared: {error}")
            return False
        sharing.note_reached(active)
        if self._active.get(workload) is not active:
            return False
        if end is None:
            return True
        if end.get("state") != "hold":
            reason = f"{end.get('reason')} (by another gateway)"
            self.end(workload, ended_state(end), reason, is_shared=True)
            return False
        if active.status.state != "hold":
            active.status.take_over(end)
            self._journal_end(active.status, self._model(workload), "hold", active.status.reason)
        return True

    async def _look(self, active: RunningRollout, elapsed: float) -> None:
        workload, status = active.order.plan.workload, active.status
        try:
            while active.reader.read_on():
                await asyncio.sleep(0)  # requests go on
        except OSError as error:
            LOG.warning("looking at the evidence of the canary of %s: %s", workload, error)
            active.is_changed = True
            if time.monotonic() - active.looked_at > UNSEEN_SECONDS:
                self.end(workload, "void", f"its evidence can't be looked at: {error}")
            return
        active.looked_at = time.monotonic()
        if self._active.get(workload) is not active:
            return  # it ended meanwhile
        result = active.reader.look(elapsed)
        verdict = cast("dict[str, Json]", result["verdict"])
        status.verdict, status.evidence_bytes = verdict, result["evidence_bytes"]
        status.shadow = self._shadow(workload, result["shadow"])
        status.add_point(swap_journal.now(), verdict)
        outcome, reason = cast("State", verdict["outcome"]), str(verdict["reason"])
        if not active.is_warned and reason.endswith(rollout_verdict.ONE_CONVERSATION):
            active.is_warned = True
            LOG.warning("the canary of %s: %s", workload, rollout_verdict.ONE_CONVERSATION)
        if outcome == "roll back":
            self.end(workload, outcome, reason)
            return
        if outcome == "hold":
            if self._sharing is not None and not await self._hold_everywhere(
                active, self._sharing, reason
            ):
                return
            self._journal_end(status, self._model(workload), outcome, reason)
        status.state, status.reason = outcome, reason

    async def _hold_everywhere(
        self, active: RunningRollout, sharing: RolloutSharing, reason: str
    ) -> bool:
        """Return whether a canary that holds does so for all gateways."""
        status = replace(active.status, state="hold", reason=reason)
        end = await sharing.share_end(status)
        if self._active.get(status.workload) is not active:
            return False
        if end is None:
            active.is_changed = True  # the next look tries again
            return False
        if end.get("state") != "hold":
            self.end(status.workload, ended_state(end), str(end.get("reason")), is_shared=True)
            return False
        active.status.verdict = end.get("verdict")
        active.status.evidence_bytes = end.get("evidence_bytes")
        return True

    def _shadow(self, workload: str, shown: Json) -> Json:
        return {**shown, "shed": self.shed[workload]} if isinstance(shown, dict) else None

    def _end_unrouted(self, active: RunningRollout, route: Route | None) -> None:
        plan = active.order.plan
        if route is not None and route.champion.version == plan.version:
            state, reason = active.status.state, active.status.reason
            if state != "hold":
                state, reason = "stopped", f"version {plan.version} became champion"
        else:
            champion = route.champion.version if route is not None else "nobody"
            state, reason = "void", f"the champion changed: it is {champion}"
        self.end(plan.workload, state, reason)

    def _lost_proof(self, active: RunningRollout, route: Route) -> str | None:
        """Return why a canary that no replica proves is rolled back, though the champion is."""
        assert route.canary is not None
        if route.canary.served.replicas or not route.champion.replicas:
            active.unproved_since = None
            return None
        now = time.monotonic()
        active.unproved_since = active.unproved_since or now
        if now - active.unproved_since < self._unproved_seconds:
            return None
        reasons = self._swap.replicas.objections(route.canary.served.model)
        return f"no replica proves it any more: {'; '.join(reasons) or 'none has it'}"

    # -- endings, files

    async def _finish_all(self) -> None:
        for workload, ending in [*self._endings.items()]:
            status = ending.status
            if self._sharing is not None and status.id and not ending.is_shared:
                ending.is_shared = True
                end = await self._sharing.share_or_put_off(status)
                if end is not None and not ending.is_journaled:
                    status.take_over(end)
            if not ending.is_journaled:
                self._journal_end(status, ending.model, status.state, status.reason)
                ending.is_journaled = True
            await self.statuses.write(status)
            await self._swap.end_canary(workload)
            del self._endings[workload]

    def _journal_end(self, status: RolloutStatus, model: str, outcome: str, reason: str) -> None:
        self._journal.write(
            "canary_ended",
            status.workload,
            model,
            id=status.id,
            version=status.version,
            outcome=outcome,
            reason=reason,
        )
        self._ended[status.id] = outcome, reason

    def _model(self, workload: str) -> str:
        route = self._swap.current.routes.get(workload)
        return route.canary.served.model if route is not None and route.canary is not None else ""

    async def _sweep(self) -> None:
        """Delete evidence some days after its canary ended."""
        if time.monotonic() - self._swept < 3600 and self._swept:
            return
        self._swept = time.monotonic()
        kept = {active.order.id for active in self._active.values()}
        for path in [*self._folder.glob("*.jsonl"), *self._folder.glob("*.own")]:
            with suppress(OSError):
                if path.stem in kept or time.time() - path.stat().st_mtime < KEPT_SECONDS:
                    continue
                path.unlink()
                path.with_suffix(".progress").unlink(missing_ok=True)
                if self._sharing is not None:
                    with suppress(*store_errors()):
                        await self._sharing.remove_evidence(path.stem)

    def states(self) -> list[tuple[str, str, str]]:
        """Return workload, version and state of each workload's newest canary."""
        known = {name: each.status.content() for name, each in self._active.items()}
        known = {**self.statuses.all_known(), **known}
        return [
            (workload, str(content["version"]), str(content["state"]))
            for workload, content in sorted(known.items())
            if content.keys() >= {"version", "state"}
        ]

    def shares(self) -> list[tuple[str, float]]:
        """Return the share that each canary has now."""
        return [(workload, active.share) for workload, active in sorted(self._active.items())]

    def describe(self) -> list[Json]:
        """Return each canary in short, for the gateway's status."""
        return [
            {
                "workload": workload,
                "id": active.order.id,
                "version": active.order.plan.version,
                "state": active.status.state,
                "share": active.share,
            }
            for workload, active in sorted(self._active.items())
        ]


def _faults(
    request: ChatRequest, served: Served, labels: Sequence[str], text: str, finish: str | None
) -> frozenset[BadKind]:
    only = labels or served.labels
    return answer_faults.faults(request, served.form, text, finish, only, served.max_new_tokens)


class RolloutCollector(Collector):
    """The canaries: their state and share, and what is bad about each arm's answers."""

    def __init__(self, rollouts: Rollouts) -> None:
        self._rollouts = rollouts

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges and counters."""
        rollouts = self._rollouts
        state = GaugeMetricFamily(
            "flywheel_serve_rollout_state",
            "1 for the state of a workload's newest canary, such as roll back.",
            labels=["workload", "version", "state"],
        )
        for workload, version, name in rollouts.states():
            state.add_metric([workload, version, name], 1.0)
        share = GaugeMetricFamily(
            "flywheel_serve_rollout_share",
            "The share of new conversations that a canary answers.",
            labels=["workload"],
        )
        for workload, value in rollouts.shares():
            share.add_metric([workload], value)
        answers = CounterMetricFamily(
            "flywheel_serve_rollout_answers",
            "Answers of conversations whose arm was drawn.",
            labels=["workload", "arm"],
        )
        for (workload, arm), count in rollouts.answers.items():
            answers.add_metric([workload, arm], count)
        bad = CounterMetricFamily(
            "flywheel_serve_rollout_bad_answers",
            "Bad answers of both arms, by kind; votes are in the canary's own file.",
            labels=["workload", "arm", "kind"],
        )
        for (workload, arm, kind), count in rollouts.bad.items():
            bad.add_metric([workload, arm, kind], count)
        shadows = CounterMetricFamily(
            "flywheel_serve_rollout_shadows",
            "Requests that a canary answered, too, for nobody (asked), or not because of load.",
            labels=["workload", "result"],
        )
        for workload, count in rollouts.shadowed.items():
            shadows.add_metric([workload, "asked"], count)
        for workload, count in rollouts.shed.items():
            shadows.add_metric([workload, "shed"], count)
        yield from (state, share, answers, bad, shadows)
