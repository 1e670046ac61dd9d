"""Which conversations a canary answers: random, secret, and the same over all their turns.

A conversation has a point in [0, 1), a keyed hash, and is the canary's if the point is below the
canary's share. When the share rises nobody leaves the canary, but points between the old share and
the new one would change over in the middle of a conversation. So a conversation keeps the share
under which it began.
"""

import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:  # as in rollout_look
    from components.schema import Json


Arm: TypeAlias = Literal["champion", "canary"]

LEAST_SEED_BYTES = 16
MOST_RUNNING = 200_000
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

    A share of 0 is a conversation that began before the canary, or was forgotten: the champion
    answers, and nothing is drawn.
    """

    arm: Arm
    share: float


def identify(
    seed: bytes, client_id: str, messages: "Sequence[Mapping[str, Json]]", named: str | None = None
) -> DrawnConversation:
    """Return the conversation that a request belongs to.

    It is the client's own name of it (``named``: a header, or the request's metadata). Without one
    it is the text that stays the same over its turns: everything up to the first user message.
    Conversations of a client that begin alike are then one conversation.

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
    identity = ["named", named] if named else ["opening", *_opening(messages)]
    content = json.dumps([client_id, *identity], sort_keys=True).encode()
    digest = blake2b(content, key=seed, digest_size=_KEY_BYTES + _POINT_BYTES).digest()
    point = int.from_bytes(digest[_KEY_BYTES:]) >> (8 * _POINT_BYTES - _MANTISSA)
    return DrawnConversation(digest[:_KEY_BYTES].hex(), point / 2**_MANTISSA)


def is_continued(messages: "Iterable[Mapping[str, Json]]") -> bool:
    """Return whether a request's messages contain an earlier answer."""
    return any(message.get("role") == "assistant" for message in messages)


def arm_of(conversation: DrawnConversation, share: float) -> Arm:
    """Return who answers a conversation that begins under a share."""
    return "canary" if conversation.point < share else "champion"


class RunningConversations:
    """The shares under which conversations began; the least recently used are forgotten.

    A gateway that starts again passes the shares that it had; without them no running
    conversation is moved to the canary, but its own are lost to the champion.
    """

    def __init__(
        self, capacity: int = MOST_RUNNING, shares: Mapping[str, float] | None = None
    ) -> None:
        self._capacity = capacity
        self._shares = OrderedDict[str, float]()
        for key, share in (shares or {}).items():
            self._remember(key, share)

    def assign(
        self, conversation: DrawnConversation, share: float, *, is_continued: bool
    ) -> Assignment:
        """Return who answers a request of this conversation.

        Args:
            conversation: The conversation.
            share: The canary's share now; it counts if the conversation begins with this request.
            is_continued: Whether the request contains earlier answers. If nothing is remembered of
                such a conversation, it began under the champion, which keeps it.
        """
        began = self._shares.pop(conversation.key, None)
        if began is None:
            began = 0.0 if is_continued else share
        self._remember(conversation.key, began)
        return Assignment(arm_of(conversation, began), began)

    def learn(self, key: str, share: float) -> None:
        """Remember a conversation that began at another gateway, unless it is known here."""
        if key not in self._shares:
            self._remember(key, share)

    def shares(self) -> dict[str, float]:
        """Return the shares by conversation, the least recently used first."""
        return dict(self._shares)

    def _remember(self, key: str, share: float) -> None:
        self._shares[key] = share
        while len(self._shares) > self._capacity:
            self._shares.popitem(last=False)


def _opening(messages: "Sequence[Mapping[str, Json]]") -> "list[Json]":
    # system, developer and first user message; a request without a user message has all of them
    opening: list[Json] = []
    for message in messages:
        role = message.get("role")
        opening.append([role, message.get("content")])
        if role == "user":
            break
    return opening
