"""Write the record of an answer into the spool, as ``flywheel collect`` reads it.

An answer's record is on disk before the client sees its end. What was cut off is recorded as well,
with a reason in ``finish`` that keeps it from training and from the counts of production's answers.
"""

import asyncio
from dataclasses import dataclass
from typing import Literal, TypeAlias

import orjson

from components.receive.intake import Desk
from components.receive.settings import RefusedError
from components.schema import Json
from components.serve.body_fields import Obj
from components.serve.chat_answer import AnswerDraft
from components.serve.chat_request import ChatRequest
from components.serve.routes import Served
from components.store import spool

AnswerArm: TypeAlias = Literal["champion", "canary", "fallback"]

GONE, CUT = "client_gone", "upstream_cut"


@dataclass(slots=True)
class Answerer:
    """Who gives an answer."""

    arm: AnswerArm
    engine: str
    replica: str
    epoch: int
    served: Served | None = None
    """``None`` for an OpenAI-compatible server."""
    failed: tuple[str, ...] = ()
    """The replicas that failed before."""
    ttft_ms: float | None = None
    draw: Obj | None = None
    """The canary's draw of its conversation, while there is a canary."""

    def to_json(self) -> Obj:
        """Return the record's ``served``."""
        served = self.served
        failed: Obj = {"failed": [*self.failed]} if self.failed else {}
        return {
            "version": served.version if served else None,
            "adapter": served.adapter if served else None,
            "sha256": served.sha256 if served else None,
            "epoch": self.epoch,
            "engine": self.engine,
            "replica": self.replica,
            "ttft_ms": self.ttft_ms,
            "arm": self.arm,
            **failed,
            **(self.draw or {}),
        }


@dataclass(frozen=True, slots=True)
class Interaction:
    """What is known of a request before it is answered."""

    client_id: str
    workload: str
    request: ChatRequest
    timestamp: float
    """Unix seconds of its arrival."""
    conversation_id: str | None
    traceparent: str | None
    size: int = 0
    """The bytes of its body."""


def record(
    interaction: Interaction, draft: AnswerDraft, whole: bytes, who: Answerer, duration_ms: float
) -> bytes:
    """Return the spool line of an answer; ``whole`` is its JSON."""
    request = interaction.request
    body = request.body if draft.relayed is None else request.sent
    if request.endpoint != "chat":
        body = {**body, "messages": []}
    fields: dict[str, Json | orjson.Fragment] = {
        "timestamp": interaction.timestamp,
        "workload_id": interaction.workload,
        "client_id": interaction.client_id,
        "request": body,
        "response": orjson.Fragment(whole),
        "duration_ms": round(duration_ms, 3),
        "served": who.to_json(),
        "finish": draft.finish,
    }
    optional = {
        "conversation_id": interaction.conversation_id,
        "user_id": request.user,
        "traceparent": interaction.traceparent,
    }
    fields |= {name: value for name, value in optional.items() if value is not None}
    return spool.line("interactions", interaction.client_id, orjson.dumps(fields))


class AnswerLog:
    """Writes records through the receiver's desk; belongs to one event loop."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._partial = set[asyncio.Task[None]]()

    async def write(self, client_id: str, line: bytes) -> None:
        """Wait until a record is on disk; raise ``RefusedError`` if it can't be written.

        It is queued before the first wait: a cancelled caller's record is written as well.
        """
        await self._desk.write(line)
        self._desk.metrics.records.labels("interactions", client_id).inc()

    def write_later(self, client_id: str, line: bytes) -> None:
        """Write the record of a partial answer, for which nobody waits."""
        task = asyncio.create_task(self._write_partial(client_id, line))
        self._partial.add(task)
        task.add_done_callback(self._partial.discard)

    async def _write_partial(self, client_id: str, line: bytes) -> None:
        try:
            await self.write(client_id, line)
        except RefusedError:  # the spool's own metrics and health say why
            return

    async def close(self) -> None:
        """Wait for the records of partial answers."""
        await asyncio.gather(*self._partial)
