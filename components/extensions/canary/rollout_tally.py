"""Count conversations and, at most one of each kind in each, their bad events, line by line.

A conversation that was forgotten is drawn again under another share. From then on its events don't
count, whether it changed arms or not. If only those that changed were left out, these would be the
champion's alone, and if their earlier events were taken back, evidence that was looked at already
would change.
"""

import heapq
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from components.extensions.canary.count_evidence import ArmCounts, RolloutCounts, ShareCounts
from components.extensions.canary.rollout_evidence import (
    AnswerLine,
    DislikeLine,
    EvidenceLine,
    PairLine,
)
from components.serve.rollout import Arm
from components.serve.rollout_settings import BadKind

MAX_CONVERSATIONS = 1_000_000
"""Conversations that count, some 250 bytes each; those that begin later are left out."""

MAX_ANSWERS = 300_000
"""The newest answers, to which late feedback counts; some 150 bytes each."""

MAX_EARLY = 10_000
"""The newest feedback to answers that are not known yet: of gateways that share a store, one may
send it before another has sent the answer."""

SHADOW_SHARE = 0.5
"""Where only one of two answers is bad, it is either's with the same chance if they are alike."""


LEAST = 2
"""Bad conversations of a kind that count of any client or user, however few there are of all."""

USER_PART = 0.1
"""The largest part of a kind's bad conversations that are one user's, beyond ``LEAST``: a user who
dislikes everything would hide what others dislike of one arm."""

CLIENT_PART = 3.0
"""How many times a client's part of a kind's bad conversations may be its part of all
conversations, beyond ``LEAST``: one with a few can't decide alone."""


@dataclass(slots=True)
class _Conversation:
    began: float
    share: float
    arm: Arm
    asker: tuple[str, ...] = ()
    is_left: bool = False


class RolloutTally:
    """The counts of one canary; a function of its lines in the order of the file."""

    def __init__(
        self,
        windows: Mapping[BadKind, float] = MappingProxyType({}),
        *,
        most_conversations: int = MAX_CONVERSATIONS,
        most_answers: int = MAX_ANSWERS,
        most_early: int = MAX_EARLY,
    ) -> None:
        self._windows, self._room = windows, most_conversations
        self._most_answers, self._most_early = most_answers, most_early
        self._conversations = dict[str, _Conversation]()
        self._answers = OrderedDict[str, str]()  # conversations by the ids of counted answers
        self._early = OrderedDict[str, float]()  # when an unknown answer was disliked, by its id
        self._began = Counter[tuple[float, Arm]]()
        self._has_bad = defaultdict[BadKind, set[str]](set)  # conversations
        self._asked = Counter[str]()  # conversations by client
        self._bad_by = Counter[tuple[BadKind, str]]()  # conversations by client and by user
        self._bad = defaultdict[BadKind, Counter[tuple[float, Arm]]](Counter)
        self._due = defaultdict[BadKind, list[tuple[float, float, Arm]]](list)  # heaps, by the time
        self._late = defaultdict[BadKind, Counter[Arm]](Counter)
        self._left = 0
        self.answers = 0
        """Answers, and failures to answer."""
        self._pairs = defaultdict[BadKind, dict[str, Arm]](dict)
        self.shadowed = 0
        """Requests that both versions answered."""

    def add(self, line: EvidenceLine) -> None:
        """Count a line."""
        match line:
            case AnswerLine():
                self._add_answer(line)
            case DislikeLine():
                self._add_dislike(line)
            case PairLine():
                self._add_pair(line)
            case _:
                pass

    def counts(self, now: float) -> RolloutCounts:
        """Return the counts so many seconds after the start, no earlier than the last call's."""
        for kind, due in self._due.items():
            while due and due[0][0] <= now:
                self._bad[kind][heapq.heappop(due)[1:]] += 1
        return RolloutCounts(
            _by_share(self._began),
            {kind: _by_share(number) for kind, number in self._bad.items()},
            {kind: ArmCounts(n["canary"], n["champion"]) for kind, n in self._late.items()},
            self._left,
        )

    def shadow_counts(self) -> RolloutCounts:
        """Return the shadow's counts: conversations in which only one of two answers was bad.

        The first such pair of a conversation counts, since its requests resemble each other.
        """
        bad = dict[BadKind, ShareCounts]()
        for kind, arms in sorted(self._pairs.items()):
            number = Counter(arms.values())
            bad[kind] = {SHADOW_SHARE: ArmCounts(number["canary"], number["champion"])}
        return RolloutCounts({}, bad)

    def _add_answer(self, line: AnswerLine) -> None:
        self.answers += not line.asker  # else it is a draw
        known = self._conversations.get(line.conversation)
        if known is None:
            if len(self._conversations) >= self._room:
                self._left += 1
                return
            known = _Conversation(line.elapsed, line.share, line.arm, line.asker)
            self._asked.update(line.asker[:1])
            self._conversations[line.conversation] = known
            self._began[line.share, line.arm] += 1
        if (line.share, line.arm) != (known.share, known.arm):
            self._left += not known.is_left
            known.is_left = True
            return
        for kind in line.kinds:
            self._add_bad(kind, line.conversation, line.elapsed)
        if line.answer_id is not None:
            self._answers[line.answer_id] = line.conversation
            if len(self._answers) > self._most_answers:
                self._answers.popitem(last=False)
            if (at := self._early.pop(line.answer_id, None)) is not None:
                self._add_bad("disliked", line.conversation, at)

    def _add_dislike(self, line: DislikeLine) -> None:
        conversation = self._answers.get(line.answer_id)
        if conversation is not None:
            self._add_bad("disliked", conversation, line.elapsed)
            return
        self._early.setdefault(line.answer_id, line.elapsed)
        if len(self._early) > self._most_early:
            self._early.popitem(last=False)

    def _add_bad(self, kind: BadKind, name: str, at: float) -> None:
        """Count an event, unless its client or user has too many of the kind's already.

        That depends on earlier events of both arms alike, so the evidence stays a martingale.
        """
        events, conversation = self._has_bad[kind], self._conversations[name]
        if name in events:
            return
        for place, asker in enumerate(conversation.asker):
            part = USER_PART if place else CLIENT_PART * self._asked[asker] / self._asked.total()
            if self._bad_by[kind, asker] >= max(LEAST, part * (len(events) + 1)):
                return
        events.add(name)
        self._bad_by.update((kind, asker) for asker in conversation.asker)
        window = self._windows.get(kind)
        if window is None:
            self._bad[kind][conversation.share, conversation.arm] += 1
        elif at > (due := conversation.began + window):
            self._late[kind][conversation.arm] += 1
        else:
            heapq.heappush(self._due[kind], (due, conversation.share, conversation.arm))

    def _add_pair(self, line: PairLine) -> None:
        self.shadowed += 1
        for kind in line.canary ^ line.champion:
            if len(self._pairs[kind]) < self._room:
                arm: Arm = "canary" if kind in line.canary else "champion"
                self._pairs[kind].setdefault(line.conversation, arm)


def _by_share(number: Counter[tuple[float, Arm]]) -> ShareCounts:
    return {
        share: ArmCounts(number[share, "canary"], number[share, "champion"])
        for share in sorted({share for share, _ in number})
    }
