"""The engine on transformers and PEFT, for any device and precision, through lm-eval's HFLM."""

import json
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch  # noqa: TID253 - this module is itself imported late
from lm_eval.models.huggingface import HFLM  # noqa: TID253 - as above
from lm_eval.models.utils import (  # noqa: TID253 - as above
    handle_stop_sequences,
    normalize_gen_kwargs,
    postprocess_generated_text,
)

from components.evaluate.constraint import AnswerConstraint
from components.evaluate.engines import adapter_checks, prompt_reader, protocol, speed
from components.evaluate.engines.adapter_checks import AdapterNotAppliedError
from components.evaluate.engines.prompt_reader import TreeReader
from components.evaluate.settings import EvaluationSettings
from components.models import constrained
from components.models.base import attach_adapter, end_tokens, load
from components.models.constrained import ConstraintError, GrammarMasks, Matcher, Vocabulary
from components.models.prefix_tree import Row, scored_row
from components.schema import Progress

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


# pyright: reportCallIssue=false, reportAttributeAccessIssue=false
# lm-eval's class decorator hides HFLM's own type: pyright only sees LM's interface.


PLAIN_SETTINGS = {"do_sample", "temperature"}
"""The settings of greedy answers; requests with other settings are left to ``HFLM``."""

LOOKBACK = 2
"""Additional tokens that are searched for a stop string, which may be tokenized differently."""


class CachedHFLM(HFLM):
    """``HFLM`` with a prefix cache and progress: before the first request and as they finish."""

    def __init__(
        self,
        model: "PreTrainedModel | PeftModel",
        tokenizer: "PreTrainedTokenizerBase",
        batch_size: int,
        *,
        reader: TreeReader | None,
        stage: str,
        report: Callable[[Progress], None],
        constraint: AnswerConstraint | None = None,
        vocabulary: Vocabulary | None = None,
        is_chat: bool = False,
    ) -> None:
        # ``reader`` is ``None`` if the model can't read a tree.
        super().__init__(
            pretrained=model,
            tokenizer=tokenizer,
            batch_size=batch_size,
            add_bos_token=False if is_chat else None,  # by default as the tokenizer does
        )
        self.constraint, self.vocabulary = constraint, vocabulary
        self.stage, self.report = stage, report
        self.ends = end_tokens(model, tokenizer)
        self.reader, self.at_once = reader, batch_size
        self.done = self.asked = 0
        self._matchers: list[Matcher | None] = []

    def loglikelihood(
        self, requests: "list[Instance]", disable_tqdm: bool = True
    ) -> list[tuple[float, bool]]:
        """Score continuations; ``report`` replaces lm-eval's progress bar."""
        self._report(0, len(requests))
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def generate_until(self, requests: "list[Instance]", disable_tqdm: bool = True) -> list[str]:
        """Answer prompts; ``report`` replaces lm-eval's progress bar. Settings must not sample."""
        self._report(0, len(requests))
        grammars = [self._grammar(request) for request in requests]
        by_settings: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            settings = json.dumps(_prompt_and_settings(request)[1], sort_keys=True)
            by_settings.setdefault(settings, []).append(index)
        answers = [""] * len(requests)
        for indices in by_settings.values():
            group = [requests[index] for index in indices]
            of_group = [grammars[index] for index in indices]
            for index, answer in zip(indices, self._generate(group, of_group), strict=True):
                answers[index] = answer
        return answers

    def _grammar(self, request: "Instance") -> str | None:
        if self.constraint is None or self.vocabulary is None:
            return None
        grammar = self.constraint.grammar(request.doc)
        try:
            return grammar if grammar is None or self.vocabulary.start(grammar) else None
        except ConstraintError as error:
            self.constraint.note(str(error))
            return None

    def _generate(self, requests: "list[Instance]", grammars: list[str | None]) -> list[str]:
        # They have equal settings.
        settings: dict[str, Any] = dict(
            normalize_gen_kwargs(_prompt_and_settings(requests[0])[1], self.max_gen_toks)
        )
        most = settings.pop("max_gen_toks")
        until = handle_stop_sequences(settings.pop("until", None), eos=None)
        protocol.require_greedy(settings)
        if self.reader is None or not settings.keys() <= PLAIN_SETTINGS or _is_swayed(self.model):
            return self._generate_in_batches(requests, grammars)
        if most >= self.max_length:
            raise ValueError(
                f"answering with up to {most} tokens: the model sees {self.max_length}, prompt and "
                "answer together"
            )
        prompts = [
            self.tok_encode(_prompt_and_settings(r)[0], left_truncate_len=self.max_length - most)
            for r in requests
        ]
        if not all(prompts):
            raise ValueError("answering an empty prompt: there is no token to begin after")
        before = self.done
        answers = self.reader.answer(
            [*zip(prompts, grammars, strict=True)],
            self._stop_check(until),
            most,
            vocabulary=self.vocabulary,
            batch_size=self.at_once,
            report=lambda done: self._report(before + done, self.asked),
        )
        self._note([answer.problem for answer in answers])
        stops = [*until, self.tok_decode(self.eot_token_id, skip_special_tokens=False)]
        texts = [self.tok_decode(answer.tokens) for answer in answers]
        return [postprocess_generated_text(text, stops, None) for text in texts]

    def _generate_in_batches(
        self, requests: "list[Instance]", grammars: list[str | None]
    ) -> list[str]:
        """Answer by ``HFLM``, a batch at a time where grammars have to be followed."""
        if not any(grammars):
            return super().generate_until(requests, disable_tqdm=True)
        lengths = [len(self.tok_encode(_prompt_and_settings(r)[0])) for r in requests]
        order = sorted(range(len(requests)), key=lambda index: -lengths[index])
        answers = [""] * len(requests)
        for first in range(0, len(order), self.at_once):
            batch = order[first : first + self.at_once]
            # HFLM answers a batch from the longest prompt to the shortest, equal ones by text.
            batch.sort(key=lambda i: (-lengths[i], _prompt_and_settings(requests[i])[0]))
            self._matchers = [self._start(grammars[index]) for index in batch]
            texts = super().generate_until([requests[i] for i in batch], disable_tqdm=True)
            self._note([None if m is None else m.problem for m in self._matchers])
            for index, text in zip(batch, texts, strict=True):
                answers[index] = text
        self._matchers = []
        return answers

    def _start(self, grammar: str | None) -> Matcher | None:
        return None if grammar is None or not self.vocabulary else self.vocabulary.start(grammar)

    def _note(self, problems: Sequence[str | None]) -> None:
        for problem in problems:
            if problem is not None and self.constraint is not None:
                self.constraint.note(problem)

    def _stop_check(self, until: Sequence[str]) -> Callable[[Sequence[int]], bool]:
        ends = frozenset(self.ends)
        encoded = [self.tok_encode(stop, add_special_tokens=False) for stop in until]
        longest = max(map(len, encoded), default=0) + LOOKBACK

        def is_over(tokens: Sequence[int]) -> bool:
            if tokens[-1] in ends:
                return True
            text = self.tok_decode(tokens[-longest:], skip_special_tokens=False) if until else ""
            return any(stop in text for stop in until)

        return is_over

    def _model_generate(
        self,
        context: torch.Tensor,
        max_length: int,
        stop: list[str],
        **settings: Any,  # noqa: ANN401 - it is passed on
    ) -> torch.Tensor:
        if self._matchers:
            settings["logits_processor"] = [GrammarMasks(self._matchers)]
        answers = super()._model_generate(context, max_length, stop, **settings)
        self._report(self.done + len(context), self.asked)
        return answers

    def _loglikelihood_tokens(
        self,
        requests: "list[tuple[Any, list[int], list[int]]]",
        **settings: Any,  # noqa: ANN401 - it is passed on
    ) -> list[tuple[float, bool]]:
        score = self.reader.score if self.reader else partial(_padded_likelihoods, self.model)
        return score(
            [(context, continuation) for _, context, continuation in requests],
            window=self.max_length,
            batch_size=self.at_once,
            report=lambda done: self._report(done, len(requests)),
        )

    def _report(self, done: int, asked: int) -> None:
        self.done, self.asked = done, asked
        self.report(Progress(self.stage, done, asked, "requests"))


def _prompt_and_settings(request: "Instance") -> tuple[str, dict[str, Any]]:
    return cast("tuple[str, dict[str, Any]]", request.args)


def _is_swayed(model: "PreTrainedModel | PeftModel") -> bool:
    return bool(protocol.swaying_settings(getattr(model.generation_config, "to_diff_dict", dict)()))


class TransformersEngine:
    """A base in this process's memory."""

    def __init__(self, base: Path, settings: EvaluationSettings) -> None:
        self.model, self.tokenizer = load(base, settings.precision, for_training=False)
        self.batch_size = settings.batch_size
        self.length = self._window()
        self.prefixes = prompt_reader.for_device(self.model.device.type)
        self._vocabulary: Vocabulary | None = None
        self._base_logits = adapter_checks.probe_logits(self.model, self.tokenizer)

    def _window(self) -> int:
        # What lm-eval cuts prompts to: not every configuration has the length at the same place.
        answerer = CachedHFLM(  # pyright: ignore[reportAbstractUsage] - HFLM is not
            self.model,
            self.tokenizer,
            self.batch_size,
            reader=None,
            stage="",
            report=lambda _: None,
        )
        return int(answerer.max_length)

    @property
    def vocabulary(self) -> Vocabulary:
        """The base's tokens, for grammars."""
        if self._vocabulary is None:
            self._vocabulary = constrained.vocabulary_of(self.model, self.tokenizer)
        return self._vocabulary

    @contextmanager
    def use_adapter(self, adapter: Path | None) -> "Generator[TransformersAdapter]":
        """Attach an adapter, as ``Engine.use_adapter``."""
        if adapter is None:
            yield TransformersAdapter(self, self.model)
            return
        adapted = _attach_adapter(self.model, adapter)
        try:
            adapter_checks.require_applied(adapted, adapter, self.tokenizer, self._base_logits)
            yield TransformersAdapter(self, adapted)
        finally:
            adapted.unload()


class TransformersAdapter:
    """The base with an adapter attached, or without one."""

    def __init__(self, engine: TransformersEngine, model: "PreTrainedModel | PeftModel") -> None:
        """Wrap the engine's model; its blocked weights are shared by all tasks."""
        self._engine, self._model = engine, model
        self._reader = engine.prefixes.reader(model) if engine.prefixes else None

    @contextmanager
    def answering(
        self,
        stage: str,
        report: Callable[[Progress], None],
        constraint: AnswerConstraint | None = None,
        *,
        is_chat: bool = False,
    ) -> "Generator[LM]":
        """Return a model for lm-eval."""
        engine, prefixes, reader = self._engine, self._engine.prefixes, self._reader
        with prefixes.threads() if prefixes else nullcontext():
            answerer = CachedHFLM(  # pyright: ignore[reportAbstractUsage] - HFLM is not
                self._model,
                engine.tokenizer,
                engine.batch_size,
                reader=reader if prefixes and reader and prefixes.fits(reader) else None,
                stage=stage,
                report=report,
                constraint=constraint,
                vocabulary=engine.vocabulary if constraint else None,
                is_chat=is_chat,
            )
            yield cast("LM", answerer)

    def alone(self, prompt: str) -> tuple[float, float]:
        """Answer one request by itself, and time it."""
        return speed.time_alone(self._model, self._engine.tokenizer, self._engine.length, prompt)


def _attach_adapter(model: "PreTrainedModel", adapter: Path) -> "PeftModel":
    try:
        return attach_adapter(model, adapter)
    except (UserWarning, ValueError) as error:
        raise AdapterNotAppliedError(
            f"evaluating {adapter}: it does not fit the base: {error}"
        ) from error


@torch.inference_mode()
def _padded_likelihoods(
    model: "PreTrainedModel | PeftModel",
    requests: Sequence[tuple[Row, Row]],
    *,
    window: int,
    batch_size: int,
    report: Callable[[int], None],
) -> list[tuple[float, bool]]:
    """Score continuations in padded batches, on CUDA and for a model that can't read a tree.

    lm-eval would compute the logits of whole prompts, and round the log-probabilities to the
    model's 16 bits, where those of most labels are multiples of 1/32 or 1/16. What several requests
    have the model read is read once.
    """
    numbers: dict[tuple[int, ...], list[int]] = {}
    for number, (context, continuation) in enumerate(requests):
        row = tuple(scored_row(context, continuation, window))
        numbers.setdefault(row, []).append(number)
    scores: dict[int, tuple[float, bool]] = {}
    rows = sorted(numbers, key=lambda row: (-len(row), row))
    for first in range(0, len(rows), batch_size):
        batch = rows[first : first + batch_size]
        lengths = [max(len(requests[number][1]) for number in numbers[row]) for row in batch]
        for row, logits in zip(batch, _last_logits(model, batch, lengths), strict=True):
            for number in numbers[row]:
                scores[number] = _continuation_score(logits, requests[number][1])
        report(len(scores))
    return [scores[number] for number in range(len(requests))]


def _last_logits(
    model: "PreTrainedModel | PeftModel", rows: Sequence[Row], counts: Sequence[int]
) -> list[torch.Tensor]:
    """Return the logits of each row's last ``counts`` tokens, ``[count, vocabulary]``."""
    spans = [(len(row) - count, len(row)) for row, count in zip(rows, counts, strict=True)]
    places = sorted({place for start, end in spans for place in range(start, end)})
    longest = max(map(len, rows))
    # Padding comes last, so that no token sees any.
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=model.device)
    kept = torch.tensor(places, device=model.device)
    logits = cast("Any", model)(input_ids=ids, use_cache=False, logits_to_keep=kept).logits
    if logits.shape[1] != len(places):  # some models (xLSTM) give those of all tokens
        logits = logits[:, kept]
    starts = [places.index(start) for start, _ in spans]
    return [
        of_row[start : start + count]
        for of_row, start, count in zip(logits, starts, counts, strict=True)
    ]


def _continuation_score(logits: torch.Tensor, continuation: Row) -> tuple[float, bool]:
    logs = logits[-len(continuation) :].float().log_softmax(-1)
    tokens = torch.tensor(continuation, device=logits.device)
    total = logs.gather(1, tokens[:, None]).double().sum()
    return float(total), bool((logs.argmax(-1) == tokens).all())
