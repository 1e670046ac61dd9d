"""A request that is being answered, and what is known of it by now."""

import time
from contextlib import ExitStack
from dataclasses import dataclass

from components.receive.admission import Hold
from components.serve.answer_log import Answerer, Interaction
from components.serve.chat_answer import AnswerDraft, Chunks, StreamWriter
from components.serve.chat_request import ChatRequest
from components.serve.responses_answer import ResponseEvents
from components.serve.rollout import ArmDraw
from components.serve.rollout_settings import BadKind
from components.serve.routes import Route
from components.serve.streamed_answer import StreamedAnswer


@dataclass(slots=True)
class Exchange:
    """A request that is being answered."""

    interaction: Interaction
    route: Route | None
    """``None`` for a workload without a champion, which another server answers."""
    began: float
    """``time.perf_counter()`` of its arrival."""
    must_log: bool
    draft: AnswerDraft
    hold: Hold
    """The bytes of its body and of another server's answer, which count until it ends."""
    held: ExitStack
    """Ends ``hold``."""
    who: Answerer | None = None
    """Who answers, or is about to."""
    is_sending: bool = False
    """Whether a byte was passed on: then nobody else may answer."""
    is_logged: bool = False
    """Whether the record is on its way to the disk."""
    draw: ArmDraw | None = None
    """Whose it is, while there is a canary."""
    reader: StreamedAnswer | None = None
    """What a version wrote; read again where it is compared."""
    has_failed: bool = False
    """Whether the version of its arm failed to answer."""
    faults: frozenset[BadKind] | None = None
    """What is bad about the whole answer of its arm's version, once it was observed."""
    is_observed: bool = False

    @property
    def request(self) -> ChatRequest:
        """The checked request."""
        return self.interaction.request

    @property
    def epoch(self) -> int:
        """The route's epoch; 0 without a champion."""
        return self.route.epoch if self.route is not None else 0

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the response's headers: the answer's id and, but for a canary, who answers."""
        who = self.who
        # OpenAI's name: clients that hide an answer's id, or a stream's, show this header.
        headers = [(b"x-request-id", self.draft.id.encode())]
        headers.append((b"x-flywheel-epoch", b"%d" % self.epoch))
        if who is not None and self.draft.alias is None:
            headers.append((b"x-flywheel-arm", who.arm.encode()))
            if who.served is not None:
                headers.append((b"x-flywheel-version", who.served.version.encode()))
        return headers if self.draft.relayed is None else headers + self.draft.relayed.headers

    def writer(self) -> StreamWriter:
        """Return what writes the answer's stream, once it is known who answers."""
        responses = self.request.responses
        if self.draft.relayed is not None:
            return self.draft.relayed
        if responses is not None:
            return ResponseEvents(self.draft, responses.body)
        return Chunks(self.draft, has_usage=self.request.has_usage)

    @property
    def media_type(self) -> bytes:
        """The content type of the answer."""
        if self.draft.relayed is not None:
            return self.draft.relayed.media_type
        return b"text/event-stream" if self.request.is_streamed else b"application/json"

    def milliseconds(self) -> float:
        """Return the milliseconds since its arrival."""
        return (time.perf_counter() - self.began) * 1000
