"""The thread that computes steps, beside the event loop that speaks HTTP."""

import logging
import threading
from asyncio import AbstractEventLoop, Queue
from collections.abc import Callable

import torch  # noqa: TID253 - the engine is a process of its own

from components.serve.embedded.attached_lora import AttachedLora
from components.serve.embedded.continuous_batch import (
    ContinuousBatch,
    GeneratedPart,
    RunningAnswer,
)

logger = logging.getLogger(__name__)

Parts = Queue[GeneratedPart]


class ComputeThread:
    """Runs a batch's steps while it has requests. All methods are for the event loop's thread."""

    def __init__(self, batch: ContinuousBatch, loop: AbstractEventLoop, threads: int) -> None:
        self._batch, self._loop, self._threads = batch, loop, threads
        self._orders: list[Callable[[], None]] = []
        self._ready: list[tuple[Parts, GeneratedPart]] = []
        self._wake = threading.Condition()
        self._is_stopping = False
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

    def forget(self, adapter: AttachedLora) -> None:
        """Erase an adapter's stored prefixes between steps; see ``ContinuousBatch.forget``."""
        self._order(lambda: self._batch.forget(adapter))

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

    def _run(self) -> None:
        torch.set_num_threads(self._threads)
        while True:
            with self._wake:
                self._wake.wait_for(
                    lambda: self._orders or self._is_stopping or self._batch.has_work
                )
                if self._is_stopping:
                    return
                orders, self._orders = self._orders, []
            try:
                for order in orders:
                    order()
                self._batch.step()
            except Exception as error:
                logger.exception("computing a step failed; its requests were ended")
                self._batch.fail(f"computing a step: {type(error).__name__}: {error}")
            ready, self._ready = self._ready, []
            if ready:
                self._loop.call_soon_threadsafe(_pass_on, ready)


def _pass_on(ready: list[tuple[Parts, GeneratedPart]]) -> None:
    for parts, part in ready:
        parts.put_nowait(part)
