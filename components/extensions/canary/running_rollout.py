"""A canary that answers requests: whose each one is, its clock, its evidence, how it stands."""

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Literal, TypeAlias, cast, get_args

from components.extensions.canary import conversation_arms, rollout_evidence
from components.extensions.canary.conversation_arms import RunningConversations
from components.extensions.canary.rollout_evidence import AnswerLine, EvidenceFile
from components.extensions.canary.rollout_order import RolloutOrder
from components.extensions.canary.rollout_verdict import EvidenceReader
from components.extensions.canary.shared_rollouts import SharedEvidence
from components.schema import Json
from components.serve import response_id
from components.serve.body_fields import Obj
from components.serve.chat_request import ChatRequest
from components.serve.rollout import ArmDraw
from components.store import manifest

LOG = logging.getLogger(__name__)

MAX_POINTS = 200

State: TypeAlias = Literal[
    "waiting", "running", "hold", "undecided", "roll back", "void", "stopped"
]
"""``void``: nothing can be shown any more, such as after a change of the champion."""

ENDS: tuple[State, ...] = ("hold", "roll back", "void", "stopped")


@dataclass(slots=True)
class RolloutStatus:
    """How the newest canary of a workload stands."""

    id: str
    workload: str
    version: str
    champion: str
    state: State
    reason: str
    began_at: str | None = None
    ended_at: str | None = None
    verdict: Json = None
    history: list[Json] = field(default_factory=list[Json])
    shadow: Json = None
    evidence_bytes: Json = None
    """The length of the evidence that the verdict is of."""

    @classmethod
    def of(cls, order: RolloutOrder, state: State, reason: str) -> "RolloutStatus":
        """Return the status of a start of a canary."""
        plan = order.plan
        return cls(order.id, plan.workload, plan.version, plan.champion, state, reason)

    def content(self) -> dict[str, Json]:
        """Return what its file has."""
        return cast("dict[str, Json]", asdict(self))

    def take_over(self, end: Mapping[str, Json]) -> None:
        """Say how the canary ended, as the first gateway to end it wrote."""
        self.state, self.reason = ended_state(end), str(end.get("reason"))
        ended_at = end.get("ended_at")
        self.ended_at = ended_at if isinstance(ended_at, str) else self.ended_at
        self.verdict, self.evidence_bytes = end.get("verdict"), end.get("evidence_bytes")

    def add_point(self, at: str, verdict: Mapping[str, Json]) -> None:
        """Append what a look showed; older looks are thinned."""
        shown = ("canary", "champion", "worse", "within", "ratio_low", "ratio_high")
        listed = cast("list[dict[str, Json]]", verdict["kinds"])
        kinds: Json = {str(each["kind"]): {name: each[name] for name in shown} for each in listed}
        self.history.append({"at": at, "share": verdict["share"], "kinds": kinds})
        if len(self.history) > MAX_POINTS:
            self.history = [*self.history[:-1:2], self.history[-1]]

    @property
    def shed(self) -> int:
        """The shadows that were given up because of load."""
        match self.shadow:
            case {"shed": int(shed)}:
                return shed
            case _:
                return 0


class StatusFiles:
    """The files of a folder, one a workload; what they say is read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._contents: dict[str, dict[str, Json]] = {}

    def known(self, workload: str) -> dict[str, Json]:
        """Return what a workload's file says; empty if there is none, or it is damaged."""
        if workload not in self._contents:
            self._contents[workload] = _read_json(self._path(workload))
        return self._contents[workload]

    def all_known(self) -> dict[str, dict[str, Json]]:
        """Return what those files say that were read or written, by workload."""
        return dict(self._contents)

    def read(self, order: RolloutOrder) -> RolloutStatus | None:
        """Return what the file says of this start; ``None`` if it says nothing, or is damaged."""
        status = read_status(self.known(order.plan.workload))
        if status is None or status.id != order.id:
            return None
        if status.state not in ("running", "hold", "undecided"):
            status.state = "running"
        status.history, status.ended_at = status.history[-MAX_POINTS:], None
        return status

    def say(self, status: RolloutStatus) -> None:
        """Write a status that no request waits for, unless the file says so already."""
        before = self.known(status.workload)
        named = ("id", "version", "state", "reason")
        if all(before.get(name) == getattr(status, name) for name in named):
            return
        LOG.info("the canary of %s: %s: %s", status.workload, status.state, status.reason)
        self._contents[status.workload] = status.content()
        self._write(status.workload, status.content())

    async def write(self, status: RolloutStatus) -> None:
        """Write a status, unless it is what was written last."""
        content = status.content()
        if content == self._contents.get(status.workload):
            return
        await asyncio.to_thread(self._write, status.workload, content)
        self._contents[status.workload] = content

    def _write(self, workload: str, content: dict[str, Json]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        manifest.write_atomically(self._path(workload), json.dumps(content) + "\n")

    def _path(self, workload: str) -> Path:
        return self._folder / f"{workload}.json"


def ended_state(end: Mapping[str, Json]) -> State:
    """Return the state of an end that a gateway wrote; ``void`` if it is not one of an end."""
    for state in ENDS:
        if end.get("state") == state:
            return state
    return "void"


def read_status(content: Json) -> RolloutStatus | None:
    """Return the status that a file has; ``None`` if it is not in the gateway's form."""
    if not isinstance(content, dict) or content.get("state") not in get_args(State):
        return None
    match [content.get(name) for name in ("id", "workload", "version", "champion", "reason")]:
        case [str(rollout), str(workload), str(version), str(champion), str(reason)]:
            state = cast("State", content["state"])
        case _:
            return None
    status = RolloutStatus(rollout, workload, version, champion, state, reason)
    match content.get("history"):
        case [*points] if all(isinstance(point, dict) for point in points):
            status.history = points
        case _:
            pass
    began, ended = content.get("began_at"), content.get("ended_at")
    status.began_at = began if isinstance(began, str) else None
    status.ended_at = ended if isinstance(ended, str) else None
    status.verdict, status.shadow = content.get("verdict"), content.get("shadow")
    status.evidence_bytes = content.get("evidence_bytes")
    return status


def _read_json(path: Path) -> dict[str, Json]:
    try:
        content = cast("Json", json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


@dataclass(slots=True)
class RunningRollout:
    """A canary in traffic; ``open_rollout`` takes up what its files have."""

    order: RolloutOrder
    text: str  # of the order, as the routes have it
    seed: bytes
    evidence: EvidenceFile
    running: RunningConversations
    status: RolloutStatus
    reader: EvidenceReader  # of this gateway's evidence, or of all that share a store
    shared: SharedEvidence | None
    ran: float  # seconds before this process
    wrote: float  # the elapsed time of the last line
    started: float = field(default_factory=time.monotonic)
    looked_at: float = field(default_factory=time.monotonic)  # the last look that succeeded
    looked_share: float = -1.0
    is_changed: bool = True
    is_warned: bool = False  # that it draws one conversation only
    unproved_since: float | None = None
    shared_at: float = 0.0  # the elapsed time of the last lines that were sent
    seen_at: float = field(default_factory=time.monotonic)  # when the store was last reached

    @property
    def elapsed(self) -> float:
        """The seconds that it ran."""
        return self.ran + time.monotonic() - self.started

    @property
    def share(self) -> float:
        """The share of the conversations that it has now."""
        return self.order.plan.share_at(self.elapsed)

    def draw(self, client_id: str, request: ChatRequest, named: str | None) -> tuple[ArmDraw, bool]:
        """Return whose a request is, and whether its conversation begins with it."""
        messages: list[Obj] = request.messages
        if request.endpoint == "completion":
            messages = [{"role": "user", "content": request.prompt}]
        conversations = conversation_arms.identify(self.seed, client_id, messages, named)
        assignment = self.running.assign(conversations, self.share)
        names = [client_id] if request.user is None else [client_id, request.user]
        draw = ArmDraw(
            self.order.id,
            assignment.conversation,
            assignment.arm,
            assignment.share,
            tuple(
                conversation_arms.name_asker(self.seed, names[:count])
                for count in range(1, len(names) + 1)
            ),
        )
        return draw, assignment.is_new


def evidence_path(folder: Path, rollout: str) -> Path:
    """Return the file of a canary's evidence, of all gateways if they share it."""
    return folder / f"{rollout}.jsonl"


def own_path(folder: Path, rollout: str, *, is_shared: bool) -> Path:
    """Return the file of this gateway's own evidence."""
    path = evidence_path(folder, rollout)
    return path.with_suffix(".own") if is_shared else path


def open_rollout(
    folder: Path,
    keys: Path,
    order: RolloutOrder,
    text: str,
    status: RolloutStatus,
    shared: SharedEvidence | None,
) -> RunningRollout:
    """Return a canary that runs, with what its evidence has of an earlier process.

    Args:
        folder: The folder of evidence.
        keys: The home's folder of keys.
        order: Its order.
        text: The text of the order, as the routes have it.
        status: How it stands.
        shared: What gateways with a store exchange.

    Raises:
        OSError: Its evidence can't be read.
    """
    path = evidence_path(folder, order.id)
    own = own_path(folder, order.id, is_shared=shared is not None)
    ran, shares = 0.0, dict[str, float]()
    paths = [path] if own == path else [path, own]
    for line in chain.from_iterable(map(rollout_evidence.read_lines, paths)):
        ran = max(ran, line.elapsed)
        if isinstance(line, AnswerLine):
            shares.pop(line.conversation, None)  # the last ones are the newest
            shares[line.conversation] = line.share
    # The seed of another start can't be computed from this one's answers.
    key = response_id.read_key(keys)
    seed = blake2b(order.id.encode(), key=key, person=b"canary's seed", digest_size=32).digest()
    return RunningRollout(
        order,
        text,
        seed,
        EvidenceFile(own),
        RunningConversations(shares=shares),
        status,
        EvidenceReader(path, order),
        shared,
        ran,
        wrote=ran,
    )
