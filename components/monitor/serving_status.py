"""Who serves a workload at the gateway, and when that was last proved."""

from collections.abc import Sequence
from dataclasses import dataclass

from components.monitor.canary_status import CanaryStatus


@dataclass(frozen=True, slots=True)
class ServingVersion:
    """A version that is loaded; times are ISO 8601, UTC."""

    version: str
    model: str
    """The engine's name of the adapter."""
    precision: str
    since: str
    proved_at: str
    has_effect: bool
    """Whether it can be told from its base."""
    replicas: Sequence[str]
    """Where it is proved."""


@dataclass(frozen=True, slots=True)
class RefusedVersion:
    """A version that the gateway does not serve; ``at`` is ISO 8601, UTC."""

    at: str
    version: str
    reason: str


@dataclass(frozen=True, slots=True)
class ElsewhereVersion:
    """A workload's version at a gateway on another machine; ``since`` is ISO 8601, UTC."""

    machine: str
    version: str
    since: str


@dataclass(frozen=True, slots=True)
class ServingStatus:
    """A workload at the gateway of its home."""

    is_running: bool
    engine: str | None = None
    champion: ServingVersion | None = None
    previous: ServingVersion | None = None
    preparing: Sequence[tuple[str, str]] = ()
    """Version and step of what is on its way."""
    refused: Sequence[RefusedVersion] = ()
    replicas_out: Sequence[tuple[str, str]] = ()
    """Replicas that serve nothing, with the reason."""
    elsewhere: Sequence[ElsewhereVersion] | None = ()
    """What the gateways of other machines serve, ``None`` if they can't be asked."""
    canaries: Sequence[CanaryStatus] = ()
    """The newest first."""

    @property
    def canary(self) -> CanaryStatus | None:
        """The newest canary, if there was one."""
        return self.canaries[0] if self.canaries else None


def sentence(serving: ServingStatus) -> str:
    """Return one line on who serves, since when, and when it was last proved."""
    others = elsewhere(serving)
    if not serving.is_running:
        return "; ".join(["no gateway of this home runs", *others])
    coming = [f"version {number} is being prepared ({step})" for number, step in serving.preparing]
    refusals = [
        f"version {refusal.version} is refused: {refusal.reason}" for refusal in serving.refused
    ]
    champion = serving.champion
    if champion is None:
        return "; ".join(["not served", *coming, *refusals, *others])
    proved = (
        f"proved at {minute(champion.proved_at)}"
        if champion.has_effect
        else "without an effect that could be proved"
    )
    serves = f"version {champion.version} since {minute(champion.since)}, {proved}"
    return "; ".join([serves, *coming, *refusals, *others])


def elsewhere(serving: ServingStatus) -> list[str]:
    """Return a text for each version that the gateways of other machines serve."""
    if serving.elsewhere is None:
        return ["what other machines serve is not known: the object store can't be reached"]
    by_version: dict[str, list[ElsewhereVersion]] = {}
    for each in serving.elsewhere:
        by_version.setdefault(each.version, []).append(each)
    return [
        f"version {version} at {', '.join(each.machine for each in at)} "
        f"since {minute(min(each.since for each in at))}"
        for version, at in sorted(by_version.items())
    ]


def minute(at: str) -> str:
    """Return a time of the gateway to the minute, UTC."""
    return at[:16].replace("T", " ")
