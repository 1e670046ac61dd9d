"""Prove what a loaded adapter does, by log-probabilities of fixed texts and by a greedy answer.

An engine's 200, and a name in its list, prove nothing: engines have answered with the base, with an
older version's cache or with another adapter under the right name.
"""

import asyncio
import json
import math
import time
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeAlias, TypeVar

from pydantic import TypeAdapter, ValidationError

from components.serve.engines.serving_engine import (
    Generation,
    Probe,
    ServingEngine,
    TokenLogprob,
    UpstreamError,
)
from components.store import manifest

FILE_VERSION = 1

FLOORS: Mapping[str, float] = {"fp32": 0.002}
"""The least tolerance, in nats a token, by precision: two correct engines differ by this much."""

FLOOR_16 = 0.06  # 16-bit and 4-bit precisions: about five times what batching changes in bf16

SHARES: Mapping[str, float] = {"fp32": 0.001}
"""The tolerance as a share of the log-probabilities and of the effect, by precision: rounding grows
with them, and another engine rounds in another order."""

SHARE_16 = 0.02

NOISE_FACTOR = 4.0  # tolerance and least effect, as a multiple of the measured noise
NEARER = 0.5  # how much nearer to its own reference than to any other an adapter must be

BEST_PROBES = 4  # probes used of an adapter's references, those with the largest effect
ROUNDS = 3  # mixed rounds; fewer when they take longer than ``MIXED_SECONDS``
MIXED_SECONDS = 2.0
MAX_OTHERS = 3  # other adapters in a mixed round

Logprobs: TypeAlias = tuple[float, ...]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class GreedyAnswer:
    """The beginning of an adapter's greedy answer.

    ``clear`` counts the leading tokens that won by a wide margin, so that noise can't change them;
    ``text`` is theirs.
    """

    prompt: str
    prompt_tokens: tuple[int, ...]
    text: str
    logprobs: Logprobs
    clear: int


@dataclass(frozen=True, slots=True)
class References:
    """What an adapter and its base make of the probes, computed without the engine.

    All adapters of a base share its probes. ``noise`` is the largest mean difference, in nats a
    token, between a probe scored alone, again, and in a batch.
    """

    adapter: str
    """The adapter's key."""

    base: str
    """The content hash of its base."""

    precision: str
    probes: tuple[Probe, ...]
    of_adapter: tuple[Logprobs, ...]
    of_base: tuple[Logprobs, ...]
    noise: float
    greedy: tuple[GreedyAnswer, ...] = ()
    version: int = FILE_VERSION

    @property
    def effect(self) -> float:
        """The adapter's mean effect on its best probes, in nats a token."""
        best = self.best()
        return distance(best.of_adapter, best.of_base)

    @property
    def tolerance(self) -> float:
        """How far an engine's log-probabilities may be from these, in nats a token."""
        zero = [[0.0] * len(logprobs) for logprobs in self.of_base]
        size = max(distance(self.of_base, zero), distance(self.of_adapter, self.of_base))
        return max(
            FLOORS.get(self.precision, FLOOR_16),
            NOISE_FACTOR * self.noise,
            SHARES.get(self.precision, SHARE_16) * size,
        )

    @property
    def is_measurable(self) -> bool:
        """Whether the adapter can be told from its base."""
        return self.effect > NOISE_FACTOR * max(self.noise, 1e-6)

    def best(self, count: int = BEST_PROBES) -> "References":
        """Return these with only the probes on which the adapter has the largest effect."""
        effects = [
            distance([ours], [bases])
            for ours, bases in zip(self.of_adapter, self.of_base, strict=True)
        ]
        return self._with(sorted(sorted(range(len(effects)), key=lambda i: -effects[i])[:count]))

    def single(self, number: int) -> "References":
        """Return these with only one of the best probes; ``number`` counts around them."""
        best = self.best()
        return best._with([number % len(best.probes)])

    def _with(self, chosen: Sequence[int]) -> "References":
        return replace(
            self,
            probes=tuple(self.probes[i] for i in chosen),
            of_adapter=tuple(self.of_adapter[i] for i in chosen),
            of_base=tuple(self.of_base[i] for i in chosen),
        )

    def on(self, probes: Sequence[Probe]) -> tuple[Logprobs, ...] | None:
        """Return the adapter's log-probabilities of these probes; ``None`` if it lacks one."""
        by_probe = dict(zip(self.probes, self.of_adapter, strict=True))
        if any(probe not in by_probe for probe in probes):
            return None
        return tuple(by_probe[probe] for probe in probes)

    def write(self, path: Path) -> None:
        """Replace the file of these references."""
        manifest.write_atomically(path, json.dumps(asdict(self)) + "\n")


def read_references(path: Path) -> References:
    """Read references.

    Raises:
        ValueError: The file is not of references, or of another version.
    """
    try:
        references = TypeAdapter(References).validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"reading {path}: it is not a file of references: {error}") from error
    if references.version != FILE_VERSION:
        raise ValueError(
            f"reading {path}: its version is {references.version}, expected {FILE_VERSION}"
        )
    return references


def distance(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> float:
    """Return the mean absolute difference of log-probabilities, in nats a token."""
    pairs = [
        (ours_at, theirs_at)
        for ours_of, theirs_of in zip(ours, theirs, strict=True)
        for ours_at, theirs_at in zip(ours_of, theirs_of, strict=True)
    ]
    if not pairs:
        raise ValueError("comparing log-probabilities: there are none")
    return sum(abs(a - b) for a, b in pairs) / len(pairs)


@dataclass(frozen=True, slots=True)
class Resident:
    """An adapter under its name at the engines, and its references."""

    model: str
    references: References


@dataclass(frozen=True, slots=True)
class Proof:
    """What a proof on one replica measured; it holds if ``objection`` is ``None``.

    Distances are in nats a token: ``from_reference`` of the adapter, ``from_base`` between the
    adapter and the base on this replica, ``nearest_other`` to the nearest other reference.
    """

    replica: str
    model: str
    objection: str | None
    from_reference: float = float("nan")
    from_base: float = float("nan")
    nearest_other: float | None = None
    tolerance: float = float("nan")
    seconds: float = 0.0
    status: int | None = None
    """The HTTP status if the engine failed rather than its answers; 504 if it was too slow."""
    warning: str | None = None
    """What is wrong with the replica's base alone, which serves nobody."""
    is_wrong: bool = False
    """Whether its answers are why; another failure may be the engine's."""


class ProofError(Exception):
    """An adapter does something else than its references."""


@dataclass(slots=True)
class _Measured:
    from_reference: float = float("nan")
    from_base: float = float("nan")
    nearest_other: float | None = None
    warning: str | None = None


async def prove(
    engine: ServingEngine,
    resident: Resident,
    others: Sequence[Resident],
    *,
    timeout: float,
    is_unproved_allowed: bool = False,
    probe: int | None = None,
) -> Proof:
    """Prove an adapter on one replica.

    Args:
        engine: The replica.
        resident: The adapter.
        others: The other adapters that are loaded there, the likeliest to be confused first.
        timeout: The most seconds; a slower replica is not proved.
        is_unproved_allowed: Accept an adapter without measurable effect, as long as it equals its
            reference.
        probe: Only check whether it is itself on one of its best probes, which costs a twentieth.

    Returns:
        The proof; an engine's failure is its objection.
    """
    started, measured = time.monotonic(), _Measured()
    objection: str | None = None
    status: int | None = None
    is_wrong = False
    try:
        async with asyncio.timeout(timeout):
            if probe is None:
                await _prove(engine, resident, others, measured, is_unproved_allowed)
            else:
                single = replace(resident, references=resident.references.single(probe))
                await _score_alone(engine, single, others, measured)
    except TimeoutError:
        objection, status = f"the proof took longer than {timeout:g} s", 504
    except UpstreamError as error:
        objection, status = error.reason, error.status
    except ProofError as error:
        objection, is_wrong = str(error), True
    return Proof(
        engine.name,
        resident.model,
        objection,
        measured.from_reference,
        measured.from_base,
        measured.nearest_other,
        resident.references.tolerance,
        time.monotonic() - started,
        status,
        measured.warning,
        is_wrong,
    )


def _base_difference(references: References, actual: Sequence[Logprobs]) -> str | None:
    """Return how a replica's base differs from that of the references; ``None`` if it does not."""
    off = distance(actual, references.of_base)
    if off <= references.tolerance:
        return None
    return (
        f"its base is {off:.4g} nats a token from {references.base} at {references.precision}, "
        f"tolerance {references.tolerance:.4g}"
    )


async def _prove(
    engine: ServingEngine,
    resident: Resident,
    others: Sequence[Resident],
    measured: _Measured,
    is_unproved_allowed: bool,
) -> None:
    best, name = resident.references.best(), resident.model
    if not best.is_measurable and not is_unproved_allowed:
        raise ProofError(
            f"{name} has no measurable effect: {best.effect:.2g} nats a token, with a noise of "
            f"{best.noise:.2g}; it can't be told from its base"
        )
    bases = await _score_all(engine, engine.base, best.probes)
    # No objection by itself, since nobody is served by the base: vLLM's CPU build (0.32) computes
    # requests without an adapter with the weights in its last slot.
    measured.warning = _base_difference(best, bases)
    alone = await _score_alone(engine, resident, others, measured)
    await _prove_mixed(engine, resident, others, alone)
    await _prove_greedy(engine, resident, others)


async def _score_alone(
    engine: ServingEngine,
    resident: Resident,
    others: Sequence[Resident],
    measured: _Measured,
) -> list[Logprobs]:
    """Score an adapter's best probes; raise ``ProofError`` if it is not itself."""
    best, name = resident.references.best(), resident.model
    alone = await _score_all(engine, name, best.probes)
    measured.from_reference = distance(alone, best.of_adapter)
    measured.from_base = distance(alone, best.of_base)
    if measured.from_reference > best.tolerance:
        like = _nearest(alone, best, others)
        if measured.warning is not None:
            like += f"; {measured.warning}: it is another base, or another precision"
        raise ProofError(
            f"{name} is {measured.from_reference:.4g} nats a token from its reference, tolerance "
            f"{best.tolerance:.4g}; the nearest is {like}"
        )
    if best.is_measurable and measured.from_reference > NEARER * measured.from_base:
        raise ProofError(
            f"{name} is {measured.from_base:.4g} nats a token from its base and "
            f"{measured.from_reference:.4g} from its reference: it can't be told from its base "
            f"at {best.precision}"
        )
    for other in others:
        known = other.references.on(best.probes)
        if known is None or other.references.adapter == best.adapter:
            continue
        apart, expected = distance(alone, known), distance(best.of_adapter, known)
        measured.nearest_other = min(apart, measured.nearest_other or apart)
        if expected > NOISE_FACTOR * best.noise and apart <= measured.from_reference:
            raise ProofError(f"{name} is nearer to {other.model} than to its own reference")
    return alone


def _nearest(alone: Sequence[Logprobs], best: References, others: Sequence[Resident]) -> str:
    distances = {"its base": distance(alone, best.of_base)}
    for other in others:
        if (known := other.references.on(best.probes)) is not None:
            distances[other.model] = distance(alone, known)
    nearest = min(distances, key=distances.__getitem__)
    return f"{nearest} ({distances[nearest]:.4g})"


async def _prove_mixed(
    engine: ServingEngine,
    resident: Resident,
    others: Sequence[Resident],
    alone: Sequence[Logprobs],
) -> None:
    """Score several adapters and the base at once: each adapter must still be itself."""
    best = resident.references.best()
    expected = [(resident.model, dict(zip(best.probes, alone, strict=True)), best.tolerance)]
    expected += [(engine.base, dict[Probe, Logprobs](), math.inf)]
    for other in others[:MAX_OTHERS]:
        if (known := other.references.on(best.probes)) is not None:
            known_of = dict(zip(best.probes, known, strict=True))
            expected.append((other.model, known_of, other.references.tolerance))
    started = time.monotonic()
    for number in range(ROUNDS):
        if number and time.monotonic() - started > MIXED_SECONDS:
            return
        probe = best.probes[number % len(best.probes)]
        # Twice, in both orders, so that each is admitted before and after every other one.
        models = [*expected, *reversed(expected)]
        scores = await _gather(*(_score(engine, model, probe) for model, _, _ in models))
        for (model, known, tolerance), score in zip(models, scores, strict=True):
            if not known:
                continue  # the base only takes part
            if (off := distance([score], [known[probe]])) > tolerance:
                raise ProofError(
                    f"in a batch of {len(models)} requests {model} is {off:.4g} nats a token from "
                    f"itself, tolerance {tolerance:.4g}: it was answered with other weights"
                )


async def _prove_greedy(
    engine: ServingEngine, resident: Resident, others: Sequence[Resident]
) -> None:
    """Answer the same prompt with other models first, then twice: a stale cache changes it."""
    tolerance = resident.references.tolerance
    for answer in resident.references.greedy:
        if not answer.clear:
            continue
        before = [engine.base, *(other.model for other in others[:1])]
        await _gather(*(_answer(engine, model, answer) for model in before))
        for _ in range(2):
            text, logprobs = await _answer(engine, resident.model, answer)
            if not text.lstrip().startswith(answer.text.lstrip()):
                raise ProofError(
                    f"{resident.model} answers {text!r} to a reference's prompt, expected "
                    f"{answer.text!r}: weights or a stale cache of another adapter"
                )
            actual = [token.logprob for token in logprobs[: answer.clear]]
            if len(actual) < answer.clear:
                continue  # the engine reports no log-probabilities of answers
            if (off := distance([actual], [answer.logprobs[: answer.clear]])) > tolerance:
                raise ProofError(
                    f"{resident.model} answers with log-probabilities {off:.4g} nats a token from "
                    f"its reference, tolerance {tolerance:.4g}: a stale cache of another adapter"
                )


async def _answer(
    engine: ServingEngine, model: str, answer: GreedyAnswer
) -> tuple[str, list[TokenLogprob]]:
    text, logprobs = "", list[TokenLogprob]()
    generation = Generation(answer.prompt, len(answer.logprobs), logprobs=1)
    async with aclosing(engine.complete(model, generation)) as pieces:
        async for piece in pieces:
            text += piece.text
            logprobs += piece.logprobs
    return text, logprobs


async def _score_all(engine: ServingEngine, model: str, probes: Sequence[Probe]) -> list[Logprobs]:
    return await _gather(*(_score(engine, model, probe) for probe in probes))


async def _score(engine: ServingEngine, model: str, probe: Probe) -> Logprobs:
    scores = tuple(await engine.score(model, probe))
    if len(scores) != len(probe.answer_tokens):
        raise UpstreamError(
            502,
            f"scoring on {engine.name}: {len(scores)} log-probabilities came back for "
            f"{len(probe.answer_tokens)} tokens",
            is_retryable=True,
        )
    if not all(map(math.isfinite, scores)):
        raise UpstreamError(
            502, f"scoring on {engine.name}: a log-probability is not finite", is_retryable=True
        )
    return scores


async def _gather(*calls: Coroutine[object, object, T]) -> list[T]:
    """Await all calls; the first failure cancels the others."""
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
