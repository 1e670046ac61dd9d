"""The file ``serve.yaml``: engine and replicas, routing, fallbacks, logging, limits."""

import re
from dataclasses import dataclass
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, field_validator, model_validator

from components.schema import Config
from components.store.addresses import without_secrets

EngineKind: TypeAlias = Literal["embedded", "vllm", "nim", "sglang", "lorax"]
LoggingMode: TypeAlias = Literal["required", "best_effort"]

BODY_BYTES = 4 * 2**20
"""A longer request body is answered with 413, unless another server may answer it."""

KEY_NAME = re.compile(r"(?!(AWS|MLFLOW|PREFECT|FLYWHEEL)_)[A-Za-z_][A-Za-z0-9_]*")
"""A variable whose value may be sent to another server: none of the gateway's own credentials."""


def _address(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError(
            f"expected http:// or https://, such as http://127.0.0.1:8000, found {url!r}"
        )
    return url.rstrip("/")


def _key_name(name: str | None) -> str | None:
    if name is not None and not KEY_NAME.fullmatch(name):
        raise ValueError(
            f"it is {name!r}, expected the name of a variable that holds a key of that server; "
            "AWS_, MLFLOW_, PREFECT_ and FLYWHEEL_ variables hold the gateway's own credentials"
        )
    return name


class ReplicaSettings(Config):
    """One server of the engine. Name each one: a load balancer shows only one of them."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    """Its name in logs, routes and metrics."""

    url: str
    """Its address without ``/v1``, such as ``http://10.0.0.7:8000``."""

    _is_an_address = field_validator("url")(_address)


class OpenAiFallback(Config):
    """Any OpenAI-compatible server that answers when no replica does, such as a teacher."""

    url: str
    """Where ``/chat/completions`` is, such as ``https://api.openai.com/v1``."""

    model: str = Field(min_length=1)
    """The model's name there; answers carry it, so that nobody takes them for the champion's."""

    api_key_env: str | None = None
    """The gateway's environment variable with the key; if left out, no key is sent."""

    _is_an_address = field_validator("url")(_address)
    _is_no_own_key = field_validator("api_key_env")(_key_name)

    @property
    def name(self) -> str:
        """What records, metrics and the log call it."""
        return without_secrets(self.url)


Fallback: TypeAlias = Literal["replica", "previous"] | OpenAiFallback


class EngineSettings(Config):
    """The engine that holds the base and the adapters."""

    kind: EngineKind = "embedded"
    """``embedded`` is a process of the gateway's own; the others are servers that run already."""

    replicas: tuple[ReplicaSettings, ...] = ()
    """Every server of the engine; empty for ``embedded``."""

    base: str | None = None
    """The base's folder; the champions' own if left out. Versions on another base are refused."""

    base_name: str | None = None
    """The base's name at the engine; asked for if left out."""

    api_key_env: str | None = None
    """The environment variable with the engine's key; if left out, no key is sent."""

    _is_no_own_key = field_validator("api_key_env")(_key_name)

    adapters: str | None = None
    """The folder of staged adapters as the engine sees it; the gateway's own path if left out. For
    NIM this is ``NIM_PEFT_SOURCE``, as the gateway sees it."""

    refresh_seconds: float = Field(default=30, gt=0)
    """NIM's ``NIM_PEFT_REFRESH_INTERVAL``: an adapter not listed after two of these is refused."""

    max_loras: int = Field(default=8, ge=1)
    """Adapters that a replica may hold: of each workload the champion, the version before it and a
    canary, and one that is being loaded. A version for which there is no room is refused."""

    precision: Literal["fp32", "bf16", "nf4"] | None = None
    """The precision of ``embedded``; chosen for the device if left out."""

    slots: int = Field(default=8, ge=1)
    """Requests that ``embedded`` answers at once; each needs memory for its keys and values."""

    threads: int | None = Field(default=None, ge=1)
    """Threads of ``embedded``; all cores but one if left out."""

    first_byte_seconds: float = Field(default=60.0, gt=0)
    """A replica that sends nothing for this long is out; the client gets 504 if no other answers.
    Longer than the longest prompt takes."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        mistakes = list[str]()
        if self.kind == "embedded" and self.replicas:
            mistakes.append("`embedded` has no `replicas`: it is a process of the gateway's own")
        if self.kind != "embedded" and not self.replicas:
            mistakes.append(f"{self.kind} needs `replicas`, each with a `name` and a `url`")
        if self.kind == "nim" and self.adapters is None:
            mistakes.append("nim needs `adapters`, the folder NIM_PEFT_SOURCE")
        names = [replica.name for replica in self.replicas]
        if len(names) != len(set(names)):
            mistakes.append(f"two `replicas` have the same name: {', '.join(names)}")
        urls = [replica.url for replica in self.replicas]
        if len(urls) != len(set(urls)):
            mistakes.append(f"two `replicas` are one server: {', '.join(urls)}")
        if mistakes:
            raise ValueError("; ".join(mistakes))
        return self


class RoutingRule(Config):
    """Send requests that match to a workload, whatever their ``model``; the first match counts.

    Exactly one of ``header``, ``client`` and ``metadata`` is set.
    """

    workload: str = Field(min_length=1)

    header: str | None = None
    """A request header, such as ``x-request-type``; ``equals`` is its value."""

    metadata: str | None = None
    """A key of the request's ``metadata``; ``equals`` is its value."""

    client: str | None = None
    """A glob pattern of the token's client, such as ``shop-*``."""

    equals: str | None = None
    """A glob pattern of the value; with ``client`` it is left out."""

    model: str | None = None
    """Only requests whose ``model`` matches this glob pattern; any if left out."""

    @model_validator(mode="after")
    def _has_a_condition(self) -> Self:
        conditions = [self.header, self.metadata, self.client]
        if sum(condition is not None for condition in conditions) != 1:
            raise ValueError("expected exactly one of `header`, `metadata` and `client`")
        if (self.client is None) != (self.equals is not None):
            raise ValueError("`header` and `metadata` need `equals`; `client` has none")
        return self


class SwapSettings(Config):
    """How a new version takes over."""

    min_ready: int | None = Field(default=None, ge=1)
    """Replicas that must have proved a version before it serves; if left out, all healthy ones and
    at least half of all."""

    unproved: bool = False
    """Serve an adapter without measurable effect, which can't be told from its base; by default it
    is refused."""


@dataclass(frozen=True, slots=True)
class SwapTimes:
    """How long the steps of a swap may take, in seconds; not in the file.

    ``follow``: how often the champion is read from the registry. ``staging``: the longest staging
    of a version, with its references; a longer one is ended, and tried again. ``drain``: the
    longest wait for requests of an old version before it is unloaded. ``proof``: how often each
    replica shows again, on one text, that its versions are themselves; one that is not is proved
    whole at once, the others after 60 of these. ``longest_proof``: a slower replica is out.
    """

    follow: float = 2.0
    staging: float = 1800.0
    drain: float = 300.0
    proof: float = 60.0
    longest_proof: float = 120.0


DEFAULT_TIMES = SwapTimes()


class GatewayLimits(Config):
    """Bounds on requests; those of the receiver (bodies in flight, the spool) hold as well."""

    relayed_bytes: int = Field(default=32 * 2**20, ge=1)
    """So much a body may have that an OpenAI-compatible server answers."""

    max_tokens: int = Field(default=4096, ge=1)
    """The most tokens of a version's answer; a request for more is cut to it."""

    open_requests: int = Field(default=256, ge=1)
    """Requests being answered at once; more are answered with 503."""

    client_share: float = Field(default=0.5, gt=0, le=1)
    """Fraction of ``open_requests``, and of the requests that ``embedded`` runs or lets wait, that
    one client may use; more is answered with 429."""

    answer_seconds: float = Field(default=600.0, gt=0)
    """An answer that takes longer is cut."""


class WorkloadServing(Config):
    """What differs for one workload."""

    fallbacks: tuple[Fallback, ...] | None = None
    """As ``fallbacks`` of the file; that is used if left out. An OpenAI-compatible server named
    here also answers as long as the workload has no champion."""

    logging: LoggingMode | None = None
    """As ``logging`` of the file; that is used if left out."""

    constrained: bool | None = None
    """Whether calls are held to the tools' schemas, and labels to the version's; as in its
    evaluation if left out."""

    labels: tuple[str, ...] = ()
    """The only texts that it may answer, for classification; those of the version's evaluation if
    empty (``evaluate: {constrained: all}`` in the workload's file)."""


class ServeSettings(Config):
    """The file ``serve.yaml``."""

    engine: EngineSettings = EngineSettings()

    only: tuple[str, ...] | None = None
    """The workloads to serve; all that have a champion if left out."""

    workloads: dict[str, WorkloadServing] = Field(default_factory=dict[str, WorkloadServing])
    """What differs for single workloads."""

    routing: tuple[RoutingRule, ...] = ()
    """Rules that choose the workload; without a match, the request's ``model`` names it."""

    fallbacks: tuple[Annotated[Fallback, Field(union_mode="left_to_right")], ...] = ("replica",)
    """What is tried, in this order, when the chosen replica fails before its first byte: another
    ``replica``, the ``previous`` version, an OpenAI-compatible server. Never the base alone."""

    logging: LoggingMode = "required"
    """``required``: with no room in the spool, requests are refused (503) before an answer is
    generated. ``best_effort``: they are answered and counted as not logged."""

    swap: SwapSettings = SwapSettings()
    limits: GatewayLimits = GatewayLimits()

    @model_validator(mode="after")
    def _can_be_ready(self) -> Self:
        servers, least = len(self.engine.replicas) or 1, self.swap.min_ready or 1
        if least > servers:
            raise ValueError(
                f"`swap.min_ready` is {least}, and `engine` has {servers} replica(s): nothing "
                "would ever serve"
            )
        return self

    def workload(self, name: str) -> WorkloadServing:
        """Return what differs for a workload."""
        return self.workloads.get(name) or WorkloadServing()

    def fallbacks_of(self, name: str) -> tuple[Fallback, ...]:
        """Return a workload's fallbacks."""
        own = self.workload(name).fallbacks
        return self.fallbacks if own is None else own

    def has_server(self, name: str) -> bool:
        """Return whether an OpenAI-compatible server is among a workload's fallbacks."""
        return any(isinstance(fallback, OpenAiFallback) for fallback in self.fallbacks_of(name))

    def longest_body(self) -> int:
        """Return the bytes of a request's body to read before it is known who answers."""
        own = [fallback for each in self.workloads.values() for fallback in each.fallbacks or ()]
        if any(isinstance(fallback, OpenAiFallback) for fallback in (*self.fallbacks, *own)):
            return max(BODY_BYTES, self.limits.relayed_bytes)
        return BODY_BYTES

    def answered_elsewhere(self) -> frozenset[str]:
        """Return the workloads whose own fallbacks answer as long as they have no champion."""
        return frozenset(
            name
            for name, own in self.workloads.items()
            if own.fallbacks is not None
            and self.has_server(name)
            and (self.only is None or name in self.only)
        )

    def logging_of(self, name: str) -> LoggingMode:
        """Return a workload's logging mode."""
        return self.workload(name).logging or self.logging
