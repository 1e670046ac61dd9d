"""Who may answer a request, in order: a replica of the champion, then what ``serve.yaml`` names.

A canary's request goes to all replicas of the canary first, and then to the champion's.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from components.serve.answer_log import AnswerArm
from components.serve.engines.serving_engine import ServingEngine
from components.serve.routes import Route, Served
from components.serve.settings import Fallback, OpenAiFallback

COOL_SECONDS = 5.0  # a replica that has just failed is tried last for this long


@dataclass(frozen=True, slots=True)
class Attempt:
    """Somebody who may answer: a version on a replica, or an OpenAI-compatible server."""

    arm: AnswerArm
    replica: str
    served: Served | None = None
    engine: ServingEngine | None = None
    fallback: OpenAiFallback | None = None


@dataclass(slots=True)
class ReplicaLoads:
    """Open requests by replica, and when each last failed."""

    open: Counter[str] = field(default_factory=Counter[str])
    failed_at: dict[str, float] = field(default_factory=dict[str, float])
    turn: int = 0

    def order(self, names: Sequence[str]) -> list[str]:
        """Return replicas, the best first: not just failed, few open requests, in turn."""
        if len(names) < 2:
            return list(names)
        self.turn += 1
        start = self.turn % len(names)
        recent = time.monotonic() - COOL_SECONDS
        return sorted(
            [*names[start:], *names[:start]],
            key=lambda name: (self.failed_at.get(name, 0.0) > recent, self.open[name]),
        )


def attempts(
    route: Route | None,
    fallbacks: Sequence[Fallback],
    engines: Mapping[str, ServingEngine],
    loads: ReplicaLoads,
    *,
    is_canary: bool = False,
) -> Iterator[Attempt]:
    """Yield who may answer.

    ``route`` is ``None`` for a workload without a champion. ``is_canary``: the canary's version is
    to answer, and all others are fallbacks.
    """

    def of_version(arm: AnswerArm, served: Served) -> list[Attempt]:
        names = loads.order([name for name in served.replicas if name in engines])
        return [Attempt(arm, name, served, engines[name]) for name in names]

    if is_canary and route is not None and route.canary is not None:
        yield from of_version("canary", route.canary.served)
    own_arm: AnswerArm = "fallback" if is_canary else "champion"
    champion = of_version(own_arm, route.champion) if route else []
    yield from champion[:1]
    for fallback in fallbacks:
        match fallback:
            case "replica":
                yield from champion[1:]
            case "previous":
                if route and route.previous is not None:
                    yield from of_version("fallback", route.previous)
            case OpenAiFallback():
                yield Attempt("fallback", fallback.name, fallback=fallback)
