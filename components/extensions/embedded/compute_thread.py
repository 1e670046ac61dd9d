"""The thread that computes steps, beside the event loop that speaks HTTP."""

import logging
import threading
from asyncio import AbstractEventLoop, Queue
from collections.abc import Callable

import torch  # noqa: TID253 - the engine is a process of its own

from components.extensions.embedded.attached_lora import AttachedLora
from components.extensions.embedded.continuous_batch import (
    ContinuousBatch,
    GeneratedPart,
    RunningAnswer,
)
from components.extensions.embedded.lazy_memory import trim_heap

logger = logging.getLogger(__name__)

Parts = Queue[GeneratedPart]

IDLE_SECONDS = 1.0
"""After so long without a request freed memory is given back; sooner, the next request would take
it again, a page at a time."""

HAS_FAILED = "the engine has failed, and ends; its log says why"


class ComputeThread:
    """Runs a batch's steps while it has requests. All methods are for the event loop's thread."""

    def __init__(
        self,
        batch: ContinuousBatch,
        loop: AbstractEventLoop,
        threads: int,
        on_failure: Callable[[], object] = lambda: None,
    ) -> None:
        """Start it; ``on_failure`` is called by the event loop if it ends by itself."""
        self._batch, self._loop, self._threads = batch, loop, threads
        self._on_failure = on_failure
        self._orders: list[Callable[[], None]] = []
        self._ready: list[tuple[Parts, GeneratedPart]] = []
        self._wake = threading.Condition()
        self._is_stopping = False
        self.has_failed = False
        self._thread = threading.Thread(target=self._run, name="compute", daemon=True)
        self._thread.start()

    def deliver_to(self, parts: Parts) -> Callable[[GeneratedPart], None]:
        """Return what a request calls with its parts; they reach the queue after each step."""
        return lambda part: self._ready.append((parts, part))

    def add(self, answer: RunningAnswer) -> None:
        """Let a request join before the next step."""
        self._order(lambda: self._batch.add(answer))

    def cancel(self, answer: RunningAnswer) -> None:
        """Let a request leave before the next step."""
        answer.is_cancelled = True
        self._order(lambda: None)

    def forget(self, adapter: AttachedLora, *, is_shared: bool) -> None:
        """Erase an adapter's stored prefixes between steps; see ``ContinuousBatch.forget``."""
        self._order(lambda: self._batch.forget(adapter, is_shared=is_shared))

    def stop(self) -> None:
        """End after the current step, without the rest of the requests."""
        with self._wake:
            self._is_stopping = True
            self._wake.notify()
        self._thread.join()

    def _order(self, order: Callable[[], None]) -> None:
        with self._wake:
            self._orders.append(order)
            self._wake.notify()
        if self.has_failed:
            self._end_requests()

    def _run(self) -> None:
        torch.set_num_threads(self._threads)
        try:
            while self._wait():
                self._follow_orders()
                self._step()
                ready, self._ready = self._ready, []
                if ready:
                    self._loop.call_soon_threadsafe(_pass_on, ready)
        except BaseException:  # a defect, so what is in memory may be wrong; also Rust's panics
            logger.critical("the computing thread failed")
            self._loop.call_soon_threadsafe(self._fail)
            raise

    def _wait(self) -> bool:
        with self._wake:
            has_work = self._wake.wait_for(self._has_work, IDLE_SECONDS)
        if not has_work:
            trim_heap()  # without the lock, for which the event loop would wait
        with self._wake:
            self._wake.wait_for(self._has_work)
            return not self._is_stopping

    def _has_work(self) -> bool:
        return bool(self._orders or self._is_stopping or self._batch.has_work)

    def _follow_orders(self) -> None:
        with self._wake:
            orders, self._orders = self._orders, []
        for order in orders:
            order()

    def _step(self) -> None:
        try:
            self._batch.step()
        except torch.AcceleratorError:  # CUDA computes nothing more in this process
            raise
        except (RuntimeError, MemoryError) as error:  # torch's, as without memory
            logger.exception("computing a step failed; its requests were ended")
            self._batch.fail(f"computing a step: {type(error).__name__}: {error}")

    def _fail(self) -> None:
        self.has_failed = True
        self._end_requests()
        self._on_failure()

    def _end_requests(self) -> None:
        # The thread has ended, so the batch is the event loop's.
        self._follow_orders()
        for answer in [*self._batch.running, *self._batch.waiting]:
            answer.deliver(GeneratedPart(finish="error", problem=HAS_FAILED))
        self._batch.running, self._batch.waiting = [], []
        ready, self._ready = self._ready, []
        _pass_on(ready)


def _pass_on(ready: list[tuple[Parts, GeneratedPart]]) -> None:
    for parts, part in ready:
        parts.put_nowait(part)
