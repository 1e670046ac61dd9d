"""Write the demo's logs and feedback: real requests, simulated answers and users."""

import gzip
import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Literal

from components.chat import prompt
from components.curate import split
from components.schema import Answer, Call, Json
from components.store import manifest
from flows.demo import wheels
from flows.demo.wheels import BfclRequest

ACTORS = [f"simulated-user-{number}" for number in range(1, 13)]
NO_TOOL = Answer("No tool fits this request.")
SPOILED, PRAISED, CORRECTED = 0.12, 0.15, 0.8  # of answers, of right ones, of spoiled ones

SEED = 0  # the seed of all earlier versions

LONGEST_ANSWER = 150  # in bytes, as rendered

RUN_LENGTH = 3  # requests that share half of their runs of so many words are alike

WORKLOAD = "tool-calls"
CLIENTS = ("demo-web", "demo-mobile")

# The first request came on 2026-01-05 at 08:00 UTC, then one every 331 seconds.
START, STEP, DAY = 1_767_600_000, 331, 86_400

# The workload file's ``holdout_share``: this share of all sets of tools is held out. Most of their
# requests were in earlier demos and are left out.
HOLDOUT_SHARE = 0.5

MAX_PROMPT = 1_200  # bytes as rendered: mostly up to 384 tokens of the prompt and 58 of the answer

MAX_ALIKE = 4  # requests with the same tools that need a call, and as many that need no call

RETRIED = 0.02  # share of requests that the application sent twice

WordRun = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reaction:
    """A simulated user's reaction to an answer; ``correction`` is the answer they wanted."""

    actor: str
    thumb: Literal["up", "down"]
    correction: Answer | None = None


def right_answer(request: BfclRequest) -> Answer:
    """Return the reference: its call, or the text that no tool fits."""
    return Answer(calls=(request.call,)) if request.call else NO_TOOL


def draw_answer(request: BfclRequest, draw: Random) -> tuple[Answer, Reaction | None]:
    """Draw the application's answer and a user's reaction to it."""
    right = right_answer(request)
    if draw.random() >= SPOILED:
        praised = draw.random() < PRAISED
        return right, Reaction(draw.choice(ACTORS), "up") if praised else None
    correction = right if draw.random() < CORRECTED else None
    return spoil_answer(request, draw), Reaction(draw.choice(ACTORS), "down", correction)


def spoil_answer(request: BfclRequest, draw: Random) -> Answer:
    """Return a wrong answer: a needless call, another tool, or a wrong value of an argument."""
    if request.call is None:
        return Answer(calls=(Call(draw.choice(request.tool_names), {}),))
    others = [name for name in request.tool_names if name != request.call.name]
    if others and (draw.random() < 0.5 or not request.call.arguments):
        return Answer(calls=(replace(request.call, name=draw.choice(others)),))
    if not request.call.arguments:
        return NO_TOOL
    name = draw.choice(sorted(request.call.arguments))
    wrong = {**request.call.arguments, name: _other_value(request.call.arguments[name])}
    return Answer(calls=(replace(request.call, arguments=wrong),))


def _other_value(value: Json) -> Json:
    # A wrong value of the same type, where there is one.
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return f"{value} (unknown)"
        case _:
            return None


@dataclass(frozen=True, slots=True)
class DrawLimits:
    """The limits of a version: bytes of a prompt, requests with equal tools, and requests in all.

    ``kinds`` limits calls of the only tool and of one of several, refusals of the only tool and of
    several. From the tool sets that a holdout of ``unseen_share`` draws, a version took only
    requests that had nothing in common with those before, not even a tool.
    """

    longest_prompt: int
    alike: int
    count: int | None = None
    kinds: tuple[int, int, int, int] | None = None
    unseen_share: float = 0


DRAWS = (
    DrawLimits(longest_prompt=640, alike=2, kinds=(150, 160, 110, 60)),
    DrawLimits(longest_prompt=700, alike=4, kinds=(160, 300, 200, 82)),
    DrawLimits(longest_prompt=700, alike=4, count=760),  # later ones took fewer of the same
    DrawLimits(longest_prompt=700, alike=4, unseen_share=0.5),
)


@dataclass
class EarlierRequests:
    """The requests of earlier versions, by id, words and tools."""

    ids: set[str] = field(default_factory=set[str])
    words: set[str] = field(default_factory=set[str])
    tools: set[str] = field(default_factory=set[str])
    _having: defaultdict[WordRun, set[str]] = field(default_factory=lambda: defaultdict(set))

    def add(self, request: BfclRequest) -> None:
        """Note a request as used."""
        self.ids.add(request.id)
        self.words.add(said_words(request))
        self.tools.update(request.tool_names)
        for run in _runs(request):
            self._having[run].add(request.id)

    def has_said(self, request: BfclRequest) -> bool:
        """Return whether a used request has at least half of a request's runs of three words."""
        runs = _runs(request)
        shared = Counter(used for run in runs for used in self._having.get(run, ()))
        return max(shared.values(), default=0) * 2 >= len(runs)

    def has_anything_of(self, request: BfclRequest) -> bool:
        """Return whether a request, its words or one of its tools was used."""
        is_used = request.id in self.ids or said_words(request) in self.words
        return is_used or not self.tools.isdisjoint(request.tool_names)


def read_earlier(requests: Iterable[BfclRequest]) -> EarlierRequests:
    """Repeat the draws of the earlier versions."""
    ordered, used = in_order(requests, SEED), EarlierRequests()
    for limits in DRAWS:
        for request in _draw_again(ordered, limits, used):
            used.add(request)
    return used


def is_held_out(request: BfclRequest, share: float) -> bool:
    """Return whether curation, split by tools, holds out a request's tools."""
    name = split.group("tools", request.tool_names, opening="", user_id=None)
    return split.side(split.side_by_hash(name), share, validation_share=0) == "holdout"


def in_order(requests: Iterable[BfclRequest], seed: int) -> list[BfclRequest]:
    """Order requests by the hash of their ids."""
    return sorted(requests, key=lambda request: manifest.digest([seed, request.id]))


def said_words(request: BfclRequest) -> str:
    """Return the text of a request, in lower case and with single blanks."""
    text = " ".join(str(message["content"]) for message in request.messages)
    return " ".join(text.lower().split())


def is_short(
    request: BfclRequest, longest_prompt: int, longest_answer: int = LONGEST_ANSWER
) -> bool:
    """Return whether prompt and right answer, as rendered, are within these limits of bytes."""
    rendered = prompt.render_prompt(request.messages, request.tools)
    answer = prompt.render_answer(right_answer(request))
    prompt_bytes = sum(len(message["content"].encode()) for message in rendered)
    return prompt_bytes <= longest_prompt and len(answer.encode()) <= longest_answer


def _runs(request: BfclRequest) -> set[WordRun]:
    words = said_words(request).split()
    starts = range(max(1, len(words) - RUN_LENGTH + 1))
    return {tuple(words[start : start + RUN_LENGTH]) for start in starts}


def _draw_again(
    ordered: Iterable[BfclRequest], limits: DrawLimits, before: EarlierRequests
) -> list[BfclRequest]:
    taken: list[BfclRequest] = []
    alike: Counter[tuple[str, ...]] = Counter()
    kinds: Counter[int] = Counter()
    for request in ordered:
        kind = (0 if request.call else 2) + (len(request.tools) > 1)
        group_kind = kind if limits.kinds else (0 if request.call else 2)
        group = (str(group_kind), *request.tool_names)
        is_full = limits.count is not None and len(taken) >= limits.count
        is_full |= limits.kinds is not None and kinds[kind] >= limits.kinds[kind]
        if is_full or alike[group] >= limits.alike or not is_short(request, limits.longest_prompt):
            continue
        alike[group] += 1
        kinds[kind] += 1
        if not (is_held_out(request, limits.unseen_share) and before.has_anything_of(request)):
            taken.append(request)
    return taken


def write_traffic(wheel: Path, folder: Path, seed: int = 0) -> None:
    """Write ``logs/*.jsonl.gz``, one a day, and ``feedback/*.jsonl`` under ``folder``.

    The folder of the logs appears last, and complete.

    Args:
        wheel: The wheel of bfcl-eval.
        folder: The parent of both folders.
        seed: Seeds the requests, the spoiled answers and the reactions.
    """
    draw = Random(seed)
    interactions: list[dict[str, Json]] = []
    feedback: list[dict[str, Json]] = []
    for request in choose_requests(wheels.read_requests(wheel), seed):
        for _ in range(2 if draw.random() < RETRIED else 1):
            answer, reaction = draw_answer(request, draw)
            logged = log_line(request, answer, len(interactions))
            interactions.append(logged)
            feedback.extend(feedback_lines(logged, reaction) if reaction else [])
    _write_lines(folder / "feedback" / "simulated.jsonl", feedback)
    _write_days(folder / "logs", interactions)


def choose_requests(requests: Sequence[BfclRequest], seed: int) -> list[BfclRequest]:
    """Choose short and diverse requests, in the order of the hash of their ids.

    Those that will be held out are like none of an earlier version.
    """
    chosen: list[BfclRequest] = []
    alike: Counter[tuple[str, ...]] = Counter()
    used = read_earlier(requests)
    for request in in_order(requests, seed):
        group = ("call" if request.call else "none", *request.tool_names)
        is_out = is_held_out(request, HOLDOUT_SHARE) and used.has_said(request)
        if is_out or alike[group] == MAX_ALIKE or not is_short(request, MAX_PROMPT):
            continue
        alike[group] += 1
        chosen.append(request)
    return chosen


def log_line(request: BfclRequest, answer: Answer, number: int) -> dict[str, Json]:
    """Return the ``number``-th line of a log."""
    client = CLIENTS[number % len(CLIENTS)]
    calls: list[Json] = [
        {
            "id": f"call_{place}",
            "type": "function",
            "function": {"name": call.name, "arguments": _written_call(call.arguments, client)},
        }
        for place, call in enumerate(answer.calls)
    ]
    choice: Json = {
        "index": 0,
        "message": _message(answer, calls),
        "finish_reason": "tool_calls" if calls else "stop",
    }
    line: dict[str, Json] = {
        "timestamp": START + STEP * number,
        "workload_id": WORKLOAD,
        "client_id": client,
        "request": {
            "model": "production",
            "messages": [*request.messages],
            "tools": [*request.tools],
        },
        "response": {"id": f"chatcmpl-{number:06}", "model": "production", "choices": [choice]},
    }
    # BFCL has a reference for every request, also where no call is right.
    right: list[Json] = [asdict(request.acceptable)] if request.acceptable else []
    line["metadata"] = {"acceptable": right}
    return line


def feedback_lines(logged: dict[str, Json], reaction: Reaction) -> list[dict[str, Json]]:
    """Return a user's feedback lines on an answer, a minute after it."""
    response, moment = logged["response"], logged["timestamp"]
    assert isinstance(response, dict)
    assert isinstance(moment, int)
    common: dict[str, Json] = {
        "timestamp": moment + 60,
        "workload_id": WORKLOAD,
        "client_id": logged["client_id"],
        "response_id": response["id"],
        "actor_id": reaction.actor,
    }
    lines: list[dict[str, Json]] = [{**common, "kind": "thumb", "value": reaction.thumb}]
    if reaction.correction:
        calls: list[Json] = [
            {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in reaction.correction.calls
        ]
        value: Json = _message(reaction.correction, calls)
        lines.append({**common, "kind": "correction", "value": value})
    return lines


def _written_call(arguments: dict[str, Json], client: str) -> Json:
    # One client logs the arguments' text, the other the object.
    return json.dumps(arguments, ensure_ascii=False) if client == CLIENTS[0] else arguments


def _message(answer: Answer, calls: list[Json]) -> dict[str, Json]:
    message: dict[str, Json] = {"role": "assistant", "content": answer.text or None}
    return {**message, "tool_calls": calls} if calls else message


def _write_days(folder: Path, interactions: list[dict[str, Json]]) -> None:
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for first in range(0, len(interactions), DAY // STEP):
        day = first // (DAY // STEP) + 1
        path = partial / f"day-{day}.jsonl.gz"
        _write_lines(path, interactions[first : first + DAY // STEP])
    partial.replace(folder)


def _write_lines(path: Path, lines: Iterable[dict[str, Json]]) -> None:
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)
