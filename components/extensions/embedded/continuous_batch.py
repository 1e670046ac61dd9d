"""The continuous batch: requests join and leave between steps, each with its own adapter.

A step computes the next token of every running answer and, in what room is left, parts of prompts.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import torch  # noqa: TID253 - the engine is a process of its own

from components.extensions.embedded.answer_text import AnswerText
from components.extensions.embedded.attached_lora import AttachedLora
from components.extensions.embedded.prefix_store import BASE, PrefixStore
from components.extensions.embedded.sampling import (
    Sampler,
    SamplingSettings,
    ScoredToken,
    penalize,
    score,
)
from components.extensions.embedded.shared_base import SharedBase
from components.extensions.embedded.slot_memory import PromptPart, StepLayout
from components.models import constrained
from components.models.constrained import Matcher
from components.models.prefix_tree import common_prefix

BUSY_ROOM = 32
"""Prompt tokens in a step beside running answers: their next tokens wait for these."""

IDLE_ROOM = 256  # prompt tokens in a step without running answers

WORTH_WAITING = 16
"""A prompt waits a step for another one that is being read if they share this many tokens more than
are stored now."""

KEPT = 1 / 4
"""What there is besides, as a share of slots and of memory, for clients that have nothing running:
an answer of another client may take minutes."""

MAX_CLIENTS = 1000  # with more of them, it is forgotten whose turn it was

NOT_FINITE = "computing a token: the logits are not finite; are the adapter's weights too large?"

Finish: TypeAlias = Literal["stop", "length", "error"]


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """What to generate; ``ends`` are the tokens that end the answer.

    ``logprobs`` and ``prompt_logprobs`` are how many of the most probable tokens to report at each
    position of the answer and of the prompt; ``None`` is no log-probabilities at all. A prompt that
    is scored is read whole, without stored prefixes.
    """

    prompt: tuple[int, ...]
    max_tokens: int
    ends: frozenset[int] = frozenset()
    stops: tuple[str, ...] = ()
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    shows_special_tokens: bool = False


@dataclass(frozen=True, slots=True)
class GeneratedPart:
    """What a step added to an answer; the last part has ``finish``.

    ``prompt`` comes once, before the first token, if the prompt is scored: an entry per token but
    the first. ``problem`` says why an answer ended with ``error``.
    """

    text: str = ""
    tokens: tuple[int, ...] = ()
    scores: tuple[ScoredToken, ...] = ()
    prompt: tuple[ScoredToken, ...] = ()
    finish: Finish | None = None
    problem: str = ""


@dataclass(slots=True, eq=False)
class RunningAnswer:
    """A request on its way; ``deliver`` is called with its parts, by the thread that computes."""

    request: AnswerRequest
    adapter: AttachedLora | None
    matcher: Matcher | None
    deliver: Callable[[GeneratedPart], None]
    text: AnswerText
    sampler: Sampler
    client: str = ""
    slot: int = -1
    read: int = 0  # tokens of the prompt whose keys and values are in the slot
    tokens: list[int] = field(default_factory=list)
    prompt_scores: list[ScoredToken] = field(default_factory=list)
    is_cancelled: bool = False

    @property
    def key(self) -> str:
        """The key of its stored prefixes."""
        return BASE if self.adapter is None else self.adapter.key

    @property
    def reserved(self) -> int:
        """The most tokens that its slot may come to hold."""
        return len(self.request.prompt) + self.request.max_tokens

    @property
    def is_reading(self) -> bool:
        """Whether a part of its prompt is still to be read."""
        return self.read < len(self.request.prompt)

    @property
    def end(self) -> int:
        """The number of tokens in its slot."""
        return self.read + max(0, len(self.tokens) - 1)


@dataclass(slots=True)
class BatchCounts:
    """Totals since the start."""

    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    answer_tokens: int = 0
    answers: int = 0
    steps: int = 0


def kept_places(slots: int) -> int:
    """Return how many slots there are besides, for clients that have nothing running."""
    return max(1, int(KEPT * slots))


class ContinuousBatch:
    """The answers of one base. Only the thread that computes calls it."""

    def __init__(
        self, base: SharedBase, *, slots: int, stored_bytes: int, running_bytes: int
    ) -> None:
        """Make an empty batch.

        Args:
            base: Its memory has ``slots`` slots, and ``kept_places(slots)``.
            slots: The most requests at once, but for those in kept places.
            stored_bytes: The most memory for prefixes of earlier requests.
            running_bytes: The most memory that running requests may come to need for keys and
                values, and ``KEPT`` of it more with those of clients that had nothing running; a
                request that needs more runs alone.
        """
        self.base, self.store, self.counts = base, PrefixStore(stored_bytes), BatchCounts()
        self.waiting: list[RunningAnswer] = []
        self.running: list[RunningAnswer] = []
        self._kept = kept_places(slots)
        self._free = list(range(slots + self._kept))
        self._room = running_bytes // base.memory.token_bytes
        self._turns: dict[str, int] = {}  # when a client's request last took a slot
        self._admitted = 0

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self.waiting or self.running)

    def add(self, answer: RunningAnswer) -> None:
        """Let a request wait for a slot."""
        self.waiting.append(answer)

    def forget(self, adapter: AttachedLora, *, is_shared: bool) -> None:
        """Erase an adapter's stored prefixes, unless another one has its files.

        Its open requests leave none: the other one may be gone before they end.
        """
        adapter.is_forgotten = True
        if not is_shared:
            self.store.drop(adapter.key)

    @torch.inference_mode()
    def step(self) -> None:
        """Compute the next tokens, and deliver them."""
        self._remove_cancelled()
        self._admit()
        layout_rows = self._compose()
        if layout_rows is not None:
            self._compute(*layout_rows)
            self.counts.steps += 1

    @torch.inference_mode()
    def fail(self, problem: str) -> None:
        """End the requests in slots with an error; those that wait take their places."""
        failed, self.running = self.running, []
        for answer in failed:
            answer.deliver(GeneratedPart(finish="error", problem=problem))
            self._release(answer, answer.reserved)  # the step may have written part of its tokens

    def _remove_cancelled(self) -> None:
        self.waiting = [answer for answer in self.waiting if not answer.is_cancelled]
        for answer in [answer for answer in self.running if answer.is_cancelled]:
            self._leave(answer)

    def _admit(self) -> None:
        reserved = sum(answer.reserved for answer in self.running)
        held = Counter(answer.client for answer in self.running)
        while self.waiting and self._free:
            # The client with the least running is next, then the one that waited for longest.
            answer = min(self.waiting, key=lambda a: (held[a.client], self._turns.get(a.client, 0)))
            free, room = len(self._free), self._room
            if held[answer.client]:
                free -= self._kept
            else:
                room += int(KEPT * room)
            if free <= 0 or (self.running and reserved + answer.reserved > room):
                return
            self.waiting.remove(answer)
            answer.slot = self._free.pop(0)
            reserved += answer.reserved
            held[answer.client] += 1
            self._note_turn(answer.client)
            self.running.append(answer)

    def _note_turn(self, client: str) -> None:
        if len(self._turns) >= MAX_CLIENTS:
            self._turns.clear()
        self._admitted += 1
        self._turns[client] = self._admitted

    def _compose(self) -> "tuple[list[RunningAnswer], list[tuple[RunningAnswer, int]]] | None":
        # the answers to continue, and the prompts to read a part of, with its number of tokens
        decoding = sorted((a for a in self.running if not a.is_reading), key=_place)
        parts = self._parts(BUSY_ROOM if decoding else IDLE_ROOM)
        return (decoding, parts) if decoding or parts else None

    def _parts(self, room: int) -> "list[tuple[RunningAnswer, int]]":
        reading = [answer for answer in self.running if answer.is_reading]
        parts: list[tuple[RunningAnswer, int]] = []
        # The oldest gets half of the room at least, so that short prompts don't keep it waiting;
        # then the shortest, so that it doesn't keep them waiting for long.
        oldest = reading[:1]
        for answer in [*oldest, *sorted(reading[1:], key=lambda a: len(a.request.prompt) - a.read)]:
            if room <= 0:
                break
            if self._should_wait(answer, [part for part, _ in parts]):
                continue
            most = room
            if answer in oldest and len(reading) > 1:
                most = max(1, room // 2)
            count = min(most, len(answer.request.prompt) - answer.read)
            parts.append((answer, count))
            room -= count
        return sorted(parts, key=lambda part: _place(part[0]))

    def _should_wait(self, answer: RunningAnswer, reading: Sequence[RunningAnswer]) -> bool:
        """Read stored prefixes before its first part; return whether more will be stored soon."""
        if answer.read or answer.request.prompt_logprobs is not None:
            return False
        prompt = answer.request.prompt
        # All but the last token: its logits are needed.
        stored = list(self.store.find(answer.key, prompt[:-1]))
        known = sum(part.shape[2] for part in stored)
        soon = max(
            (
                common_prefix(prompt[:-1], other.request.prompt)
                for other in reading
                if other.key == answer.key
            ),
            default=0,
        )
        if soon >= known + WORTH_WAITING:
            return True
        for part in stored:
            self.base.memory.put(answer.slot, answer.read, part)
            answer.read += part.shape[2]
        self.counts.cached_prompt_tokens += answer.read
        return False

    def _compute(
        self, decoding: list[RunningAnswer], parts: "list[tuple[RunningAnswer, int]]"
    ) -> None:
        tokens = [answer.tokens[-1] for answer in decoding]
        adapters = [answer.adapter for answer in decoding]
        scored = list(range(len(decoding)))
        prompts: list[PromptPart] = []
        for answer, count in parts:
            start, read = len(tokens), answer.read
            prompts.append(PromptPart(answer.slot, read, start, start + count))
            tokens += answer.request.prompt[read : read + count]
            adapters += [answer.adapter] * count
            if answer.request.prompt_logprobs is not None:
                scored += range(start, start + count)
            elif read + count == len(answer.request.prompt):
                scored.append(start + count - 1)
        layout = StepLayout([(answer.slot, answer.end) for answer in decoding], prompts)
        logits = self.base.compute(tokens, layout, adapters, scored)
        ready = list(decoding)
        rows = list(range(len(decoding)))
        row = len(decoding)
        for answer, count in parts:
            self._count_read(answer, count)
            if answer.request.prompt_logprobs is not None:
                self._score_prompt(answer, count, logits[row : row + count])
                row += count
            elif not answer.is_reading:
                row += 1
            if not answer.is_reading:
                rows.append(row - 1)
                ready.append(answer)
        self._choose(ready, logits if rows == list(range(len(logits))) else logits[rows])

    def _count_read(self, answer: RunningAnswer, count: int) -> None:
        answer.read += count
        self.counts.prompt_tokens += count
        if not answer.is_reading:
            self._remember(answer)

    def _score_prompt(self, answer: RunningAnswer, count: int, logits: torch.Tensor) -> None:
        prompt = answer.request.prompt
        following = prompt[answer.read - count + 1 : answer.read + 1]
        if following:
            top = answer.request.prompt_logprobs or 0
            answer.prompt_scores += score(logits[: len(following)], following, top)

    def _choose(self, answers: list[RunningAnswer], logits: torch.Tensor) -> None:
        largest, indices = logits.max(-1)  # NaN if any is
        best: list[int] = indices.tolist()
        for row, (answer, is_finite) in enumerate(
            zip(answers, largest.isfinite().tolist(), strict=True)
        ):
            if not is_finite:
                self._finish(answer, GeneratedPart(problem=NOT_FINITE), "error")
                continue
            if answer.request.max_tokens == 0:
                self._finish(answer, GeneratedPart(prompt=tuple(answer.prompt_scores)), "length")
                continue
            token = _next_token(answer, logits[row], best[row])
            if answer.matcher is not None and answer.matcher.problem is not None:
                self._finish(answer, GeneratedPart(problem=answer.matcher.problem), "error")
                continue
            self._add(answer, token, logits[row])

    def _add(self, answer: RunningAnswer, token: int, logits: torch.Tensor) -> None:
        request = answer.request
        is_first = not answer.tokens
        answer.tokens.append(token)
        self.counts.answer_tokens += 1
        scores = (
            ()
            if request.logprobs is None
            else tuple(score(logits[None], [token], request.logprobs))
        )
        is_end = token in request.ends
        text = "" if is_end else answer.text.add(token)
        part = GeneratedPart(
            text, (token,), scores, tuple(answer.prompt_scores) if is_first else ()
        )
        if is_end or answer.text.is_stopped or (answer.matcher and answer.matcher.is_over):
            self._finish(answer, part, "stop")
        elif len(answer.tokens) >= request.max_tokens:
            self._finish(answer, part, "length")
        else:
            answer.deliver(part)

    def _finish(self, answer: RunningAnswer, part: GeneratedPart, finish: Finish) -> None:
        text = part.text + answer.text.finish()
        if answer.text.is_stopped and finish == "length":
            finish = "stop"
        self.counts.answers += 1
        answer.deliver(
            GeneratedPart(text, part.tokens, part.scores, part.prompt, finish, part.problem)
        )
        self._leave(answer)

    def _leave(self, answer: RunningAnswer) -> None:
        self.running.remove(answer)
        self._remember(answer)
        self._release(answer, answer.end)

    def _remember(self, answer: RunningAnswer) -> None:
        if answer.adapter is not None and answer.adapter.is_forgotten:
            return
        tokens = [*answer.request.prompt, *answer.tokens][: answer.end]
        self.store.add(
            answer.key,
            tokens,
            lambda start, stop: self.base.memory.copy(answer.slot, start, stop),
        )

    def _release(self, answer: RunningAnswer, end: int) -> None:
        self.base.memory.free(answer.slot, end)
        self._free = sorted([*self._free, answer.slot])


def _place(answer: RunningAnswer) -> int:
    # Rows are sorted by adapter.
    return -1 if answer.adapter is None else answer.adapter.number


def _next_token(answer: RunningAnswer, logits: torch.Tensor, best: int) -> int:
    settings, matcher = answer.sampler.settings, answer.matcher
    if settings.repetition_penalty != 1:
        seen = [*answer.request.prompt, *answer.tokens]
        logits = penalize(logits, seen, settings.repetition_penalty)
        best = int(logits.argmax())
    if settings.is_greedy:
        if matcher is None:
            return best
        return constrained.greedy(logits[None], [matcher])[0]
    if matcher is None:
        return answer.sampler.choose(logits)
    allowed = logits[None].clone()
    constrained.apply(allowed, [matcher])
    token = answer.sampler.choose(allowed[0])
    matcher.consume(token)
    return token
