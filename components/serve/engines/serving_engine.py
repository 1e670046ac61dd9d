"""The protocol of an inference engine: a replica with one base, which loads adapters at runtime."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from components.schema import Json


@dataclass(frozen=True, slots=True)
class Generation:
    """A rendered request to an engine.

    ``prompt`` is text or token ids, and is sent as it is: no template, no special tokens added.
    """

    prompt: str | tuple[int, ...]
    max_tokens: int
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    logprobs: int | None = None
    """How many of the most probable tokens to report at each position."""
    grammar: str | None = None
    """Lark, of ``components.chat.answer_grammar``; an engine without grammars refuses it."""
    is_streamed: bool = True
    """Whether the answer comes in pieces; if not, it is one piece."""
    traceparent: str | None = None
    """W3C's header, passed on to the engine."""
    client: str | None = None
    """An opaque key of the client, so that an engine can share its room among clients."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A generated token and its log-probability in nats; ``top`` has the most probable tokens."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class AnswerPiece:
    """A part of an answer, in order. The last one has ``finish``, the counts and ``model``."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    finish: Literal["stop", "length"] | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    model: str | None = None
    """The name of who answered, as the engine reports it."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A prompt and an answer whose log-probabilities identify an adapter: as text and as tokens."""

    prompt: str
    answer: str
    prompt_tokens: tuple[int, ...]
    answer_tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A line of an engine's list; ``root`` and ``parent`` are ``None`` where it lists names only.

    ``root`` is the folder that an adapter was loaded from, ``parent`` the base that it is for.
    """

    name: str
    root: str | None = None
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class EngineNeeds:
    """What a replica must be able to do."""

    residents: int
    """Adapters loaded at the same time, with the one that is about to be loaded."""
    rank: int
    """The highest rank of their LoRA."""
    is_constrained: bool
    """Whether requests have grammars."""


@dataclass(slots=True)
class HttpAnswer:
    """What a server answered, for who asked the gateway."""

    status: int
    media_type: bytes
    headers: list[tuple[bytes, bytes]] = field(default_factory=list[tuple[bytes, bytes]])
    content: bytes = b""


class UpstreamError(Exception):
    """An engine refused a request, failed, or did not answer in time.

    ``status`` is HTTP's: the engine's own, or 502 (it cannot be reached, or cut its answer), or 504
    (it did not answer in time).
    """

    def __init__(
        self,
        status: int,
        reason: str,
        *,
        is_retryable: bool,
        retry_after: int | None = None,
        answer: HttpAnswer | None = None,
    ) -> None:
        super().__init__(reason)
        self.answer = answer
        """What it answered instead; ``None`` if nothing came."""
        self.status = status
        self.reason = reason
        self.retry_after = retry_after
        """The seconds after which the engine wants to be asked again, if it said so."""
        self.is_retryable = is_retryable
        """Whether another replica may be tried, if no byte was passed on yet."""

    def __reduce__(self) -> tuple[Any, ...]:  # as exceptions with only a message are pickled
        return type(self).__new__, (type(self), *self.args), vars(self)

    @property
    def kind(self) -> str:
        """What to log: the reason may quote the prompt."""
        cause = self.__cause__
        return f"{self.status}" if cause is None else f"{self.status}, {type(cause).__name__}"


def token_count(value: Json) -> int | None:
    """Return a number of tokens; ``None`` for what is none, as the -1 of some servers."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31:
        return value
    return None


class ServingEngine(Protocol):
    """A replica. All methods raise ``UpstreamError``."""

    @property
    def name(self) -> str:
        """The replica's name in logs and routes, such as ``vllm-1``."""
        ...

    @property
    def base(self) -> str:
        """The name under which the replica serves its base."""
        ...

    async def preflight(self, needs: EngineNeeds) -> list[str]:
        """Return why the replica is not fit to serve; empty if it is."""
        ...

    async def process_identity(self) -> str:
        """Return what changes when the replica's process restarts; its health check as well."""
        ...

    async def load(self, adapter: str, folder: Path) -> None:
        """Load a staged adapter under a name; a 200 proves nothing yet."""
        ...

    async def list_loaded(self) -> list[LoadedModel]:
        """List the base and the adapters."""
        ...

    async def unload(self, adapter: str) -> None:
        """Forget a name; idempotent."""
        ...

    def complete(self, adapter: str, generation: Generation) -> AsyncGenerator[AnswerPiece]:
        """Stream an answer; ``aclose()`` cancels it."""
        ...

    async def score(self, adapter: str, probe: Probe) -> Sequence[float]:
        """Return the log-probabilities of the probe's answer tokens, in nats.

        ``adapter`` is a loaded name, or ``base``.
        """
        ...

    async def close(self) -> None:
        """Close connections, and stop the engine's process if it is a child of this one."""
        ...
