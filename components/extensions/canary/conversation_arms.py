"""Which conversations a canary answers: random, secret, and the same over all their turns.

A conversation has a point in [0, 1), a keyed hash, and is the canary's if the point is below the
canary's share. When the share rises nobody leaves the canary, but points between the old share and
the new one would change over in the middle of a conversation. So a conversation keeps the share
under which it began.
"""

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from components.schema import Json
from components.serve.rollout import Arm

LEAST_SEED_BYTES = 16
MAX_RUNNING = 200_000
"""Conversations whose share is remembered: some 200 bytes each."""

_KEY_BYTES, _POINT_BYTES = 16, 8
_MANTISSA = 53  # bits of a float: a point never rounds up to 1


@dataclass(frozen=True, slots=True)
class DrawnConversation:
    """A conversation as one canary sees it."""

    key: str
    """32 hex digits; without the canary's seed nobody can compute it from the text."""

    point: float
    """Uniform in [0, 1); the canary answers if it is below the share."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """Who answers a conversation, and the canary's share when that was drawn.

    A share of 0 is a conversation that began in a step without a canary: the champion answers, and
    nothing is drawn.
    """

    conversation: str
    """Its key."""

    arm: Arm
    share: float
    is_new: bool = field(default=False, compare=False)
    """Whether it begins with this request."""


def identify(
    seed: bytes, client_id: str, messages: Sequence[Mapping[str, Json]], named: str | None = None
) -> tuple[DrawnConversation, ...]:
    """Return the conversations that a request may belong to, the likeliest first.

    It is the client's own name of it (``named``: a header, or the request's metadata). Without one
    a conversation is the messages of its first request; a later one repeats them before an answer.
    So this request begins a conversation if nothing that precedes one of its answers is remembered:
    those of examples in the prompt, or of a greeting, were never asked. Conversations of a client
    that begin with the same request are one.

    Args:
        seed: The canary's secret: a client that knew it could choose its arm.
        client_id: The token's client; two clients never share a conversation.
        messages: The request's messages.
        named: The client's name of the conversation.

    Raises:
        ValueError: The seed does not have 16 to 64 bytes.
    """
    if not LEAST_SEED_BYTES <= len(seed) <= blake2b.MAX_KEY_SIZE:
        raise ValueError(f"a canary's seed has {len(seed)} bytes, expected 16 to 64")
    text = blake2b(key=seed, digest_size=_KEY_BYTES + _POINT_BYTES)
    text.update(json.dumps([client_id, named or None]).encode())
    if named:
        return (_drawn(text.digest()),)
    earlier = list[DrawnConversation]()
    for message in messages:
        if message.get("role") == "assistant":
            earlier.append(_drawn(text.digest()))
        text.update(json.dumps([message.get("role"), message.get("content")]).encode())
    return (_drawn(text.digest()), *reversed(earlier))


def name_asker(seed: bytes, names: Sequence[str]) -> str:
    """Return what stands for a client, or a user of it, in the evidence: 12 hex digits."""
    return blake2b(json.dumps([*names]).encode(), key=seed, digest_size=6).hexdigest()


def arm_of(conversation: DrawnConversation, share: float) -> Arm:
    """Return who answers a conversation that begins under a share."""
    return "canary" if conversation.point < share else "champion"


class RunningConversations:
    """The shares under which conversations began; the least recently used are forgotten.

    A gateway that starts again passes the shares that it had; without them all are drawn again.
    """

    def __init__(
        self, capacity: int = MAX_RUNNING, shares: Mapping[str, float] | None = None
    ) -> None:
        self._capacity = capacity
        self._shares = OrderedDict[str, float]()
        for key, share in (shares or {}).items():
            self._remember(key, share)

    def assign(self, conversations: Sequence[DrawnConversation], share: float) -> Assignment:
        """Return who answers a request of one of these conversations: the first remembered one.

        Args:
            conversations: What ``identify`` returns.
            share: The canary's share now; it counts if a conversation begins with this request.
        """
        known = next((each for each in conversations if each.key in self._shares), None)
        conversation = known or conversations[0]
        began = self._shares.pop(conversation.key, share)
        self._remember(conversation.key, began)
        arm = arm_of(conversation, began)
        return Assignment(conversation.key, arm, began, is_new=known is None)

    def learn(self, key: str, share: float) -> None:
        """Remember a conversation that began at another gateway, unless it is known here."""
        if key not in self._shares:
            self._remember(key, share)

    def _remember(self, key: str, share: float) -> None:
        self._shares[key] = share
        while len(self._shares) > self._capacity:
            self._shares.popitem(last=False)


def _drawn(digest: bytes) -> DrawnConversation:
    point = int.from_bytes(digest[_KEY_BYTES:]) >> (8 * _POINT_BYTES - _MANTISSA)
    return DrawnConversation(digest[:_KEY_BYTES].hex(), point / 2**_MANTISSA)
