"""Tie rows that belong together: by conversation, user, tools, or preceding turns."""

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

ASKING = ("user", "tool")  # roles whose messages a model answers


@dataclass(frozen=True, slots=True)
class RequestOrigin:
    """Digests of what a request may share with others.

    ``tools`` is set if the workload is split by tools. ``path`` has one digest per user or tool
    message, over all such messages so far, so that a turn's path is a prefix of every later turn's.
    ``context`` covers system messages and tools. ``answered_before`` covers the last answered
    message before the newest and its answer, ``answered`` the newest message and its logged answer:
    where an application truncates histories, one turn's ``answered`` is the next turn's
    ``answered_before``. ``former_group`` is the group settled by versions before 0026.
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
    """Return the origin of an interaction, from the raw request."""
    names = candidate.tool_names
    messages = [
        message for message in candidate.messages if message["role"] in (*ASKING, "assistant")
    ]
    question = next(message for message in reversed(messages) if message["role"] in ASKING)
    answer = candidate.logged if candidate.is_corrected else candidate.message
    return RequestOrigin(
        request=row.example_id,
        redacted_request=redacted_request,
        tools=split.tools(names) if split_by == "tools" and names else None,
        conversation=split.conversation(row.conversation_id) if row.conversation_id else None,
        user=split.user(row.user_id) if row.user_id else None,
        path=_path(messages, candidate.opening),
        context=manifest.digest([candidate.texts("system", "developer"), row.tools]),
        answered_before=_answered_before(messages),
        answered=manifest.digest([_content(question), _content(answer or {})]),
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
    """Return the digest of the last answered message before the newest, with its answer."""
    asked = [n for n, message in enumerate(messages) if message["role"] in ASKING]
    answers = [
        n for n, message in enumerate(messages[: asked[-1]]) if message["role"] == "assistant"
    ]
    before = [n for n in asked if answers and n < answers[-1]]
    if not before:
        return None
    return manifest.digest([_content(messages[before[-1]]), _content(messages[answers[-1]])])


def _content(message: dict[str, Json]) -> Json:
    """Return a message's text and calls, without call ids."""
    content, calls = message.get("content"), message.get("tool_calls")
    text = content.strip() if isinstance(content, str) else json.dumps(content, sort_keys=True)
    functions: list[Json] = (
        [call.get("function") for call in calls if isinstance(call, dict)]
        if isinstance(calls, list)
        else []
    )
    return ["" if content is None else text, functions]


MOST_CONVERSATIONS = 5
"""Text shared by more conversations identifies none of them; retries and edits are fewer."""

MOST_OF_ALL = 1 / 3
"""An id on a larger share of the rows identifies neither a conversation nor a person."""

FEW_ROWS = 20  # an id on at most this many rows is never common, whatever their share


def tie(
    members: Sequence[Member],
    origins: Sequence[RequestOrigin],
    split_by: SplitBy,
    settled: Container[str] = frozenset(),
) -> list[Member]:
    """Return the members with their ties; the order of rows doesn't matter.

    ``settled`` are the ties of snapshots. An id that they left out on many rows was common then,
    and stays so.
    """
    conversations = _common_ids(origins, [origin.conversation for origin in origins], settled)
    by_user = settled if split_by == "user" else frozenset[str]()
    users = _common_ids(origins, [origin.user for origin in origins], by_user)
    known = [_without_common(origin, conversations, users) for origin in origins]
    by_path = _Paths([origin for origin in known if origin.conversation is None])
    requests = _common_requests(members, known, split_by)
    return [
        _tied(
            member,
            origin,
            by_path,
            split_by,
            is_common=not requests.isdisjoint(_request_names(member, origin)),
        )
        for member, origin in zip(members, known, strict=True)
    ]


def _without_common(
    origin: RequestOrigin, conversations: frozenset[str], users: frozenset[str]
) -> RequestOrigin:
    if origin.conversation not in conversations and origin.user not in users:
        return origin
    return replace(
        origin,
        conversation=None if origin.conversation in conversations else origin.conversation,
        user=None if origin.user in users else origin.user,
    )


def _common_ids(
    origins: Sequence[RequestOrigin], ids: Sequence[str | None], settled: Container[str]
) -> frozenset[str]:
    counts = Counter(common_id for common_id in ids if common_id is not None)
    left_out: dict[str, set[str]] = defaultdict(set)
    for origin, common_id in zip(origins, ids, strict=True):
        if common_id is not None and origin.request in settled and common_id not in settled:
            left_out[common_id].add(origin.request)
    return frozenset(
        common_id
        for common_id, count in counts.items()
        if (count > FEW_ROWS and count > MOST_OF_ALL * len(origins))
        or (bool(settled) and len(left_out[common_id]) > FEW_ROWS)
    )


def _request_names(member: Member, origin: RequestOrigin) -> Iterable[str]:
    """Yield a row's request, its redacted request and its near-duplicate cluster."""
    yield origin.request
    if origin.redacted_request is not None:
        yield origin.redacted_request
    if member.cluster_id is not None:
        yield f"cluster {member.cluster_id}"


def _common_requests(
    members: Sequence[Member], origins: Sequence[RequestOrigin], split_by: SplitBy
) -> frozenset[str]:
    """Return the requests of more than ``MOST_CONVERSATIONS`` conversations or users."""
    askers: dict[str, set[str]] = defaultdict(set)
    for member, origin in zip(members, origins, strict=True):
        asker = (origin.user if split_by == "user" else None) or origin.conversation
        if asker is not None:
            for name in _request_names(member, origin):
                askers[name].add(asker)
    return frozenset(name for name, users in askers.items() if len(users) > MOST_CONVERSATIONS)


def _tied(
    member: Member, origin: RequestOrigin, by_path: "_Paths", split_by: SplitBy, *, is_common: bool
) -> Member:
    conversation = [] if is_common else by_path.conversation(origin)
    user = origin.user if origin.user is not None and not is_common else None
    more = [] if is_common or origin.conversation is None else [origin.conversation]
    related: list[str] = []
    if origin.tools is not None:
        group, related = origin.tools, conversation
    elif split_by == "user" and user is not None:
        group, related = user, conversation
    else:
        alone = [] if more or conversation else [manifest.digest(["request", origin.request])]
        group = (more or conversation or alone)[0]
        more += conversation
        related = [] if user is None else [user]
    redacted = [] if origin.redacted_request is None else [origin.redacted_request]
    ties = dict.fromkeys([origin.request, group, *more, *redacted])
    return Member(  # not by `replace`, which takes three times as long
        ties=tuple(ties),
        label=member.label,
        logged_at=member.logged_at,
        cluster_id=member.cluster_id,
        related=tuple(related),
        former_group=origin.former_group,
        by_tools=origin.tools is not None,
    )


class _Paths:
    """Finds the turns of conversations without an id, by their messages."""

    def __init__(self, origins: Sequence[RequestOrigin]) -> None:
        contexts: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for origin in origins:
            contexts[origin.path].add(origin.context)
        self._ends = {path[-1] for path in contexts}
        inner = {name for path in contexts for name in path[:-1]}
        self._conversations: Counter[str] = Counter()
        for path, path_contexts in contexts.items():
            if path[-1] in inner:  # a later turn continues this path and is counted instead
                self._conversations[path[-1]] += max(0, len(path_contexts) - MOST_CONVERSATIONS)
                continue
            for name in path:
                self._conversations[name] += len(path_contexts)
        self._repeated: dict[str, set[str]] = defaultdict(set)
        self._answered: dict[str, set[str]] = defaultdict(set)
        self._continued: set[str] = set()
        for origin in origins:
            self._answered[origin.answered].add(origin.request)
            if origin.answered_before is not None:
                self._repeated[origin.answered_before].add(origin.request)
                if self._is_cut(origin):
                    self._continued.add(origin.answered_before)

    def conversation(self, origin: RequestOrigin) -> list[str]:
        """Return the conversation ties of a request without an id; empty if none is found."""
        if origin.conversation is not None:
            return []
        rare = [name for name in origin.path if self._conversations[name] <= MOST_CONVERSATIONS]
        names = [*rare[:1], *rare[-1:]]
        if origin.answered in self._continued and self._is_rare(origin.answered):
            names.append(f"answered {origin.answered}")
        before = origin.answered_before
        if before is not None and self._is_cut(origin) and self._is_rare(before):
            names.append(f"answered {before}")
        return [*dict.fromkeys(names)]

    def _is_cut(self, origin: RequestOrigin) -> bool:
        """Return whether the preceding turn was not logged as a prefix of this one."""
        return len(origin.path) > 1 and origin.path[-2] not in self._ends

    def _is_rare(self, name: str) -> bool:
        most = MOST_CONVERSATIONS
        return len(self._repeated[name]) <= most and 0 < len(self._answered[name]) <= most
