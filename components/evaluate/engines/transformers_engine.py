"""The engine on transformers and PEFT, for any device and precision, through lm-eval's HFLM."""

import json
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch  # noqa: TID253 - this module is itself imported late
from lm_eval.models.huggingface import HFLM  # noqa: TID253 - as above
from lm_eval.models.utils import (  # noqa: TID253 - as above
    handle_stop_sequences,
    normalize_gen_kwargs,
    postprocess_generated_text,
)

from components.evaluate import prefix_engine
from components.evaluate.engines import adapter_checks, protocol, speed
from components.evaluate.engines.adapter_checks import AdapterNotAppliedError
from components.evaluate.prefix_engine import PrefixReader
from components.evaluate.settings import EvaluationSettings
from components.models import base
from components.models import base as bases
from components.schema import Progress

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


# pyright: reportCallIssue=false, reportAttributeAccessIssue=false
# lm-eval's class decorator hides HFLM's own type: pyright sees its bare interface.


PLAIN_SETTINGS = {"do_sample", "temperature"}
"""The settings that a greedy answer has; what is asked for beyond them is left to ``HFLM``."""

LOOKBACK = 2
"""Tokens before a stop string's own count that are looked at: it may be told in other tokens."""


class CachedHFLM(HFLM):
    """Answers requests with a model; reports before the first and as they are done."""

    def __init__(
        self,
        model: "PreTrainedModel | PeftModel",
        tokenizer: "PreTrainedTokenizerBase",
        batch_size: int,
        *,
        reader: PrefixReader | None,
        stage: str,
        report: Callable[[Progress], None],
    ) -> None:
        """Take a model, and what reads its prompts as a tree where that is known to be right."""
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
        self.stage, self.report = stage, report
        self.ends = _end_tokens(model, tokenizer)
        self.reader, self.at_once = reader, batch_size
        self.done = self.asked = 0

    def loglikelihood(
        self, requests: "list[Instance]", disable_tqdm: bool = True
    ) -> list[tuple[float, bool]]:
        """Score continuations; ``report`` takes the place of lm-eval's own bar."""
        self._say(0, len(requests))
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def generate_until(self, requests: "list[Instance]", disable_tqdm: bool = True) -> list[str]:
        """Answer prompts; ``report`` takes the place of lm-eval's own bar.

        Raises:
            ValueError: Answers are to be sampled.
        """
        self._say(0, len(requests))
        alike: dict[str, list[int]] = {}
        for number, one in enumerate(requests):
            alike.setdefault(json.dumps(_prompt_and_limits(one)[1], sort_keys=True), []).append(
                number
            )
        answers = [""] * len(requests)
        for numbers in alike.values():
            some = [requests[number] for number in numbers]
            for number, answer in zip(numbers, self._generate(some), strict=True):
                answers[number] = answer
        return answers

    def _generate(self, requests: "list[Instance]") -> list[str]:
        """Answer prompts that are asked with the same settings."""
        settings: dict[str, Any] = dict(
            normalize_gen_kwargs(_prompt_and_limits(requests[0])[1], self.max_gen_toks)
        )
        most = settings.pop("max_gen_toks")
        until = handle_stop_sequences(settings.pop("until", None), eos=None)
        protocol.require_greedy(settings)
        if self.reader is None or not settings.keys() <= PLAIN_SETTINGS or _is_swayed(self.model):
            return super().generate_until(requests, disable_tqdm=True)
        if most >= self.max_length:
            raise ValueError(
                f"answering with up to {most} tokens: the model sees {self.max_length}, prompt and "
                "answer together"
            )
        prompts = [
            self.tok_encode(_prompt_and_limits(one)[0], left_truncate_len=self.max_length - most)
            for one in requests
        ]
        if not all(prompts):
            raise ValueError("answering an empty prompt: there is no token to begin after")
        before = self.done
        answers = self.reader.answer(
            prompts,
            self._stops(until),
            most,
            batch_size=self.at_once,
            report=lambda done: self._say(before + done, self.asked),
        )
        stops = [*until, self.tok_decode(self.eot_token_id, skip_special_tokens=False)]
        return [postprocess_generated_text(self.tok_decode(one), stops, None) for one in answers]

    def _stops(self, until: Sequence[str]) -> Callable[[Sequence[int]], bool]:
        """Tell whether tokens end an answer: an end token, or the last part of a stop string."""
        ends = frozenset(self.ends)
        told = [self.tok_encode(stop, add_special_tokens=False) for stop in until]
        longest = max(map(len, told), default=0) + LOOKBACK

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
        """Answer one batch as ``HFLM`` does, and count it."""
        answers = super()._model_generate(context, max_length, stop, **settings)
        self._say(self.done + len(context), self.asked)
        return answers

    def _loglikelihood_tokens(
        self,
        requests: "list[tuple[Any, list[int], list[int]]]",
        **settings: Any,  # noqa: ANN401 - it is passed on
    ) -> list[tuple[float, bool]]:
        """Score continuations that are tokens already."""
        if self.reader is None:
            scores = super()._loglikelihood_tokens(requests, **settings)
            self._say(len(requests), len(requests))
            return scores
        return self.reader.score(
            [(context, continuation) for _, context, continuation in requests],
            window=self.max_length,
            batch_size=self.at_once,
            report=lambda done: self._say(done, len(requests)),
        )

    def _say(self, done: int, asked: int) -> None:
        self.done, self.asked = done, asked
        self.report(Progress(self.stage, done, asked, "requests"))


def _prompt_and_limits(request: "Instance") -> tuple[str, dict[str, Any]]:
    """Give a prompt and how its answer is asked for."""
    return cast("tuple[str, dict[str, Any]]", request.args)


def _end_tokens(
    model: "PreTrainedModel | PeftModel", tokenizer: "PreTrainedTokenizerBase"
) -> list[int]:
    """List what ends an answer: the tokenizer's end token, and those the model was shipped with."""
    shipped = getattr(model.generation_config, "eos_token_id", None)
    ends = [tokenizer.eos_token_id, *(shipped if isinstance(shipped, list) else [shipped])]
    return list(dict.fromkeys(end for end in ends if isinstance(end, int)))


def _is_swayed(model: "PreTrainedModel | PeftModel") -> bool:
    """Tell whether a model's own settings may make its greedy answers other than the likeliest."""
    return bool(protocol.swaying_settings(getattr(model.generation_config, "to_diff_dict", dict)()))


class TransformersEngine:
    """A base in this process's memory."""

    def __init__(self, base: Path, settings: EvaluationSettings) -> None:
        """Load it, at the precision of the settings."""
        self.model, self.tokenizer = bases.load(base, settings.precision, for_training=False)
        self.length = getattr(self.model.config, "max_position_embeddings", None) or sys.maxsize
        self.batch_size = settings.batch_size
        self.prefixes = prefix_engine.for_device(self.model.device)
        self._bare = adapter_checks.probe_logits(self.model, self.tokenizer)

    @contextmanager
    def wearing(self, adapter: Path | None) -> "Generator[TransformersAdapter]":
        """Put an adapter on, see that it is really applied, and take it off again.

        Raises:
            NotAppliedError: It does not fit the base, or changes nothing there.
        """
        if adapter is None:
            yield TransformersAdapter(self, self.model)
            return
        wrapped = _attach_adapter(self.model, adapter)
        try:
            adapter_checks.require_applied(wrapped, adapter, self.tokenizer, self._bare)
            yield TransformersAdapter(self, wrapped)
        finally:
            base.detach_adapter(wrapped)


class TransformersAdapter:
    """The base with an adapter on, or without one."""

    def __init__(self, engine: TransformersEngine, model: "PreTrainedModel | PeftModel") -> None:
        """Take what the engine holds; what is made of its weights serves all tasks."""
        self._engine, self._model = engine, model
        self._reader = PrefixReader(model) if engine.prefixes else None

    @contextmanager
    def answering(self, stage: str, report: Callable[[Progress], None]) -> "Generator[LM]":
        """Give what lm-eval asks."""
        engine, prefixes, reader = self._engine, self._engine.prefixes, self._reader
        with prefixes.threads() if prefixes else nullcontext():
            answerer = CachedHFLM(  # pyright: ignore[reportAbstractUsage] - HFLM is not
                self._model,
                engine.tokenizer,
                engine.batch_size,
                reader=reader if prefixes and reader and prefixes.fits(reader) else None,
                stage=stage,
                report=report,
            )
            yield cast("LM", answerer)

    def alone(self, prompt: str) -> tuple[float, float]:
        """Answer one request by itself, and time it."""
        return speed.time_alone(self._model, self._engine.tokenizer, prompt)


def _attach_adapter(model: "PreTrainedModel", adapter: Path) -> "PeftModel":
    try:
        return base.attach_adapter(model, adapter)
    except (UserWarning, ValueError) as error:
        raise AdapterNotAppliedError(
            f"evaluating {adapter}: it does not fit the base: {error}"
        ) from error
