"""What a workload's logged traffic was before a canary: how much, how bad, how slow."""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson

from components.chat import dialects
from components.chat.dialects import Dialect
from components.extensions.canary import answer_faults, conversation_arms, latency_limits
from components.extensions.canary.conversation_arms import DrawnConversation, RunningConversations
from components.extensions.canary.latency_limits import LatencyLimits
from components.schema import Answer, Call, Json
from components.serve import chat_request
from components.serve.body_fields import Obj
from components.serve.chat_request import ChatRequest
from components.serve.openai_error import OpenAiError
from components.serve.rollout_settings import BadKind

HOUR = 3600.0

FORM: Dialect = "hermes"  # any: the log has calls as objects, which are written and read again

FEWEST_OWN = 30  # answers of the champion that say more of its risks than others' answers do

IN_TIME = 0.98  # of the dislikes, which a canary's conversations are given time for
FEWEST_DISLIKES = 20  # that say how late people dislike an answer

SEED = bytes(conversation_arms.LEAST_SEED_BYTES)  # nobody's arm is drawn here


@dataclass(frozen=True, slots=True)
class LoggedAnswer:
    """An answer of the gateway as the warehouse has it."""

    answered_at: float
    """Unix seconds."""
    client_id: str
    conversation_id: str | None
    request: str
    """JSON."""
    response: str
    """JSON."""
    finish: str | None
    milliseconds: float | None
    disliked_after: float | None
    """Seconds until somebody first disliked it; ``None`` if nobody has."""
    is_champion: bool
    """Whether the version answered that is champion now."""


@dataclass(frozen=True, slots=True)
class TrafficAtHand:
    """What a canary may count on."""

    answers: int
    hours: float
    """The time over which they were given."""
    conversations_an_hour: float
    risks: Mapping[BadKind, float]
    """The share of the conversations with a bad event, by kind."""
    limits: LatencyLimits | None
    """``None`` if the champion gave too few answers."""
    dislike_seconds: float | None
    """How old a conversation is when nearly all of its dislikes have come; ``None`` if unknown."""


def measure(
    answers: Sequence[LoggedAnswer], now: float, labels: Sequence[str] = ()
) -> TrafficAtHand:
    """Measure traffic from answers; risks are the champion's once it has given enough.

    Args:
        answers: The newest, in any order.
        now: Unix seconds.
        labels: The only texts that may answer where no tools are offered; any if empty.
    """
    own = [answer for answer in answers if answer.is_champion]
    timed = [(_prompt_tokens(a), a.milliseconds) for a in own if a.milliseconds is not None]
    limits = latency_limits.freeze(timed) if len(timed) >= latency_limits.FEWEST else None
    hours = max(now - min((each.answered_at for each in answers), default=now), 60.0) / HOUR
    running, conversations = RunningConversations(), dict[int, str]()
    began, delays = dict[str, float](), list[float]()
    for answer in sorted(answers, key=lambda each: each.answered_at):
        conversation = running.assign(_conversations(answer), 1.0).conversation
        conversations[id(answer)] = conversation
        begin = began.setdefault(conversation, answer.answered_at)
        if answer.disliked_after is not None:
            delays.append(answer.answered_at + answer.disliked_after - begin)
    bad = defaultdict[str, set[BadKind]](set)
    for answer in own if len(own) >= FEWEST_OWN else answers:
        bad[conversations[id(answer)]] |= _faults(answer, limits, labels)
    counts = Counter[BadKind](kind for kinds in bad.values() for kind in kinds)
    risks: dict[BadKind, float] = {kind: number / len(bad) for kind, number in counts.items()}
    return TrafficAtHand(
        len(answers),
        hours,
        len({*conversations.values()}) / hours,
        risks,
        limits,
        dislike_seconds(delays),
    )


def dislike_seconds(delays: Sequence[float]) -> float | None:
    """Return after how many seconds ``IN_TIME`` of these dislikes had come; ``None`` if few."""
    if len(delays) < FEWEST_DISLIKES:
        return None
    return max(1.0, sorted(delays)[math.ceil(IN_TIME * len(delays)) - 1])


def _conversations(answer: LoggedAnswer) -> Sequence[DrawnConversation]:
    request = _object(answer.request)
    messages = request.get("messages")
    listed = [m for m in messages if isinstance(m, dict)] if isinstance(messages, list) else []
    if not listed:
        listed = [{"role": "user", "content": request.get("prompt")}]
    named = answer.conversation_id
    return conversation_arms.identify(SEED, answer.client_id, listed, named)


def _faults(
    answer: LoggedAnswer, limits: LatencyLimits | None, labels: Sequence[str]
) -> set[BadKind]:
    bad = set[BadKind]() if answer.disliked_after is None else set[BadKind]({"disliked"})
    if (request := _request(answer)) is not None:
        text = dialects.write_answer(FORM, _answer(answer.response))
        bad |= answer_faults.faults(request, FORM, text, answer.finish, labels)
    if limits is not None and answer.milliseconds is not None:
        slow = limits.is_slow(_prompt_tokens(answer), answer.milliseconds)
        bad |= {"slow"} if slow else set()
    return bad


def _request(answer: LoggedAnswer) -> ChatRequest | None:
    body = _object(answer.request)
    is_completion = "prompt" in body
    read = chat_request.read_completion if is_completion else chat_request.read_chat
    if is_completion:
        body.pop("messages", None)  # the log adds it
    try:
        return read(orjson.dumps(body))
    except OpenAiError:  # another version of the gateway took it
        return None


def _answer(response: str) -> Answer:
    match _object(response).get("choices"):
        case [{"message": dict(message)}, *_]:
            content, calls = message.get("content"), message.get("tool_calls")
        case [{"text": str(content)}, *_]:
            calls = None
        case _:
            return Answer()
    listed = calls if isinstance(calls, list) else []
    return Answer(
        content if isinstance(content, str) else "",
        tuple(made for call in listed if (made := _call(call)) is not None),
    )


def _call(raw: Json) -> Call | None:
    match raw:
        case {"function": {"name": str(name), "arguments": str(written)}}:
            return Call(name, _object(written))
        case _:
            return None


def _prompt_tokens(answer: LoggedAnswer) -> int:
    match _object(answer.response).get("usage"):
        case {"prompt_tokens": int(tokens)}:
            return tokens
        case _:
            return 0


def _object(text: str) -> Obj:
    try:
        value: Json = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
