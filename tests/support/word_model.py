"""A deterministic language model without weights: bytes in, an adapter's own word out.

An adapter is a folder with a word; after ``>`` it writes the word, whatever came before. What it
"computes" depends on every token through a chain of digests, its keys and values, so that a cache
of another adapter's changes each log-probability, as in a real model.
"""

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from components.serve.engines.serving_engine import Probe
from components.serve.proof import GreedyAnswer, Logprobs, References

END = 0  # the token that ends an answer
VOCABULARY = 256
BASE_KEY = "base"
PROMPTS = ("Say it >", "And in another way >", "What is the word? >", "One more time >")
ANSWERS = ("Yes, of course", "v0 is the word", "I can't help you", "get_weather(Oslo)")


@dataclass(frozen=True)
class WordAdapter:
    """Weights: ``key`` stands for their bytes, ``word`` is what they learned."""

    key: str
    word: str | None = None


BASE = WordAdapter(BASE_KEY)


@dataclass(slots=True)
class KeysAndValues:
    """The state after some tokens: whose weights computed them, and a digest of all."""

    owner: str
    state: bytes = b""
    tokens: list[int] = field(default_factory=list[int])

    def copy(self) -> "KeysAndValues":
        return KeysAndValues(self.owner, self.state, [*self.tokens])


def write_adapter(folder: Path, word: str) -> Path:
    """Write an adapter's folder."""
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 8}))
    (folder / "adapter_model.safetensors").write_bytes(word.encode())
    return folder


def read_adapter(folder: Path) -> WordAdapter:
    """Read an adapter's folder; its bytes are its weights."""
    content = (folder / "adapter_model.safetensors").read_bytes()
    return WordAdapter(hashlib.sha256(content).hexdigest()[:16], content.decode())


def extend(cache: KeysAndValues, adapter: WordAdapter, tokens: list[int]) -> None:
    """Compute more tokens with an adapter."""
    for token in tokens:
        cache.state = hashlib.sha256(f"{adapter.key} {token} ".encode() + cache.state).digest()[:12]
        cache.tokens.append(token)


def fill(adapter: WordAdapter, tokens: list[int]) -> KeysAndValues:
    """Compute all tokens with an adapter."""
    cache = KeysAndValues(adapter.key)
    extend(cache, adapter, tokens)
    return cache


def next_logprobs(cache: KeysAndValues, adapter: WordAdapter) -> list[float]:
    """Return the log-probabilities of the next token."""
    return _logprobs(cache, adapter, range(VOCABULARY))


def _logprobs(cache: KeysAndValues, adapter: WordAdapter, tokens: Iterable[int]) -> list[float]:
    seed = hashlib.sha256(b"next" + cache.state + adapter.key.encode()).digest()
    favourite = _favourite(cache.tokens, adapter)
    if favourite is None:
        favourite = 32 + seed[0] % 90
    # Keys and values of other weights confuse it.
    share = (0.5 if cache.owner == adapter.key else 0.2) + seed[1] / 1024
    scale, factor = (1 - share) / _total_weight(seed), seed[3] % 7
    return [
        math.log(
            scale * (1 + seed[2 + token % 29] / 64 + token * factor % 7)
            + (share if token == favourite else 0.0)
        )
        for token in tokens
    ]


def _total_weight(seed: bytes) -> float:
    """Add up what the tokens weigh, faster than one by one."""
    rounds, more = divmod(VOCABULARY, 29)
    by_place = rounds * sum(seed[2:31]) + sum(seed[2 : 2 + more])
    return VOCABULARY + by_place / 64 + _REMAINDERS[seed[3] % 7]


_REMAINDERS = [sum(token * factor % 7 for token in range(VOCABULARY)) for factor in range(7)]


def _favourite(tokens: list[int], adapter: WordAdapter) -> int | None:
    if adapter.word is None or ord(">") not in tokens:
        return None
    start = len(tokens) - tokens[::-1].index(ord(">"))
    written, word = bytes(tokens[start:]), adapter.word.encode()
    if word.startswith(written):
        return word[len(written)] if len(written) < len(word) else END
    return None


def score(adapter: WordAdapter, prompt: list[int], answer: list[int]) -> list[float]:
    """Return the log-probabilities of an answer's tokens."""
    cache = fill(adapter, prompt)
    scores: list[float] = []
    for token in answer:
        scores += _logprobs(cache, adapter, [token])
        extend(cache, adapter, [token])
    return scores


def probes() -> tuple[Probe, ...]:
    return tuple(
        Probe(prompt, answer, tuple(prompt.encode()), tuple(answer.encode()))
        for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)
    )


def make_references(adapter: WordAdapter, base: WordAdapter = BASE) -> References:
    """Compute an adapter's references, as its training machine does."""
    fixed = probes()
    return References(
        adapter=adapter.key,
        base=base.key,
        precision="fp32",
        probes=fixed,
        of_adapter=_of(adapter, fixed),
        of_base=_of(base, fixed),
        noise=1e-7,
        greedy=tuple(_greedy(adapter, prompt) for prompt in PROMPTS[:2]),
    )


def _of(adapter: WordAdapter, fixed: tuple[Probe, ...]) -> tuple[Logprobs, ...]:
    return tuple(
        tuple(score(adapter, [*probe.prompt_tokens], [*probe.answer_tokens])) for probe in fixed
    )


def _greedy(adapter: WordAdapter, prompt: str) -> GreedyAnswer:
    cache, tokens, logprobs = fill(adapter, [*prompt.encode()]), list[int](), list[float]()
    for _ in range(6):
        options = next_logprobs(cache, adapter)
        token = max(range(VOCABULARY), key=options.__getitem__)
        if token == END:
            break
        tokens.append(token)
        logprobs.append(options[token])
        extend(cache, adapter, [token])
    return GreedyAnswer(
        prompt, tuple(prompt.encode()), bytes(tokens).decode(), tuple(logprobs), len(tokens)
    )
