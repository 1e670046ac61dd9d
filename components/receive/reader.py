"""The process that reads large bodies; ``readers`` starts it, and says why.

A task is a line of JSON, then the body, whose size the line has; the answer has the same form. The
process ends when its standard input does, so it outlives no receiver, however that ended.
"""

import gc
import json
import os
import signal
import sys
from typing import BinaryIO

from components.receive import entry
from components.receive.entry import Entry, Envelope
from components.receive.refusal import RefusedError
from components.receive.tokens import Token

NICE = 10
"""Where there are too few cores, whoever answers small requests goes first."""


def task(envelope: Envelope, content: bytes) -> bytes:
    """Write the line that goes before ``content``."""
    head = {
        "kind": envelope.kind,
        "content_type": envelope.content_type,
        "token": envelope.token.model_dump_json(),
        "size": len(content),
    }
    return json.dumps(head).encode() + b"\n"


def answer(head: dict[str, object]) -> RefusedError | tuple[int, int]:
    """Read an answer's line: the refusal, or the size of what follows and the number of records."""
    match head:
        case {"status": int(status), "reason": str(reason)}:
            return RefusedError(status, reason)
        case {"size": int(size), "count": int(count)}:
            return size, count
        case _:
            raise ValueError(f"reading a reader's answer: it has the keys {', '.join(head)}")


def serve(tasks: BinaryIO, answers: BinaryIO) -> None:
    """Read bodies until there are no more."""
    gc.disable()  # it looks at all of a large body again and again: 16 MiB took 2 to 9 s, not 0.5 s
    gc.freeze()
    while head := tasks.readline():
        found = json.loads(head)
        made = _read(found, tasks.read(found["size"]))
        if isinstance(made, RefusedError):
            answers.write(json.dumps({"status": made.status, "reason": made.reason}).encode())
            answers.write(b"\n")
        else:
            answers.write(b'{"size":%d,"count":%d}\n' % (len(made.line), made.count))
            answers.write(made.line)
        answers.flush()
        del made
        gc.collect()  # of what came since the freeze: next to nothing


def _read(head: dict[str, str], content: bytes) -> Entry | RefusedError:
    token = Token.model_validate_json(head["token"])
    envelope = Envelope(head["kind"], head["content_type"], token)  # type: ignore[arg-type]
    try:
        return entry.read(envelope, content)
    except RefusedError as refused:
        return refused.with_traceback(None)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):  # they go to a whole group of processes
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICE)
    serve(sys.stdin.buffer, sys.stdout.buffer)
