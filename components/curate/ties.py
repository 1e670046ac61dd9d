"""Tie rows that belong together: by conversation, user, tools, or the turns before."""

import json
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace

from components.curate import split
from components.curate.interaction import Candidate, CandidateRow
from components.curate.settings import SplitBy
from components.curate.split import Member
from components.schema import Json
from components.store import manifest

ASKING = ("user", "tool")
"""The roles whose messages a model answers."""


@dataclass(frozen=True, slots=True)
class RequestOrigin:
    """What a request may have in common with others, as digests.

    ``tools`` is set where the workload is split by them. ``path`` has one digest for each message
    that a user or a tool sent, of all such messages up to it, so that a path is a prefix of that of
    every later turn. ``context`` is of system messages and tools. ``answered_before`` is of the
    last such message before the newest and the answer to it, ``answered`` of the newest and its
    logged answer: where an application cuts its histories, one turn's ``answered`` is the next
    one's ``answered_before``. ``former_group`` is the group that versions before 0026 settled.
    """

    request: str
    redacted_request: str | None
    tools: str | None
    conversation: str | None
    user: str | None
    path: tuple[str, ...]
    context: str
    answered_before: str | None
    answered: str
    former_group: str


def request_origin(
    row: CandidateRow, candidate: Candidate, split_by: SplitBy, redacted_request: str | None
) -> RequestOrigin:
    """Read the origin of an interaction, of what was logged before redaction."""
    names = candidate.tool_names
    messages = [one for one in candidate.messages if one["role"] in (*ASKING, "assistant")]
    return RequestOrigin(
        request=row.example_id,
        redacted_request=redacted_request,
        tools=split.tools(names) if split_by == "tools" and names else None,
        conversation=split.conversation(row.conversation_id) if row.conversation_id else None,
        user=split.user(row.user_id) if row.user_id else None,
        path=_path(messages, candidate.opening),
        context=manifest.digest([candidate.said("system", "developer"), row.tools]),
        answered_before=_answered_before(messages),
        answered=manifest.digest([_last_question(messages), _content(_logged(candidate))]),
        former_group=split.group(split_by, names, candidate.opening, row.user_id),
    )


def _path(messages: Sequence[dict[str, Json]], opening: str) -> tuple[str, ...]:
    path: list[str] = []
    for message in messages:
        if message["role"] == "assistant":
            continue
        if not path and message["role"] == "user":
            path.append(split.opening_group(opening))
        else:
            path.append(manifest.digest(["path", *path[-1:], message["role"], _content(message)]))
    return tuple(path)


def _answered_before(messages: Sequence[dict[str, Json]]) -> str | None:
    """Hash the last message that was answered before the newest, and its answer."""
    asked = [n for n, one in enumerate(messages) if one["role"] in ASKING]
    answers = [n for n, one in enumerate(messages[: asked[-1]]) if one["role"] == "assistant"]
    before = [n for n in asked if answers and n < answers[-1]]
    if not before:
        return None
    return manifest.digest([_content(messages[before[-1]]), _content(messages[answers[-1]])])


def _last_question(messages: Sequence[dict[str, Json]]) -> Json:
    return _content(next(one for one in reversed(messages) if one["role"] in ASKING))


def _logged(candidate: Candidate) -> dict[str, Json]:
    return (candidate.logged if candidate.is_corrected else candidate.message) or {}


def _content(message: dict[str, Json]) -> Json:
    """Return a message's text and calls without their ids, which say nothing of its meaning."""
    content, calls = message.get("content"), message.get("tool_calls")
    text = content.strip() if isinstance(content, str) else json.dumps(content, sort_keys=True)
    functions: list[Json] = (
        [one.get("function") for one in calls if isinstance(one, dict)]
        if isinstance(calls, list)
        else []
    )
    return ["" if content is None else text, functions]


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
    origins: Sequence[RequestOrigin],
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
            member,
            one,
            by_path,
            split_by,
            is_common=not requests.isdisjoint(_request_names(member, one)),
        )
        for member, one in zip(members, known, strict=True)
    ]


def _common_ids(
    origins: Sequence[RequestOrigin], ids: Sequence[str | None], settled: Container[str]
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


def _request_names(member: Member, origin: RequestOrigin) -> Iterable[str]:
    """Name what a row asks: its request, also without personal data, and what is near to it."""
    yield origin.request
    if origin.redacted_request is not None:
        yield origin.redacted_request
    if member.cluster_id is not None:
        yield f"cluster {member.cluster_id}"


def _common_requests(
    members: Sequence[Member], origins: Sequence[RequestOrigin], split_by: SplitBy
) -> frozenset[str]:
    """Find what more than a few conversations, or users, asked."""
    askers: dict[str, set[str]] = defaultdict(set)
    for member, one in zip(members, origins, strict=True):
        asker = (one.user if split_by == "user" else None) or one.conversation
        if asker is not None:
            for name in _request_names(member, one):
                askers[name].add(asker)
    return frozenset(name for name, of in askers.items() if len(of) > MOST_CONVERSATIONS)


def _tied(
    member: Member, one: RequestOrigin, by_path: "_Paths", split_by: SplitBy, *, is_common: bool
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

    def __init__(self, origins: Sequence[RequestOrigin]) -> None:
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

    def conversation(self, one: RequestOrigin) -> list[str]:
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

    def _is_cut(self, one: RequestOrigin) -> bool:
        """Tell whether the turn before is not logged as the beginning of this one."""
        return len(one.path) > 1 and one.path[-2] not in self._ends

    def _is_rare(self, name: str) -> bool:
        most = MOST_CONVERSATIONS
        return len(self._repeated[name]) <= most and 0 < len(self._answered[name]) <= most
