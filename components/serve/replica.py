"""One replica: what it has loaded and proved, and when it is tried again."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

from components.serve import proof
from components.serve.engines.serving_engine import Generation, ServingEngine, UpstreamError
from components.serve.proof import Proof, Resident
from components.serve.settings import SwapSettings, SwapTimes
from components.serve.staged_adapters import StagedAdapters
from components.serve.staged_version import StagedVersion
from components.store import manifest

LOAD_SECONDS = 180.0
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0  # seconds before a replica that was refused is tried again


@dataclass(slots=True)
class Replica:
    """An engine, and what is known of it."""

    engine: ServingEngine
    identity: str | None = None  # of its process; ``None`` while it is out
    reason: str = "it was not reached yet"  # why it is out
    base: str | None = None  # the content hash of its base; ``None`` if only a proof can tell
    proofs: dict[str, Proof] = field(default_factory=dict[str, Proof])
    proved_at: dict[str, float] = field(default_factory=dict[str, float])  # whole, by model
    checked_at: float = 0.0  # all of its versions
    checks: int = 0
    missed: int = 0
    wait: float = FIRST_WAIT
    next_try: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    look: asyncio.Event = field(default_factory=asyncio.Event)  # set to be looked at now

    @property
    def name(self) -> str:
        """The engine's name."""
        return self.engine.name

    def postpone(self) -> None:
        """Wait before the next try, each time longer."""
        self.next_try = time.monotonic() + self.wait
        self.wait = min(2 * self.wait, LONGEST_WAIT)

    async def bring(
        self,
        model: str,
        adapters: StagedAdapters,
        others: Callable[[StagedVersion], list[Resident]],
        settings: SwapSettings,
        times: SwapTimes,
    ) -> Proof:
        """Load a version unless it is there, and prove it.

        Args:
            model: The engine's name of its adapter.
            adapters: Where it is staged.
            others: Returns the other adapters here, those that it is told from first.
            settings: Whether an adapter without effect may serve.
            times: How long a proof may take.
        """
        async with self.lock:
            try:
                staged = adapters.read(model)
                resident, beside = adapters.resident(model), others(staged)
                async with asyncio.timeout(LOAD_SECONDS):
                    await self._load(staged)
                made = await proof.prove(
                    self.engine,
                    resident,
                    beside,
                    timeout=times.longest_proof,
                    is_unproved_allowed=settings.unproved,
                )
            except TimeoutError:
                made = Proof(self.name, model, f"loading took longer than {LOAD_SECONDS:g} s")
            except UpstreamError as error:
                made = Proof(self.name, model, error.reason, status=error.status)
            except (OSError, ValueError) as error:
                adapters.damaged.add(model)
                made = Proof(self.name, model, f"its staged files are gone or damaged: {error}")
            else:
                adapters.damaged.discard(model)
            self.proofs[model], self.proved_at[model] = made, time.monotonic()
        return made

    async def is_itself(
        self, resident: Resident, others: Sequence[Resident], times: SwapTimes
    ) -> bool:
        """Return whether an adapter is itself on one text, another one at each of the checks."""
        async with self.lock:
            made = await proof.prove(
                self.engine,
                resident,
                others,
                timeout=times.longest_proof,
                probe=self.checks,
            )
        return made.objection is None

    async def _load(self, staged: StagedVersion) -> None:
        if not await self._lists(staged):
            actual = await asyncio.to_thread(manifest.folder_digest, staged.folder)
            if actual != staged.sha256:
                raise ValueError(
                    f"loading {staged.folder}: its files have the digest {actual[:12]}, expected "
                    f"{staged.sha256[:12]}; somebody changed them"
                )
            await self.engine.load(staged.model, staged.folder)
            if not await self._lists(staged):
                raise UpstreamError(
                    502,
                    f"{self.name} took {staged.model} and does not list it",
                    is_retryable=True,
                )

    async def _lists(self, staged: StagedVersion) -> bool:
        """Return whether a replica lists a version; raise if it is of another folder."""
        for model in await self.engine.list_loaded():
            if model.name == staged.model:
                if model.root is not None and Path(model.root).name != staged.folder.name:
                    raise UpstreamError(
                        409,
                        f"{self.name} lists {staged.model} from {model.root}, expected "
                        f"{staged.folder}",
                        is_retryable=False,
                    )
                return True
        return False

    async def answers_as(self, model: str) -> bool:
        """Return whether it answers under a name."""
        try:
            async with aclosing(
                self.engine.complete(model, Generation("a", max_tokens=1))
            ) as pieces:
                async for _ in pieces:
                    break
        except UpstreamError:
            return False
        return True
