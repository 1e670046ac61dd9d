"""Ship what a LiteLLM proxy answers to Flywheel's receiver, as the next turn's input.

In the proxy's folder, beside its ``config.yaml``:

    litellm_settings:
      callbacks: litellm_bridge.flywheel

with ``FLYWHEEL_URL`` (the receiver's, such as ``http://127.0.0.1:4318``) and ``FLYWHEEL_TOKEN``
in its environment. A request's workload is ``metadata.workload_id``, else ``FLYWHEEL_WORKLOAD``,
else the name of its model; its conversation is LiteLLM's session. Records wait in memory (at most
``MOST``) while the receiver is away, so what waits when the proxy is killed is lost; the gateway of
``flywheel serve`` loses nothing.
"""

import asyncio
import json
import logging
import os
from collections import deque
from datetime import datetime
from typing import Any

import httpx

# LiteLLM is the proxy's, and not among our dependencies:
from litellm.integrations.custom_logger import CustomLogger  # pyright: ignore[reportMissingImports]

MOST = 10_000  # records in memory; the oldest are dropped, and the drop is logged
OPTIONS = (
    *("tools", "tool_choice", "parallel_tool_calls", "response_format"),
    *("temperature", "top_p", "max_tokens", "max_completion_tokens", "stop", "seed"),
)
BATCH, PATIENCE_SECONDS = 100, 30.0

LOG = logging.getLogger("flywheel")


class FlywheelBridge(CustomLogger):  # pyright: ignore[reportUntypedBaseClass]
    """Sends each successful answer to ``/v1/interactions``, in batches, until it is accepted."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: deque[str] = deque()
        self._task: asyncio.Task[None] | None = None
        self.dropped = 0

    async def async_log_success_event(
        self, kwargs: dict[str, Any], response_obj: object, start_time: datetime, end_time: datetime
    ) -> None:
        """Queue an answer; LiteLLM calls it after the client has it."""
        whole: Any = kwargs.get("async_complete_streaming_response") or response_obj
        if not kwargs.get("messages") or not hasattr(whole, "model_dump"):
            return  # an embedding, or a chunk of a stream that is not over
        params = kwargs.get("litellm_params") or {}
        metadata = (params.get("metadata") or {}) | (kwargs.get("metadata") or {})
        default = os.environ.get("FLYWHEEL_WORKLOAD") or metadata.get("model_group")
        options = {
            name: value
            for name, value in (kwargs.get("optional_params") or {}).items()
            if name in OPTIONS
        }
        record = {
            "timestamp": start_time.timestamp(),
            "workload_id": metadata.get("workload_id") or default or kwargs.get("model"),
            "request": {"model": kwargs.get("model"), "messages": kwargs["messages"], **options},
            "response": whole.model_dump(mode="json"),
            "duration_ms": (end_time - start_time).total_seconds() * 1000,
            "conversation_id": params.get("litellm_session_id") or metadata.get("session_id"),
            "user_id": kwargs.get("user") or metadata.get("user_api_key_end_user_id"),
            # LiteLLM ends a stream whose client has left as if the model had stopped there.
            "finish": "client_gone" if metadata.get("client_disconnected") else None,
        }
        if len(self._waiting) >= MOST:
            self._waiting.popleft()
            self.dropped += 1
            LOG.error("the receiver is away: %d records were dropped so far", self.dropped)
        kept = {name: value for name, value in record.items() if value is not None}
        self._waiting.append(json.dumps(kept, default=str))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._send())

    async def _send(self) -> None:
        url = os.environ["FLYWHEEL_URL"].rstrip("/") + "/v1/interactions"
        headers = {
            "authorization": f"Bearer {os.environ['FLYWHEEL_TOKEN']}",
            "content-type": "application/x-ndjson",
        }
        wait, most = 0.5, BATCH
        async with httpx.AsyncClient(headers=headers, timeout=PATIENCE_SECONDS) as client:
            while self._waiting:
                batch = [*self._waiting][:most]
                try:
                    answer = await client.post(url, content="\n".join(batch))
                except httpx.TransportError as error:
                    LOG.warning("sending to %s: %r; trying again in %.1f s", url, error, wait)
                else:
                    is_refused = answer.status_code in (400, 403, 413, 422)
                    if is_refused and len(batch) > 1:
                        most = len(batch) // 2  # the others of the batch are not to blame
                        continue
                    if answer.is_success or is_refused:
                        if is_refused:
                            LOG.error("a record was refused: %s", answer.text[:500])
                        for line in batch:
                            if self._waiting and self._waiting[0] is line:
                                self._waiting.popleft()
                        wait, most = 0.5, min(2 * most, BATCH)
                        continue
                    LOG.warning(
                        "the receiver answers %d: %s", answer.status_code, answer.text[:500]
                    )
                await asyncio.sleep(wait)
                wait = min(2 * wait, PATIENCE_SECONDS)


flywheel = FlywheelBridge()
