"""Tie rows that belong together: by conversation, user, tools, or preceding turns."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from components.curate import split
from components.curate.interaction import Candidate, CandidateRow
from components.curate.near.hashed_words import sorted_set
from components.curate.settings import SplitBy
from components.curate.split import UNPLACED, SettledSides
from components.curate.text_codes import MISSING, CodeLists, Ints, Marks, TextCodes
from components.schema import Json
from components.store import manifest

CACHED_CONTEXTS = 64  # most requests of an application have one of a few

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
        context=_context((*candidate.texts("system", "developer"),), row.tools),
        answered_before=_answered_before(messages),
        answered=manifest.digest([_content(question), _content(answer or {})]),
        former_group=split.group(split_by, names, candidate.opening, row.user_id),
    )


@lru_cache(maxsize=CACHED_CONTEXTS)
def _context(system: tuple[str, ...], tools: str) -> str:
    return manifest.digest([system, tools])


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


MAX_CONVERSATIONS = 5
"""Text shared by more conversations identifies none of them; retries and edits are fewer."""

MAX_OF_ALL = 1 / 3
"""An id on a larger share of the rows identifies no conversation."""

MAX_OF_PERSON = 1 / 2
"""An id on most rows identifies no person. Below that a person costs requests, the more the larger
their share is: 1 / (1 - share) times as many are needed."""

FEW_ROWS = 20  # an id on at most this many rows is never common, whatever their share


@dataclass(frozen=True, slots=True)
class Origins:
    """The fields of ``RequestOrigin`` of many rows, as codes of ``names``."""

    names: TextCodes
    request: Ints
    redacted_request: Ints
    tools: Ints
    conversation: Ints
    user: Ints
    path: CodeLists
    context: Ints
    answered_before: Ints
    answered: Ints
    former_group: Ints

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.request)


@dataclass(frozen=True, slots=True)
class Relations:
    """What rows have in common, as codes, and their near-duplicate ``clusters``.

    ``related`` relates a row to rows that may be on another side but are not independent of it,
    such as its user's.
    """

    ties: CodeLists
    related: CodeLists
    clusters: Ints

    def dependent(self, rows: Ints) -> Ints:
        """Return for each of some rows the first of those that it is not independent of.

        Rows are not independent if they have something in common, directly or through others of
        ``rows``. What other rows have in common with them makes no difference: if two people asked
        one question, of which one row is left, their other questions are independent.
        """
        lists = [self.ties.take(rows), self.related.take(rows)]
        ties = split.numbered_ties(lists, self.clusters[rows], np.arange(len(rows)))
        numbers = split.connected(ties[0], ties[1], len(rows), ties[2])
        return rows[np.unique(numbers, return_index=True)[1][numbers]]


def tie(
    origins: Origins, clusters: Ints, split_by: SplitBy, settled: SettledSides | None = None
) -> tuple[TextCodes, Relations]:
    """Return what rows have in common, and the texts of its codes; their order doesn't matter.

    ``clusters`` number the rows' near-duplicate clusters, ``MISSING`` for none. ``settled`` are the
    sides of snapshots. An id that they left out on many rows was common then, and stays so.
    """
    is_settled = np.zeros(0, np.bool_)
    if settled is not None and len(settled.ids):
        is_settled = settled.of(origins.names)[0] != UNPLACED
    conversation = _without_common(origins, origins.conversation, MAX_OF_ALL, is_settled)
    user = _without_common(
        origins, origins.user, MAX_OF_PERSON, is_settled if split_by == "user" else is_settled[:0]
    )
    askers = [_first_of(user, conversation)]
    if split_by != "user":  # else the conversations of one user are on one side anyway
        askers.append(_first_of(conversation, user))
    is_common = _are_common(origins, clusters, askers, MAX_CONVERSATIONS)
    related = [np.where(is_common, MISSING, codes) for codes in (user, conversation)]
    if split_by == "user":  # what two people asked would chain all that they asked
        is_common = _are_common(origins, clusters, askers, 1)
    names, by_path = _Paths(origins, conversation == MISSING).conversations(is_common)
    user = np.where(is_common, MISSING, user)
    conversation = np.where(is_common, MISSING, conversation)
    by_tools = origins.tools != MISSING
    by_user = ~by_tools & (user != MISSING) if split_by == "user" else np.zeros(len(user), np.bool_)
    by_talk = ~(by_tools | by_user)
    alone = by_talk & (conversation == MISSING) & (by_path[0] == MISSING)
    names, own_group = _requests_alone(names, np.where(alone, origins.request, MISSING))
    group = _first_of(
        np.where(by_tools, origins.tools, MISSING),
        np.where(by_user, user, MISSING),
        conversation,
        by_path[0],
        own_group,
    )
    paths = [np.where(by_talk, codes, MISSING) for codes in by_path]
    rest = [np.where(by_talk, MISSING, codes) for codes in by_path]
    more = [conversation, *paths, origins.redacted_request]
    tied = CodeLists.of([origins.request, group, *more])
    related = [np.where(by_tools, MISSING, codes) for codes in related]
    return names, Relations(tied, CodeLists.of([*rest, *related]), clusters)


def _first_of(*columns: Ints) -> Ints:
    """Return each row's first code that is not missing."""
    first = columns[0]
    for codes in columns[1:]:
        first = np.where(first == MISSING, codes, first)
    return first


def _requests_alone(names: TextCodes, requests: Ints) -> tuple[TextCodes, Ints]:
    """Return the codes of groups of one request, each a new name."""
    distinct, places = np.unique(requests[requests != MISSING], return_inverse=True)
    groups = np.full(len(requests), MISSING)
    groups[requests != MISSING] = len(names) + places
    texts = names.take(distinct).to_pylist()
    return names.extended(manifest.digest(["request", text]) for text in texts), groups


def _without_common(origins: Origins, ids: Ints, most: float, is_settled: Marks) -> Ints:
    """Return the ids, ``MISSING`` where they are common: on more than a share ``most`` of rows."""
    rows = np.flatnonzero(ids != MISSING)
    counts = np.bincount(ids[rows], minlength=len(origins.names))
    is_common = (counts > FEW_ROWS) & (counts > most * len(ids))
    if len(is_settled):
        left_out = rows[is_settled[origins.request[rows]] & ~is_settled[ids[rows]]]
        numbers = _distinct(ids[left_out], origins.request[left_out], len(origins.names))
        is_common |= numbers > FEW_ROWS
    return np.where((ids != MISSING) & is_common[ids], MISSING, ids)


def _distinct(codes: Ints, values: Ints, count: int) -> Ints:
    """Return for each code below ``count`` the number of distinct values that it occurs with."""
    most = int(values.max()) + 1 if len(values) else 1
    return np.bincount(sorted_set(codes * most + values) // most, minlength=count)


def _are_common(origins: Origins, clusters: Ints, askers: Sequence[Ints], most: int) -> Marks:
    """Return whether more than ``most`` users or conversations asked a row's request.

    So is a row whose redacted request or near-duplicates so many asked. ``askers`` are columns.
    """
    count = len(origins.names)
    named = [
        origins.request,
        origins.redacted_request,
        np.where(clusters == MISSING, MISSING, clusters + count),
    ]
    size = count + int(clusters.max(initial=MISSING)) + 1
    is_common = np.zeros(size + 1, np.bool_)
    for asker in askers:
        rows = [np.flatnonzero((names != MISSING) & (asker != MISSING)) for names in named]
        asked = [names[with_asker] for names, with_asker in zip(named, rows, strict=True)]
        by = asker[np.concatenate(rows)]
        is_common |= _distinct(np.concatenate(asked), by, size + 1) > most
    return np.logical_or.reduce([(names != MISSING) & is_common[names] for names in named])


class _Paths:
    """Finds the turns of conversations without an id, by their messages.

    A path's last digest is of the whole path, so that paths that end alike are equal.
    """

    def __init__(self, origins: Origins, without_id: Marks) -> None:
        self._origins = origins
        self._rows = rows = np.flatnonzero(without_id)
        count = len(origins.names)
        self._paths = paths = origins.path.take(rows)
        sizes = np.diff(paths.bounds)
        self._last = last = paths.codes[paths.bounds[1:] - 1]
        self._is_end = np.zeros(count, np.bool_)
        self._is_end[last] = True
        is_inner = np.zeros(count, np.bool_)
        is_inner[np.delete(paths.codes, paths.bounds[1:] - 1)] = True
        contexts = _distinct(last, origins.context[rows], count)
        self._conversations = np.zeros(count, np.int64)
        # A later turn continues an inner path and is counted instead.
        ends = np.flatnonzero(self._is_end & is_inner)
        self._conversations[ends] = np.maximum(0, contexts[ends] - MAX_CONVERSATIONS)
        _, first = np.unique(last, return_index=True)
        whole = first[~is_inner[last[first]]]
        codes = paths.take(whole).codes
        np.add.at(self._conversations, codes, np.repeat(contexts[last[whole]], sizes[whole]))
        requests, before = origins.request[rows], origins.answered_before[rows]
        self._answered, self._before = origins.answered[rows], before
        answered = _distinct(self._answered, requests, count)
        has_before = before != MISSING
        repeated = _distinct(before[has_before], requests[has_before], count)
        most = MAX_CONVERSATIONS
        self._is_rare = (repeated <= most) & (answered > 0) & (answered <= most)
        previous = paths.codes[np.maximum(paths.bounds[1:] - 2, 0)]
        # The preceding turn was not logged as a prefix of this one.
        self._is_cut = has_before & (sizes > 1) & ~self._is_end[previous]
        self._is_continued = np.zeros(count, np.bool_)
        self._is_continued[before[self._is_cut]] = True

    def conversations(self, is_common: Marks) -> tuple[TextCodes, list[Ints]]:
        """Return the conversation ties of all requests in columns, none for common ones.

        A row's first column is missing only if all are. The names are those of the origins and
        more.
        """
        is_rare = self._conversations[self._paths.codes] <= MAX_CONVERSATIONS
        places, owners = np.flatnonzero(is_rare), self._paths.rows[is_rare]
        first, last = (np.full(len(self._rows), MISSING) for _ in range(2))
        first[owners[::-1]] = self._paths.codes[places[::-1]]
        last[owners] = self._paths.codes[places]
        answered = np.where(
            self._is_continued[self._answered] & self._is_rare[self._answered],
            self._answered,
            MISSING,
        )
        before = np.where(self._is_cut & self._is_rare[self._before], self._before, MISSING)
        names = self._origins.names
        distinct = sorted_set(np.concatenate([answered, before]))
        distinct = distinct[distinct != MISSING]
        texts = names.take(distinct).to_pylist()
        named = names.extended(f"answered {text}" for text in texts)
        after = [
            np.where(codes == MISSING, MISSING, len(names) + np.searchsorted(distinct, codes))
            for codes in (answered, before)
        ]
        columns = [first, last, *after]
        lists = CodeLists.of(columns)
        return named, [self._of_all(lists.at(place), is_common) for place in range(len(columns))]

    def _of_all(self, codes: Ints, is_common: Marks) -> Ints:
        every = np.full(len(is_common), MISSING)
        every[self._rows] = codes
        return np.where(is_common, MISSING, every)
