"""What the gateways that share a store tell each other of canaries: evidence, standing, ends."""

import logging
import time
from functools import partial
from pathlib import Path

from components.extensions.canary import shared_rollouts
from components.extensions.canary.rollout_evidence import AnswerLine
from components.extensions.canary.running_rollout import RolloutStatus, RunningRollout
from components.extensions.canary.shared_rollouts import SharedEvidence
from components.extensions.machines import object_store
from components.extensions.machines.object_store import DamagedObjectError, ObjectStore, StoreError
from components.schema import Json
from components.serve import seen_gateways
from components.serve.daemon_call import in_daemon

LOG = logging.getLogger(__name__)


def store_errors() -> tuple[type[Exception], ...]:
    """Return the errors of a store that is away, or has damaged objects."""
    return *object_store.network_errors(), StoreError, DamagedObjectError


class RolloutSharing:
    """A store's part in a gateway's canaries; belongs to one event loop."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._unshared: dict[str, RolloutStatus] = {}  # ends that the store has not, by id
        self._shared_ends: set[str] = set()  # ids
        self._standings: dict[str, dict[str, Json]] = {}  # what this gateway wrote, by id
        self._away = ""  # what was last logged of the store

    def evidence(self, rollout: str, folder: Path, path: Path, own: Path) -> SharedEvidence:
        """Return the evidence of a canary that gateways exchange, of this home's ``folder``."""
        gateway = seen_gateways.ensure_id(folder)
        return SharedEvidence(self._store, rollout, path, own, gateway)

    async def read_end(self, rollout: str) -> dict[str, Json] | None:
        """Return the end of a canary that a gateway wrote; ``store_errors`` if it is away."""
        return await in_daemon(lambda: shared_rollouts.read_end(self._store, rollout))

    async def exchange(self, active: RunningRollout, *, is_sending: bool) -> None:
        """Take the others' evidence, and send this gateway's; ``store_errors`` if it is away."""
        shared = active.shared
        assert shared is not None
        before, elapsed = shared.size, active.elapsed
        lines = await in_daemon(lambda: shared.exchange(is_sending=is_sending))
        if is_sending:
            active.shared_at = elapsed
        active.is_changed |= shared.size != before
        for line in lines:
            # One clock for all: the others' may have run while this gateway was down.
            active.ran += max(0.0, line.elapsed - active.elapsed)
            if isinstance(line, AnswerLine):
                active.running.learn(line.conversation, line.share)

    def note_reached(self, active: RunningRollout) -> None:
        """Note that the store was reached for a canary."""
        active.seen_at, self._away = time.monotonic(), ""

    def put_off(self, status: RolloutStatus) -> None:
        """Share an end later, unless it is shared."""
        if status.id and status.id not in self._shared_ends:
            self._unshared.setdefault(status.id, status)

    async def share_put_off(self) -> None:
        """Share the ends that were put off, as far as the store is there."""
        for rollout, status in [*self._unshared.items()]:
            if await self.share_end(status) is not None:
                self._unshared.pop(rollout, None)

    async def share_or_put_off(self, status: RolloutStatus) -> dict[str, Json] | None:
        """Share an end as ``share_end`` does; if the store is away, put it off."""
        end = await self.share_end(status)
        if end is None:
            self._unshared[status.id] = status
        return end

    async def share_end(self, status: RolloutStatus) -> dict[str, Json] | None:
        """Return the end that counts, this one or an earlier one; ``None``: the store is away."""
        end_once = partial(shared_rollouts.end_once, self._store, status.id, status.content())
        try:
            end = await in_daemon(end_once)
        except store_errors() as error:
            self.warn(f"sharing the end of the canary of {status.workload}: {error}")
            return None
        self._shared_ends.add(status.id)
        self._standings.pop(status.id, None)
        return end

    async def share_standing(self, status: RolloutStatus) -> None:
        """Write how a canary stands, if that changed."""
        content = status.content()
        if status.verdict is None or self._standings.get(status.id) == content:
            return
        write = partial(shared_rollouts.write_standing, self._store, status.id, content)
        try:
            await in_daemon(write)
        except store_errors() as error:
            self.warn(f"sharing how the canary of {status.workload} stands: {error}")
        else:
            self._standings[status.id] = content

    async def remove_evidence(self, rollout: str) -> None:
        """Remove the evidence of a canary that ended; ``store_errors`` if it is away."""
        await in_daemon(partial(shared_rollouts.remove_evidence, self._store, rollout))

    def warn(self, problem: str) -> None:
        """Log a problem of the store, once."""
        if problem != self._away:
            LOG.warning("%s", problem)
        self._away = problem
