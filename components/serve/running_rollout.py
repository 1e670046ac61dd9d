"""A canary that answers requests: whose each one is, its clock, and its file of evidence."""

import time
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain
from pathlib import Path

from components.serve import response_id
from components.serve.body_fields import Obj
from components.serve.canary import conversation_arms, rollout_evidence
from components.serve.canary.conversation_arms import Arm, RunningConversations
from components.serve.canary.rollout_evidence import AnswerLine, EvidenceFile
from components.serve.canary.rollout_look import EvidenceReader
from components.serve.canary.rollout_order import RolloutOrder
from components.serve.chat_request import ChatRequest
from components.serve.rollout_status import RolloutStatus
from components.serve.shared_rollouts import SharedEvidence


@dataclass(frozen=True, slots=True)
class ArmDraw:
    """Whose a request is, by the draw of its conversation."""

    rollout: str
    """The id of the canary's order."""

    conversation: str
    arm: Arm
    share: float
    """The canary's share when the arm was drawn; 0 if it was not, and nothing counts."""

    asker: tuple[str, ...] = ()
    """Keyed hashes of the client and, if it named one, its user."""

    def to_json(self) -> Obj:
        """Return what the record of an answer has of it."""
        return {
            "rollout": self.rollout,
            "drawn": self.arm,
            "share": self.share,
            "conversation": self.conversation,
        }


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
