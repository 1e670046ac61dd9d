"""Parse large bodies in separate processes, so that no client delays another."""

import json
from dataclasses import asdict, replace

from components import worker_processes
from components.receive import payloads
from components.receive.client_tokens import Token
from components.receive.payloads import Envelope, SpoolLine
from components.receive.settings import RefusedError
from components.worker_processes import WorkerEndedError, WorkerProcesses

SMALL_BYTES = 16 * 2**10
"""Bodies up to this size take at most 3 ms, and on average less than in another process."""

PROCESSES = 2
RETRY_SECONDS = 1


class Readers:
    """Parses bodies, large ones in other processes; belongs to one event loop."""

    def __init__(self) -> None:
        self._processes = WorkerProcesses(__name__, PROCESSES)

    async def read(self, envelope: Envelope, content: bytes) -> SpoolLine:
        """Do as ``payloads.read_body``; also refuse with 503 if the process has ended."""
        if len(content) <= SMALL_BYTES:
            return payloads.read_body(envelope, content)
        head = {
            "kind": envelope.kind,
            "content_type": envelope.content_type,
            "token": envelope.token.model_dump_json(),
            "received_at": envelope.received_at,
        }
        try:
            answer, line = await self._processes.call(
                envelope.token.client_id, json.dumps(head).encode(), content
            )
        except WorkerEndedError as error:
            raise RefusedError(
                503,
                f"the process that read the body of {len(content)} bytes ended with {error.code}; "
                "send less at once",
                retry_after=RETRY_SECONDS,
            ) from error
        fields = json.loads(answer)
        if "status" in fields:
            raise RefusedError(fields["status"], fields["reason"])
        return SpoolLine(**fields | {"line": line})

    async def close(self) -> None:
        """Kill the processes, all of which must be idle."""
        await self._processes.close()


def _read(task: list[bytes]) -> tuple[bytes, bytes]:
    head, content = task
    fields = json.loads(head)
    envelope = Envelope(**fields | {"token": Token.model_validate_json(fields["token"])})
    try:
        result = payloads.read_body(envelope, content)
    except RefusedError as refused:
        return json.dumps({"status": refused.status, "reason": refused.reason}).encode(), b""
    fields = asdict(replace(result, line=b""))
    del fields["line"]
    return json.dumps(fields).encode(), result.line


if __name__ == "__main__":
    worker_processes.serve_calls(_read)
