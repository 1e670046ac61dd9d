"""Tie the rows that belong together: which name a conversation, a user or a set of tools share.

Nothing that is common identifies anybody. An id that more than a third of the rows carry is an
application's, not a conversation's or a person's. A request that more than five conversations made
("hi", "yes") belongs to none of them and stands by itself.

Where no conversation id is logged, the turns of a conversation are found by their messages. A turn
repeats those before it, so what users and tools sent in one is the beginning of what they sent in
the next. The shortest beginning that at most five conversations have in common ties them. Where an
application cuts its histories, a turn is tied to the one whose message and answer it repeats,
provided that at most five requests do.
"""

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace

from components import manifest
from components.curate.origin import Origin
from components.curate.placing import Member
from components.curate.split import SplitBy

MOST_CONVERSATIONS = 5
"""What more conversations have in common identifies none; retries and edits are fewer."""

MOST_OF_ALL = 1 / 3
"""An id on a larger share of the rows names neither a conversation nor a person."""

FEW_ROWS = 20
"""An id on so few rows is never common, whatever their share."""


@dataclass(frozen=True, slots=True)
class Common:
    """What identifies nobody: ids on too many rows, and requests of too many conversations."""

    conversations: frozenset[str]
    users: frozenset[str]
    requests: frozenset[str]


def tie(
    members: Sequence[Member],
    origins: Sequence[Origin],
    split_by: SplitBy,
    settled: Container[str] = frozenset(),
) -> list[Member]:
    """Return the members with the names of their ties; the order of rows doesn't matter.

    Args:
        members: The rows, with their near-duplicate clusters.
        origins: Where each comes from.
        split_by: What the holdout is to show.
        settled: The names that snapshots have settled. An id that they left out on many rows was
            common then, and stays so.
    """
    conversations = _common_ids(origins, [one.conversation for one in origins], settled)
    by_user = settled if split_by == "user" else frozenset[str]()
    users = _common_ids(origins, [one.user for one in origins], by_user)
    known = [
        replace(
            one,
            conversation=None if one.conversation in conversations else one.conversation,
            user=None if one.user in users else one.user,
        )
        for one in origins
    ]
    by_path = _Paths([one for one in known if one.conversation is None])
    requests = _common_requests(members, known, split_by)
    return [
        _tied(
            member, one, by_path, split_by, is_common=not requests.isdisjoint(_asked(member, one))
        )
        for member, one in zip(members, known, strict=True)
    ]


def _common_ids(
    origins: Sequence[Origin], ids: Sequence[str | None], settled: Container[str]
) -> frozenset[str]:
    counts = Counter(one for one in ids if one is not None)
    left_out: dict[str, set[str]] = defaultdict(set)
    for origin, one in zip(origins, ids, strict=True):
        if one is not None and origin.request in settled and one not in settled:
            left_out[one].add(origin.request)
    return frozenset(
        one
        for one, count in counts.items()
        if (count > FEW_ROWS and count > MOST_OF_ALL * len(origins))
        or (bool(settled) and len(left_out[one]) > FEW_ROWS)
    )


def _asked(member: Member, origin: Origin) -> Iterable[str]:
    """Name what a row asks: its request, also without personal data, and what is near to it."""
    yield origin.request
    if origin.redacted_request is not None:
        yield origin.redacted_request
    if member.cluster_id is not None:
        yield f"cluster {member.cluster_id}"


def _common_requests(
    members: Sequence[Member], origins: Sequence[Origin], split_by: SplitBy
) -> frozenset[str]:
    """Find what more than a few conversations, or users, asked."""
    askers: dict[str, set[str]] = defaultdict(set)
    for member, one in zip(members, origins, strict=True):
        asker = (one.user if split_by == "user" else None) or one.conversation
        if asker is not None:
            for name in _asked(member, one):
                askers[name].add(asker)
    return frozenset(name for name, of in askers.items() if len(of) > MOST_CONVERSATIONS)


def _tied(
    member: Member, one: Origin, by_path: "_Paths", split_by: SplitBy, *, is_common: bool
) -> Member:
    alone = manifest.digest(["request", one.request])
    conversation = [] if is_common else by_path.conversation(one)
    user = one.user if one.user is not None and not is_common else None
    more = [] if is_common or one.conversation is None else [one.conversation]
    related: list[str] = []
    if one.tools is not None:
        group, related = one.tools, conversation
    elif split_by == "user" and user is not None:
        group, related = user, conversation
    else:
        group = (more or conversation or [alone])[0]
        more += conversation
        related = [] if user is None else [user]
    redacted = [] if one.redacted_request is None else [one.redacted_request]
    ties = dict.fromkeys([one.request, group, *more, *redacted])
    return replace(
        member,
        ties=tuple(ties),
        related=tuple(related),
        former_group=one.former_group,
        by_tools=one.tools is not None,
    )


class _Paths:
    """Finds the turns of conversations that have no id, by what was said in them."""

    def __init__(self, origins: Sequence[Origin]) -> None:
        contexts: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for one in origins:
            contexts[one.path].add(one.context)
        self._ends = {path[-1] for path in contexts}
        inner = {name for path in contexts for name in path[:-1]}
        self._conversations: Counter[str] = Counter()
        for path, of in contexts.items():
            if path[-1] in inner:  # a later turn goes on from here, and counts
                self._conversations[path[-1]] += max(0, len(of) - MOST_CONVERSATIONS)
                continue
            for name in path:
                self._conversations[name] += len(of)
        self._repeated: dict[str, set[str]] = defaultdict(set)
        self._answered: dict[str, set[str]] = defaultdict(set)
        self._continued: set[str] = set()
        for one in origins:
            self._answered[one.answered].add(one.request)
            if one.answered_before is not None:
                self._repeated[one.answered_before].add(one.request)
                if self._is_cut(one):
                    self._continued.add(one.answered_before)

    def conversation(self, one: Origin) -> list[str]:
        """Name the conversation of a request without an id; nothing where it can't be told."""
        if one.conversation is not None:
            return []
        rare = [name for name in one.path if self._conversations[name] <= MOST_CONVERSATIONS]
        names = [*rare[:1], *rare[-1:]]
        if one.answered in self._continued and self._is_rare(one.answered):
            names.append(f"answered {one.answered}")
        before = one.answered_before
        if before is not None and self._is_cut(one) and self._is_rare(before):
            names.append(f"answered {before}")
        return [*dict.fromkeys(names)]

    def _is_cut(self, one: Origin) -> bool:
        """Tell whether the turn before is not logged as the beginning of this one."""
        return len(one.path) > 1 and one.path[-2] not in self._ends

    def _is_rare(self, name: str) -> bool:
        most = MOST_CONVERSATIONS
        return len(self._repeated[name]) <= most and 0 < len(self._answered[name]) <= most
