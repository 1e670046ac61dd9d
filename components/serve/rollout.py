"""The port for what lets a version prove itself on a share of today's traffic.

An extension brings a ``Rollout``, which is handed in where a gateway is put together. Without one
only champions answer.
"""

from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from prometheus_client.registry import Collector

from components.schema import Json
from components.serve.chat_request import ChatRequest
from components.serve.routes import CanaryRoute, Served
from components.serve.staged_version import StagedVersion

if TYPE_CHECKING:
    from components.serve.champion_watch import RegisteredVersion
    from components.serve.exchange import Exchange

Arm: TypeAlias = Literal["champion", "canary"]


@dataclass(frozen=True, slots=True)
class ArmDraw:
    """Whose a request is, by the draw of its conversation."""

    rollout: str
    """The id of the order."""

    conversation: str
    arm: Arm
    share: float
    """The canary's share when the arm was drawn; 0 if it was not, and nothing counts."""

    asker: tuple[str, ...] = ()
    """Keyed hashes of the client and, if it named one, its user."""

    def to_json(self) -> dict[str, Json]:
        """Return what the record of an answer has of it."""
        return {
            "rollout": self.rollout,
            "drawn": self.arm,
            "share": self.share,
            "conversation": self.conversation,
        }


@dataclass(frozen=True, slots=True)
class Shadow:
    """A request that another version is to answer, too, for nobody."""

    served: Served
    compare: Callable[[str, str], None]
    """Takes what that version wrote, and why it ended."""
    shed: Callable[[], None]
    """Called instead if users leave no room."""


@dataclass(frozen=True, slots=True)
class RolloutStart:
    """The order of a version that may begin to answer a share."""

    id: str
    """Another start of the same version is another order."""

    version: str
    begin: Callable[[AbstractAsyncContextManager[StagedVersion]], Coroutine[None, None, None]]
    """Lets the version, once it is staged, answer its share, or notes why it can't."""


class RolloutAliases(Protocol):
    """What the watch of the registry asks of it."""

    def version_of(self, workload: str) -> str | None:
        """Return the number of the version that answers a share."""
        ...

    def see(
        self,
        workload: str,
        number: str,
        version: "RegisteredVersion | None",
        champion: str | None,
    ) -> RolloutStart | None:
        """Note where the alias ``canary`` is; return the order of a version that may begin."""
        ...

    def lose(self, workload: str) -> None:
        """Note that a workload has no alias ``canary`` any more."""
        ...


class Rollout(RolloutAliases, Protocol):
    """Whose a request is, what answers show, and when a version's trial ends."""

    def restore(self) -> None:
        """Take up what the file of routes has; called before the routes are followed."""
        ...

    def run(self) -> Coroutine[None, None, None]:
        """Decide by what was observed, for as long as the gateway runs."""
        ...

    def close(self) -> Coroutine[None, None, None]:
        """Keep what was observed."""
        ...

    def withdraw(self, workload: str, why: str) -> None:
        """End a trial of which nothing can be shown any more."""
        ...

    def describe(self) -> list[Json]:
        """Return what runs, in short, for the gateway's status."""
        ...

    @property
    def metrics(self) -> Collector:
        """What it shows at each scrape."""
        ...

    def draw(
        self,
        workload: str,
        canary: CanaryRoute,
        client_id: str,
        request: ChatRequest,
        named: str | None,
    ) -> ArmDraw | None:
        """Return whose a request is; ``None`` if nothing is drawn now."""
        ...

    def observe(
        self, exchange: "Exchange", labels: Sequence[str], milliseconds: float | None
    ) -> None:
        """Note what a drawn request shows about its arm, once.

        Args:
            exchange: The request.
            labels: The only texts that may answer where no tools are offered, by ``serve.yaml``.
            milliseconds: Of a whole answer; ``None`` if there is none.
        """
        ...

    def shadow(self, exchange: "Exchange", labels: Sequence[str]) -> Shadow | None:
        """Return what another version is to answer, too, after the user has the answer."""
        ...

    def dislike(self, workload: str, answer_id: str, kind: str, value: Json) -> None:
        """Note feedback to an answer."""
        ...
