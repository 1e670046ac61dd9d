"""Profile a workload's logged interactions: what the answers are, languages, lengths, tools."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from components.chat import prompt
from components.chat.token_counts import FILE
from components.curate.rules import language
from components.evaluate import answer_space, json_answers
from components.evaluate.task_metrics import AnswerSpace
from components.schema import Answer, Json

BYTES_A_TOKEN = 4  # in UTF-8, without a tokenizer: about 4 letters or one Chinese character


@dataclass(frozen=True, slots=True)
class TextLengths:
    """Lengths of a sample of texts."""

    median: int
    high: int  # nineteen of twenty are no longer
    longest: int


@dataclass(frozen=True, slots=True)
class LogProfile:
    """Figures of a sample of a workload's interactions.

    ``languages`` counts the requests whose language is clear. ``offered`` requests offer tools,
    ``calling`` answers call one, ``asked_json`` requests have a ``response_format`` of JSON.
    ``tool_lists`` counts the different sets of tools, ``most_offered`` the requests that offer the
    most frequent tool, ``conversations`` the different first messages, ``most_frequent`` the most
    frequent answer.
    """

    sampled: int
    unreadable: int
    answers: AnswerSpace
    most_frequent: int
    languages: Mapping[str, int]
    offered: int
    calling: int
    asked_json: int
    tool_lists: int
    most_offered: int
    conversations: int
    users: int
    prompt_characters: TextLengths
    answer_tokens: TextLengths
    total_tokens: TextLengths


@dataclass(frozen=True, slots=True)
class _Exchange:
    prompt: str
    answer: Answer
    tools: frozenset[str]
    asks_for_json: bool
    opening: str
    user: str | None
    language: str | None


def profile_logs(records: Iterable[dict[str, Json]], base: Path | None) -> LogProfile | None:
    """Profile canonical records; ``None`` if none of them can be read.

    Args:
        records: A sample of them.
        base: Tokens are counted with this base's tokenizer, estimated without one.
    """
    exchanges: list[_Exchange] = []
    unreadable = 0
    for record in records:
        try:
            exchanges.append(_exchange(record))
        except (ValueError, LookupError, TypeError, AttributeError):
            unreadable += 1
    if not exchanges:
        return None
    answers = [exchange.answer for exchange in exchanges]
    tool_sets = [exchange.tools for exchange in exchanges if exchange.tools]
    offers = Counter(tool for tools in tool_sets for tool in tools)
    asked_json = sum(exchange.asks_for_json for exchange in exchanges)
    space = answer_space.find_answer_space(
        answers,
        None,
        offers_tools=bool(tool_sets),
        asks_for_json=asked_json >= answer_space.FEWEST_JSON * len(exchanges),
    )
    write = json_answers.canonical if space.kind == "json" else str.strip
    texts = Counter(write(answer.text) for answer in answers)
    asked = _count(base, [exchange.prompt for exchange in exchanges])
    answered = _count(base, [prompt.render_answer(answer) for answer in answers])
    return LogProfile(
        sampled=len(exchanges),
        unreadable=unreadable,
        answers=space,
        most_frequent=max(texts.values()),
        languages=Counter(exchange.language for exchange in exchanges if exchange.language),
        offered=len(tool_sets),
        calling=sum(bool(answer.calls) for answer in answers),
        asked_json=asked_json,
        tool_lists=len(set(tool_sets)),
        most_offered=max(offers.values(), default=0),
        conversations=len({exchange.opening for exchange in exchanges}),
        users=len({exchange.user for exchange in exchanges if exchange.user}),
        prompt_characters=_lengths([len(exchange.prompt) for exchange in exchanges]),
        answer_tokens=_lengths(answered),
        total_tokens=_lengths([sum(pair) for pair in zip(asked, answered, strict=True)]),
    )


def _exchange(record: dict[str, Json]) -> _Exchange:
    match record:
        case {
            "request": {"messages": list(messages), **request},
            "response": {"choices": [{"message": dict(message)}, *_]},
        }:
            tools, form = request.get("tools"), request.get("response_format")
        case _:
            raise ValueError("the record is not a chat completion")
    turns = [message for message in messages if isinstance(message, dict)]
    offered = [tool for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
    rendered = prompt.render_prompt(turns, offered)
    questions = [prompt.text_of(turn) for turn in turns if turn.get("role") == "user"]
    user = record.get("user_id")
    return _Exchange(
        prompt="\n".join(turn["content"] for turn in rendered),
        answer=prompt.read_message(message),
        tools=frozenset(map(_tool_name, offered)),
        asks_for_json=isinstance(form, dict) and form.get("type") in ("json_object", "json_schema"),
        opening=questions[0] if questions else "",
        user=user if isinstance(user, str) else None,
        language=language.request_languages([questions])[0],
    )


def _tool_name(tool: dict[str, Json]) -> str:
    match tool:
        case {"function": {"name": str(name)}}:
            return name
        case _:
            raise ValueError("a tool has no name")


def _count(base: Path | None, texts: Sequence[str]) -> list[int]:
    if base is None or not (base / FILE).is_file():
        return [-(-len(text.encode("utf-8", "replace")) // BYTES_A_TOKEN) for text in texts]
    encoder = Tokenizer.from_file(str(base / FILE))
    encoder.no_truncation()
    encoder.no_padding()
    clean = [text.encode("utf-8", "replace").decode() for text in texts]
    encodings = encoder.encode_batch_fast(clean, add_special_tokens=False)
    return [len(encoding.ids) for encoding in encodings]


def _lengths(lengths: Sequence[int]) -> TextLengths:
    ordered = sorted(lengths)
    last = len(ordered) - 1
    return TextLengths(ordered[last // 2], ordered[round(0.95 * last)], ordered[last])
